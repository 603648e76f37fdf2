"""What every guided decoder promises: the ground that its laws stand on."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import random
import threading
from collections.abc import AsyncIterator, Iterable, Mapping
from concurrent.futures import Future, wait
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from llmengine_core.errors import BadRequestError, UnsupportedFeatureError
from llmengine_core.interfaces.guided import GuidedDecoder
from llmengine_core.plugins import import_object
from llmengine_core.registry import Registry
from llmengine_core.settings import Settings, load_settings
from llmengine_core.testing.laws import CORE, Contract, Law
from llmengine_core.testing.strategies import constraints_with_texts
from llmengine_core.types.declarations import GuidedDecoderInfo
from llmengine_core.types.sampling import StructuredKind, StructuredOutput

__all__ = ["KINDS", "GuidedGround", "as_json", "json_forms", "near", "shown", "variants"]

KINDS: tuple[StructuredKind, ...] = ("json", "regex", "choice", "grammar")
"""Levels of the contract; a decoder answers for those that it declares."""


class GuidedGround(Contract):
    """How laws ask a decoder. ``decoder`` is its name, as in ``GuidedDecoderInfo``."""

    kind = "guided"
    decoder: ClassVar[str] = ""
    plugin: ClassVar[str] = ""
    """The plugin's module, where it isn't installed under an entry point."""
    batch: ClassVar[SearchStrategy[Mapping[StructuredKind, Iterable[tuple[StructuredOutput, str]]]]] = (
        st.fixed_dictionaries(
            {kind: st.lists(constraints_with_texts(kind), min_size=2, max_size=2) for kind in KINDS}
        )
    )
    """Constraints of each kind, each with a text that obeys it."""

    _declaration: ClassVar[GuidedDecoderInfo]

    @classmethod
    def settings(cls) -> Settings:
        """By default what the process is configured with."""
        return load_settings()

    @classmethod
    def info(cls) -> GuidedDecoderInfo:
        """The declaration that is judged."""
        registry = _registry(cls.settings(), cls.plugin)
        found = registry.guided_decoders.get(cls.decoder)
        if found is None:
            known = ", ".join(sorted(registry.guided_decoders)) or "none"
            faults = "".join(f"\n  {each.plugin} {each.message}" for each in registry.faults)
            raise AssertionError(
                f"no plugin registers the guided decoder {cls.decoder!r}, but: {known}{faults}"
            )
        return found

    @classmethod
    def applies(cls, each: Law) -> bool:
        return each.level == CORE or each.level in cls.declaration().kinds

    @classmethod
    def declaration(cls) -> GuidedDecoderInfo:
        """What ``info`` gives; looked up once."""
        if "_declaration" not in cls.__dict__:
            cls._declaration = cls.info()
        return cls._declaration

    def _examine(self, each: Law, drawn: Mapping[str, Any]) -> None:
        """In a thread, since what is judged may never return."""
        if inspect.iscoroutinefunction(each.function):
            super()._examine(each, drawn)
            return
        self.given  # noqa: B018 - opened here, so that its time isn't the law's
        outcome: Future[None] = Future()

        def examine() -> None:
            try:
                outcome.set_result(each.function(self, **drawn))
            except BaseException as error:
                outcome.set_exception(error)

        threading.Thread(target=examine, daemon=True).start()
        done, _ = wait([outcome], self.patience)
        if not done:
            raise AssertionError(f"the law {each.name} was not over within {self.patience:g} s")
        outcome.result()

    @classmethod
    def made(cls) -> GuidedDecoder:
        """A decoder that has been asked nothing yet."""
        made = import_object(cls.declaration().factory)()
        if not isinstance(made, GuidedDecoder):
            raise AssertionError(f"{cls.declaration().factory} gives {made!r}, which is no GuidedDecoder")
        return made

    @classmethod
    @asynccontextmanager
    async def shared(cls) -> AsyncIterator[GuidedDecoder]:
        yield await asyncio.to_thread(cls.made)

    @property
    def judged(self) -> GuidedDecoder:
        """The decoder that all laws ask."""
        judged: GuidedDecoder = self.given
        return judged

    def enforces(self, structured: StructuredOutput) -> bool:
        """Whether it takes a valid constraint; the one reason not to is that it can't enforce it."""
        error = self.refusal(structured)
        if error is None:
            return True
        if not isinstance(error, UnsupportedFeatureError):
            raise AssertionError(
                f"{shown(structured)} is valid, and was refused as invalid: {error}"
            ) from error
        named = keywords(structured)
        assert not named or any(each in str(error) for each in named), (
            f"{shown(structured)} was refused, and none of its keywords is named: {error}"
        )
        return False

    def refusal(self, structured: StructuredOutput) -> BadRequestError | None:
        """Why it doesn't take a constraint, if it doesn't."""
        try:
            self.judged.check(structured)
        except BadRequestError as error:
            return error
        return None

    def accepts(self, structured: StructuredOutput, text: str, *, complete: bool = True) -> bool:
        """What it says of a text."""
        answer = self.judged.verify(structured, text, complete=complete)
        assert isinstance(answer, bool), f"verify gave {answer!r}, which is no bool"
        return answer

    def declared(self, batch: Mapping[StructuredKind, Iterable[Any]]) -> list[Any]:
        """What a batch holds of declared kinds."""
        return [each for kind in KINDS if kind in self.declaration().kinds for each in batch[kind]]

    def refused(self, structured: StructuredOutput) -> str:
        """The reason why an invalid constraint is refused, as it has to be."""
        error = self.refusal(structured)
        assert error is not None, f"{shown(structured)} is invalid, and check let it pass"
        assert not isinstance(error, UnsupportedFeatureError), (
            f"{shown(structured)} is invalid, not merely hard to enforce, as an UnsupportedFeatureError says: {error}"
        )
        assert str(error).strip(), f"{shown(structured)} was refused without a reason"
        return str(error)

    def quotes(self, reasons: Mapping[str, str]) -> None:
        """See that errors say what was wrong: not the same of everything."""
        assert len(set(reasons.values())) > 1, (
            f"the reason is to be quoted, but each of {list(reasons)} was refused in the same words: "
            f"{next(iter(reasons.values()))}"
        )


