"""Sessions that take adapters, conversations or token ids for something else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar
from zlib import crc32

from hypothesis import strategies as st
from tests.contract.mutants import Mutant
from tests.contract.mutants.toys import toy_mutant
from tests.contract.toy_contract import ToyContract

from llmengine_core.errors import BadRequestError
from llmengine_core.testing.toy import ToySession
from llmengine_core.testing.toy_tokens import END, PIECES
from llmengine_core.types.generation import (
    GenerationChunk,
    GenerationRequest,
    Message,
    Messages,
    Prompt,
    Text,
    TokenIds,
)

# ------------------------------------------------------------------------------------------------- adapters


class NoEffect(ToySession):
    """Loads adapters, and never adds them."""

    def salt(self, request: GenerationRequest) -> int:
        return min(super().salt(request), 0)


class LastLoaded(ToySession):
    """Has a place for one adapter."""

    def salt(self, request: GenerationRequest) -> int:
        return super().salt(request) and next(reversed(self._adapters.values()))


class FirstKept(ToySession):
    """Never loads a name again."""

    def __init__(self, *args: Any, **given: Any) -> None:
        super().__init__(*args, **given)
        self._known: dict[str, int] = {}

    async def load_adapter(self, name: str, path: str) -> None:
        await super().load_adapter(name, path)
        self._adapters[name] = self._known.setdefault(name, self._adapters[name])


class NeverUnloads(ToySession):
    async def unload_adapter(self, name: str) -> None:
        return


class BaseInstead(ToySession):
    """Answers with the base where it knows no such adapter."""

    def salt(self, request: GenerationRequest) -> int:
        return self._adapters.get(request.adapter or "", 0)


class Merges(ToySession):
    """Adds an adapter to the base's own weights, and takes it off when it is unloaded."""

    def salt(self, request: GenerationRequest) -> int:
        super().salt(request)
        return sum(self._adapters.values())


class StaysMerged(ToySession):
    """Adds what an adapter's first use needs to the base, and leaves it there."""

    def __init__(self, *args: Any, **given: Any) -> None:
        super().__init__(*args, **given)
        self._merged = 0

    def salt(self, request: GenerationRequest) -> int:
        self._merged = super().salt(request) or self._merged
        return self._merged


class LaterThanAsked(ToySession):
    """Looks an adapter up at each token: the one of the request that was begun last."""

    def __init__(self, *args: Any, **given: Any) -> None:
        super().__init__(*args, **given)
        self._active = 0

    def salt(self, request: GenerationRequest) -> int:
        self._active = super().salt(request)
        return self._active

    def logits(self, tokens: tuple[int, ...], salt: int) -> Any:
        return super().logits(tokens, self._active)


class PulledAway(ToySession):
    """Unloads an adapter under those who use it; they go on with the base."""

    def tokens(
        self, request: GenerationRequest, prompt: tuple[int, ...], generated: list[int]
    ) -> Iterator[tuple[int, float | None]]:
        self.salt(request)
        loaded = super().tokens(request, prompt, generated)
        for token, found in loaded:
            yield token, found
            if request.adapter is not None and request.adapter not in self._adapters:
                break
        yield from super().tokens(replace(request, adapter=None), (*prompt, *generated), [])


class CutOff(ToySession):
    """Unloading an adapter ends the answers that use it, with an error."""

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        async for chunk in super().generate(request):
            self.salt(request)
            yield chunk


class LoadsNothing(ToySession):
    """Takes a folder that isn't there for an adapter without weights."""

    async def load_adapter(self, name: str, path: str) -> None:
        with suppress(BadRequestError):
            await super().load_adapter(name, path)
        self._adapters.setdefault(name, crc32(path.encode()))


class LosesAllOnError(ToySession):
    """Is left with half an adapter where loading one fails."""

    async def load_adapter(self, name: str, path: str) -> None:
        self._adapters[name] = crc32(name.encode())
        await super().load_adapter(name, path)


class EnginesOwnError(ToySession):
    """Lets the file system's own error through."""

    async def load_adapter(self, name: str, path: str) -> None:
        self._adapters[name] = crc32(await asyncio.to_thread(Path(path, "adapter").read_bytes))


# -------------------------------------------------------------------------------------------------- prompts


class ReadsAnother(ToySession):
    """Reads conversations in its own way."""

    def read(self, messages: tuple[Message, ...]) -> Prompt:
        raise NotImplementedError

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        return super().encode(self.read(prompt.messages) if isinstance(prompt, Messages) else prompt)


class NoTemplate(ReadsAnother):
    def read(self, messages: tuple[Message, ...]) -> Prompt:
        return Text("\n".join(each.content for each in messages))


class OneTurn(ReadsAnother):
    """Makes one turn of a user of whatever was said."""

    def read(self, messages: tuple[Message, ...]) -> Prompt:
        return Messages((Message("user", "\n".join(each.content for each in messages)),))


class LastTurn(ReadsAnother):
    def read(self, messages: tuple[Message, ...]) -> Prompt:
        return Messages(messages[-1:])


class LastTwoTurns(ReadsAnother):
    def read(self, messages: tuple[Message, ...]) -> Prompt:
        return Messages(messages[-2:])


class AllUsers(ReadsAnother):
    def read(self, messages: tuple[Message, ...]) -> Prompt:
        return Messages(tuple(replace(each, role="user") for each in messages))


