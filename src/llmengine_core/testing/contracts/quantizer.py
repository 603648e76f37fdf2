"""What every quantizer promises."""

from __future__ import annotations

import asyncio
import copy
import importlib
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, ClassVar

from llmengine_core import processes
from llmengine_core.errors import LLMEngineError
from llmengine_core.interfaces.quantizer import Quantizer
from llmengine_core.plugins import import_object
from llmengine_core.registry import Registry
from llmengine_core.settings import Settings, load_settings
from llmengine_core.testing.contracts import quantizer_child
from llmengine_core.testing.contracts.plugins.contract import ENGINES
from llmengine_core.testing.laws import Contract, law
from llmengine_core.types.declarations import QuantizerInfo

__all__ = ["QuantizerContract"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
FULL = 32
"""Bits of a weight that isn't quantized."""
QUICK = 1.0
"""CPU seconds that all answers together may take, also on a slow machine."""


class QuantizerContract(Contract):
    """What every quantizer promises.

    ::

        class TestSample(QuantizerContract):
            quantizer = "sample"
    """

    kind = "quantizer"
    quantizer: ClassVar[str] = ""
    """Its name, as in ``QuantizerInfo``."""
    plugin: ClassVar[str] = ""
    """The plugin's module, where it isn't installed under an entry point."""

    @classmethod
    def settings(cls) -> Settings:
        """By default what the process is configured with."""
        return load_settings()

    @classmethod
    def info(cls) -> QuantizerInfo:
        """The declaration that is judged."""
        registry = _registry(cls.settings(), cls.plugin)
        found = registry.quantizers.get(cls.quantizer)
        if found is None:
            known = ", ".join(sorted(registry.quantizers)) or "none"
            faults = "".join(f"\n  {each.plugin} {each.message}" for each in registry.faults)
            raise AssertionError(f"no plugin registers the quantizer {cls.quantizer!r}, but: {known}{faults}")
        return found

    @classmethod
    def made(cls) -> Quantizer:
        """One that has been asked nothing yet."""
        made = import_object(cls.info().factory)()
        if not isinstance(made, Quantizer):
            raise AssertionError(f"{cls.info().factory} gives {made!r}, which is no Quantizer")
        return made

    @classmethod
    def asked(cls) -> list[tuple[str, str]]:
        """Each method and each stored form, with each backend."""
        info = cls.info()
        methods = sorted({each.name for each in info.methods} | info.stored)
        return [(method, backend) for method in methods for backend in sorted(info.backends)]

    @law()
    def test_methods_are_named_and_measured(self) -> None:
        """Each method has a name that can be written, of its own, and takes less than a full weight's bits."""
        methods = self.info().methods
        for method in methods:
            assert NAME.fullmatch(method.name), f"the method {method.name!r} has a name that nobody can write"
            assert 0 < method.bits <= FULL, f"the method {method.name!r} takes {method.bits} bits of a weight"
        names = [method.name for method in methods]
        assert len(set(names)) == len(names), f"two methods have one name, among {', '.join(names)}"

    @law()
    def test_load_options_are_json(self) -> None:
        """What each method, and each stored form, is told a backend's loader is made of JSON values."""
        quantizer = self.made()
        for method, backend in self.asked():
            said = quantizer.load_options(method, backend)
            assert isinstance(said, Mapping), f"{method} is told {backend} as {said!r}, which is no mapping"
            for path, value in _no_json(dict(said), "the options"):
                raise AssertionError(f"{method} is told {backend} by what is no JSON: {path} is {value!r}")

    @law()
    def test_load_options_are_always_the_same(self) -> None:
        """The same question has the same answer, of any instance, whatever was done to an earlier answer."""
        quantizer = self.made()
        first = {asked: copy.deepcopy(_plain(quantizer.load_options(*asked))) for asked in self.asked()}
        for asked, expected in first.items():
            _ruin(quantizer.load_options(*asked))
            for which, each in (("the same", quantizer), ("another", self.made())):
                found = _plain(each.load_options(*asked))
                assert found == expected, (
                    f"{' for '.join(asked)} was {expected}, and after a caller had changed that answer {found}, of "
                    f"{which} instance"
                )

    @law()
    async def test_load_options_need_no_engine(self) -> None:
        """In a fresh interpreter the answers come at once, are the same, and nothing heavy was imported for them."""
        asked = await asyncio.to_thread(self.asked)
        quantizer = await asyncio.to_thread(self.made)
        expected = [_plain(quantizer.load_options(*each)) for each in asked]
        seen = await self._elsewhere((await asyncio.to_thread(self.info)).factory, asked)
        heavy = sorted(ENGINES & set(seen["modules"]))
        assert not heavy, f"{', '.join(heavy)} was imported to say what a loader is told"
        assert seen["seconds"] < QUICK, f"it took {seen['seconds']:.1f} s to say what a loader is told"
        for each, here, there in zip(asked, expected, seen["answers"], strict=True):
            assert here == there, f"{' for '.join(each)} is {here} here, and {there} in another process"

    @law()
    def test_an_unknown_method_is_no_surprise(self) -> None:
        """Asked about a method that it hasn't, it answers or raises an error of ours."""
        quantizer = self.made()
        for backend in sorted(self.info().backends):
            try:
                quantizer.load_options("no-such-method", backend)
            except LLMEngineError:
                continue
            except Exception as error:
                raise AssertionError(
                    f"asked about a method that it hasn't, it raised {type(error).__name__}, which is none of our "
                    f"errors: {error}"
                ) from error

    async def _elsewhere(self, factory: str, asked: list[tuple[str, str]]) -> dict[str, Any]:
        """What a process of its own saw."""
        seen: list[dict[str, Any]] = []
        child = await processes.spawn(
            [sys.executable, "-m", quantizer_child.__name__],
            env={
                "PYTHONPATH": os.pathsep.join(each for each in sys.path if each),
                "PYTHONHASHSEED": "random",
            },
            document={"factory": factory, "asked": asked},
            on_message=seen.append,
        )
        try:
            async with asyncio.timeout(self.patience * 0.9):
                ended = await child.wait()
        finally:
            await child.aclose()
        assert seen, f"a fresh interpreter could not ask it: {ended}"
        return seen[0]


@cache
def _registry(settings: Settings, plugin: str) -> Registry:
    return Registry.build(settings, modules=[importlib.import_module(plugin)] if plugin else [])


def _plain(value: Any) -> Any:
    """A value as JSON has it: no tuples, no read-only mappings."""
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def _no_json(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """What is no value of JSON, and where it stands."""
    if isinstance(value, dict):
        for name, each in value.items():
            if not isinstance(name, str):
                yield f"a name in {path}", name
            yield from _no_json(each, f"{path}[{name!r}]")
    elif isinstance(value, list | tuple):
        for number, each in enumerate(value):
            yield from _no_json(each, f"{path}[{number}]")
    elif not isinstance(value, str | int | float | None) or (
        isinstance(value, float) and not math.isfinite(value)
    ):
        yield path, value


def _ruin(value: Any) -> None:
    """Change all that can be changed."""
    if isinstance(value, dict):
        for each in value.values():
            _ruin(each)
        value.clear()
        value["ruined"] = True
    elif isinstance(value, list):
        for each in value:
            _ruin(each)
        value.append("ruined")