@cache
def _registry(settings: Settings, plugin: str) -> Registry:
    return Registry.build(settings, modules=[importlib.import_module(plugin)] if plugin else [])


def as_json(schema: Any) -> StructuredOutput:
    """A schema as a constraint."""
    return StructuredOutput("json", json.dumps(schema, ensure_ascii=False))


def shown(structured: StructuredOutput) -> str:
    """A constraint as messages name it."""
    value = repr(structured.value)
    return f"guided_{structured.kind} {value if len(value) < 400 else value[:400] + '…'}"


def json_forms(value: Any) -> tuple[str, ...]:
    """The ways to write a value of which a decoder takes at least one."""
    return (
        json.dumps(value, ensure_ascii=False),
        json.dumps(value, ensure_ascii=False, separators=(",", ":")),
        json.dumps(value),
        json.dumps(value, separators=(",", ":")),
    )


def keywords(structured: StructuredOutput) -> set[str]:
    """What a refusal of a schema may name: its keywords, and those that it could be expected to have."""
    if structured.kind != "json":
        return set()
    found = {"additionalProperties", "required", "type", "properties", "items"}
    left: list[Any] = [json.loads(str(structured.value))]
    while left:
        each = left.pop()
        if isinstance(each, dict):
            found |= each.keys()
            left += each.values()
        elif isinstance(each, list):
            left += each
    return found


def near(text: str, chance: random.Random) -> list[str]:
    """Texts that are nearly the same: cut, with something before, behind or within, in another case."""
    at = chance.randrange(len(text) + 1)
    new = chance.choice("aAbB019 -.,:{}[]\"'\\\nxé" + text)
    return [
        "",
        text[:at],
        text[:at] + text[at + 1 :],
        text[:at] + new + text[at:],
        text[:at] + new + text[at + 1 :],
        text + chance.choice(["\n", " ", "x", " x", "\0", text, "}", ",", new]),
        chance.choice(["\n", " ", "x", "x ", "\ufeff", new]) + text,
        text.swapcase(),
    ]


def variants(value: Any) -> list[Any]:
    """JSON values that differ from one in a single place."""
    match value:
        case None:
            return [0, False, ""]
        case bool():
            return [not value, int(value), str(value).lower()]
        case int() | float():
            return [value + 1, value - 1, value + 100, value + 0.5, str(value), [value]]
        case str():
            return [value + "x", value + "😀😀😀", value[:-1], value.swapcase(), None]
        case list():
            inside: list[object] = [
                [*value[:n], new, *value[n + 1 :]]
                for n, each in enumerate(value)
                for new in variants(each)[:4]
            ]
            return [[*value, None], [*value, *value[-1:]], value[:-1], value[::-1], {}, *inside]
        case dict():
            without = [{name: value[name] for name in value if name != left_out} for left_out in value]
            inside = [{**value, name: new} for name, each in value.items() for new in variants(each)[:4]]
            return [{**value, "zz": None}, [], *without, *inside]
    raise TypeError(f"{value!r} is no value of JSON")