class CountsVerbatim(ToySession):
    """Counts a conversation without its template."""

    async def count_tokens(self, prompt: Prompt) -> int:
        if isinstance(prompt, Messages):
            return 1 + sum(2 + len(self.encode(Text(each.content))) for each in prompt.messages)
        return await super().count_tokens(prompt)


class StartToken(ToySession):
    """Puts a start token before token ids."""

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        return (0, *super().encode(prompt)) if isinstance(prompt, TokenIds) else super().encode(prompt)


class ReadsIdsAsText(ToySession):
    """Tokenizes the text of token ids once more."""

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        if isinstance(prompt, TokenIds) and all(0 <= each < END for each in prompt.ids):
            text = b"".join(PIECES[each] for each in prompt.ids).decode(errors="replace")
            return super().encode(Text(text))
        return super().encode(prompt)


class ForgetsTheLastId(ToySession):
    """Goes on from the token before the last, of a longer prompt."""

    def tokens(
        self, request: GenerationRequest, prompt: tuple[int, ...], generated: list[int]
    ) -> Iterator[tuple[int, float | None]]:
        cut = isinstance(request.prompt, TokenIds) and len(prompt) > 2
        return super().tokens(request, prompt[:-1] if cut else prompt, generated)


CHANGES = "test_an_adapter_changes_what_is_said"
AT_ONCE = "test_c14_adapters_answer_at_once_as_they_do_alone"
BASE = "test_c14_an_adapter_leaves_its_base_as_it_was"
FORGOTTEN = "test_an_adapter_that_was_unloaded_is_forgotten"
NAME = "test_a_name_is_of_the_adapter_loaded_last"
NOT_THERE = "test_an_adapter_that_is_not_there_is_refused"
BEFORE = "test_requests_end_before_their_adapter_is_unloaded"
COUNTED = "test_messages_are_counted_as_they_are_read"
TEMPLATE = "test_messages_get_the_models_template"
TURNS = "test_messages_keep_their_turns_apart"
ROLES = "test_messages_tell_roles_apart"
AS_THEY_ARE = "test_token_ids_are_taken_as_they_are"
GO_ON = "test_token_ids_go_on_where_an_answer_was"


class NoneNamed(ToyContract):
    """Declares adapters, and gives none to try."""

    adapters: ClassVar[dict[str, str]] = {}
    subject = "none_named"


class IdsOfWords(ToyContract):
    """Its ids are those of letters that make up tokens together."""

    subject = "ids_read_as_text"
    session_type = ReadsIdsAsText
    token_ids = st.sampled_from(["the", "and", "of the"]).map(lambda text: tuple(text.encode()))


def _mutant(name: str, bug: str, session: type[ToySession], *killers: str, shipped: str = "") -> Mutant:
    return toy_mutant(name, bug, session, killers=killers, shipped=shipped)


MUTANTS: list[Mutant] = [
    Mutant(
        "adapters_untried",
        "declares adapters that nobody tried",
        NoneNamed,
        ("test_declared_adapters_can_be_tried",),
    ),
    _mutant(
        "adapter_without_effect",
        "loads adapters that have no effect",
        NoEffect,
        CHANGES,
        shipped="xorbitsai/inference#4209",
    ),
    _mutant("last_adapter", "uses the last loaded adapter for all", LastLoaded, CHANGES),
    _mutant("adapter_by_name", "keeps the first adapter of a name", FirstKept, NAME),
    _mutant("adapter_stays", "unloads nothing", NeverUnloads, FORGOTTEN, BEFORE),
    _mutant(
        "base_for_unknown_adapter",
        "answers with the base for an unknown adapter",
        BaseInstead,
        FORGOTTEN,
        NOT_THERE,
    ),
    _mutant("adapter_in_the_base", "merges adapters into the base", Merges, BASE),
    _mutant("adapter_stays_merged", "leaves an adapter in the base", StaysMerged, BASE),
    _mutant(
        "adapter_of_the_last_request", "all that runs has the last request's adapter", LaterThanAsked, AT_ONCE
    ),
    _mutant("adapter_pulled_away", "goes on with the base once an adapter is unloaded", PulledAway, BEFORE),
    _mutant("adapter_cuts_off", "fails answers whose adapter is unloaded", CutOff, BEFORE),
    _mutant("adapter_of_nothing", "loads an adapter that isn't there", LoadsNothing, NOT_THERE),
    _mutant("half_an_adapter", "keeps an adapter that could not be loaded", LosesAllOnError, NOT_THERE),
    _mutant("adapter_error_let_through", "lets a file system's error through", EnginesOwnError, NOT_THERE),
    _mutant("no_template", "joins messages without a template", NoTemplate, TEMPLATE, ROLES),
    _mutant("one_turn", "makes one turn of a conversation", OneTurn, TURNS),
    _mutant("last_two_turns", "reads the last two messages alone", LastTwoTurns, TURNS),
    _mutant("last_turn", "reads the last message alone", LastTurn, TURNS),
    _mutant("all_users", "ignores roles", AllUsers, ROLES),
    _mutant("template_uncounted", "counts messages without the template", CountsVerbatim, COUNTED),
    _mutant("start_token_before_ids", "puts a start token before token ids", StartToken, AS_THEY_ARE),
    Mutant("ids_read_as_text", "tokenizes the text of token ids again", IdsOfWords, (AS_THEY_ARE,)),
    _mutant("last_id_forgotten", "goes on from the last id but one", ForgetsTheLastId, GO_ON),
]
