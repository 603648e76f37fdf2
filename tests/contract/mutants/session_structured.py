"""Sessions that don't obey constraints, or obey those of others."""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from tests.contract.mutants import Mutant
from tests.contract.mutants.toys import toy_mutant
from tests.contract.toy_contract import ToyContract

from llmengine_core.testing.answers import ask
from llmengine_core.testing.contracts.sessions.structured import OBJECTS
from llmengine_core.testing.toy import ToySession
from llmengine_core.testing.toy_tokens import END, PIECES
from llmengine_core.types.generation import GenerationChunk, GenerationRequest, Usage
from llmengine_core.types.sampling import StructuredOutput


class ObeysAnother(ToySession):
    """Answers as if another constraint had been given."""

    def instead(self, request: GenerationRequest) -> StructuredOutput | None:
        raise NotImplementedError

    def choose(
        self, request: GenerationRequest, logits: Mapping[int, float], so_far: bytes, chance: random.Random
    ) -> int:
        changed = replace(request, structured=self.instead(request))
        return super().choose(changed, logits, so_far, chance)


class ObeysNone(ObeysAnother):
    def instead(self, request: GenerationRequest) -> StructuredOutput | None:
        return None


class OnlyGreedyObeys(ObeysAnother):
    def instead(self, request: GenerationRequest) -> StructuredOutput | None:
        return request.structured if request.sampling.temperature == 0 else None


class NotWithLogprobs(ObeysAnother):
    """Takes another path where log probs are asked for."""

    def instead(self, request: GenerationRequest) -> StructuredOutput | None:
        return None if request.sampling.logprobs else request.structured


class NotWithPenalties(ObeysAnother):
    def instead(self, request: GenerationRequest) -> StructuredOutput | None:
        sampling = request.sampling
        return None if sampling.presence_penalty or sampling.frequency_penalty else request.structured


class OnlyJson(ObeysAnother):
    def instead(self, request: GenerationRequest) -> StructuredOutput | None:
        structured = request.structured
        return structured if structured is not None and structured.kind == "json" else None


class NoRequired(ObeysAnother):
    """Takes every property for optional."""

    def instead(self, request: GenerationRequest) -> StructuredOutput | None:
        structured = request.structured
        if structured is None or structured.kind != "json":
            return structured
        return replace(structured, value=json.dumps(_optional(json.loads(str(structured.value)))))


def _optional(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {name: _optional(each) for name, each in schema.items() if name != "required"}
    return [_optional(each) for each in schema] if isinstance(schema, list) else schema


class AnyJson(ObeysAnother):
    """Has a mode for JSON, and no schemas."""

    def instead(self, request: GenerationRequest) -> StructuredOutput | None:
        structured = request.structured
        if structured is None or structured.kind != "json":
            return structured
        return StructuredOutput("json", "true")


class LastConstraint(ObeysAnother):
    """All that runs obeys what came last."""

    def __init__(self, *args: Any, **given: Any) -> None:
        super().__init__(*args, **given)
        self.last: StructuredOutput | None = None

    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Iterator[GenerationChunk]:
        self.last = request.structured
        return super().answer(request, closed)

    def instead(self, request: GenerationRequest) -> StructuredOutput | None:
        return self.last


class OutlivesItsRequest(ObeysAnother):
    """A constraint stays until there is another."""

    def __init__(self, *args: Any, **given: Any) -> None:
        super().__init__(*args, **given)
        self.last: StructuredOutput | None = None

    def instead(self, request: GenerationRequest) -> StructuredOutput | None:
        self.last = request.structured or self.last
        return self.last


class SharedProgress(ToySession):
    """Constraints go on from the text of whichever request was last."""

    def __init__(self, *args: Any, **given: Any) -> None:
        super().__init__(*args, **given)
        self.progress = b""

    def allowed(self, request: GenerationRequest, so_far: bytes, token: int) -> bool:
        if request.structured is None or len(self._live) < 2:
            return super().allowed(request, so_far, token)
        found = super().allowed(request, self.progress if so_far else b"", token)
        if found:
            self.progress = (self.progress if so_far else b"") + (b"" if token == END else PIECES[token])
        return found


class BeginsLikeIt(ToySession):
    """Asks of a text only that it begins as one that obeys."""

    def allowed(self, request: GenerationRequest, so_far: bytes, token: int) -> bool:
        if request.structured is not None and self._decoder is not None:
            text = so_far.decode(errors="ignore")
            if text and self._decoder.verify(request.structured, text, complete=True):
                return super().allowed(replace(request, structured=None), so_far, token)
        return super().allowed(request, so_far, token)


class EndsAnywhere(ToySession):
    """Masks tokens, but never the end."""

    def allowed(self, request: GenerationRequest, so_far: bytes, token: int) -> bool:
        if token == END:
            return super().allowed(replace(request, structured=None), so_far, token)
        return super().allowed(request, so_far, token)


class NeverEnds(ToySession):
    """Masks the end as well, and fills up with blanks that it doesn't show."""

    def allowed(self, request: GenerationRequest, so_far: bytes, token: int) -> bool:
        return (request.structured is None or token != END) and super().allowed(request, so_far, token)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        async with aclosing(super().generate(request)) as chunks:
            async for chunk in chunks:
                if request.structured is None or chunk.usage is None or chunk.finish_reason != "stop":
                    yield chunk
                    continue
                usage = Usage(chunk.usage.prompt_tokens, request.sampling.max_tokens)
                yield replace(chunk, finish_reason="length", usage=usage)


class CutsAfterwards(ToySession):
    """Generates freely, and shows what of it could be accepted."""

    reason: Any = "length"

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        if request.structured is None or self._decoder is None:
            async with aclosing(super().generate(request)) as chunks:
                async for chunk in chunks:
                    yield chunk
            return
        free = ToySession(self.facts.capabilities)
        answer = await ask(free, replace(request, structured=None))
        text = answer.text
        while not self._decoder.verify(request.structured, text, complete=False):
            text = text[:-1]
        yield GenerationChunk(text, (), self.reason, replace(answer.usage))


class CutsAndStops(CutsAfterwards):
    reason = "stop"


class LogprobsOfTheMask(ToySession):
    """Gives log probs among what the constraint allows."""

    def tokens(
        self, request: GenerationRequest, prompt: tuple[int, ...], generated: list[int]
    ) -> Iterator[tuple[int, float | None]]:
        so_far = b""
        for token, found in super().tokens(request, prompt, generated):
            if found is not None and request.structured is not None:
                logits = self.logits((*prompt, *generated), 0)
                left = [each for each in logits if self.allowed(request, so_far, each)]
                found = min(0.0, logits[token] - math.log(math.fsum(math.exp(logits[each]) for each in left)))
            so_far += b"" if token == END else PIECES[token]
            yield token, found


JSON = "test_c03_json_obeys_its_schema"
REGEX = "test_c03_a_regex_matches_the_whole_text"
CHOICE = "test_c03_a_choice_is_one_of_them"
GRAMMAR = "test_c03_a_grammar_parses_the_text"
ROOM = (
    "test_c03_a_choice_with_room_is_made",
    "test_c03_a_regex_with_room_is_matched",
    "test_c03_a_grammar_with_room_is_parsed",
)
OWN = (
    "test_c14_schemas_stay_with_their_requests",
    "test_c14_regexes_stay_with_their_requests",
    "test_c14_choices_stay_with_their_requests",
    "test_c14_grammars_stay_with_their_requests",
)
RAW = "test_c07_log_probs_are_not_of_the_constraint"


class NoRequiredContract(ToyContract):
    """Is asked for objects that must have a property."""

    subject = "required_ignored"
    session_type = NoRequired
    schema = st.sampled_from(OBJECTS)


def _mutant(name: str, bug: str, session: type[ToySession], *killers: str, shipped: str = "") -> Mutant:
    return toy_mutant(name, bug, session, killers=killers, shipped=shipped)


MUTANTS: list[Mutant] = [
    _mutant(
        "constraints_ignored",
        "answers with free text, as if nothing were amiss",
        ObeysNone,
        JSON,
        REGEX,
        CHOICE,
        GRAMMAR,
        *ROOM,
        *OWN,
        shipped="vllm-project/vllm#53975",
    ),
    _mutant(
        "constraints_but_json_ignored",
        "honours schemas alone",
        OnlyJson,
        REGEX,
        CHOICE,
        GRAMMAR,
        shipped="xorbitsai/inference#2636",
    ),
    _mutant(
        "constraints_only_greedy",
        "drops constraints above temperature 0",
        OnlyGreedyObeys,
        JSON,
        REGEX,
        CHOICE,
        GRAMMAR,
    ),
    _mutant(
        "constraints_not_with_log_probs",
        "drops constraints where log probs are asked for",
        NotWithLogprobs,
        JSON,
        REGEX,
        CHOICE,
        GRAMMAR,
    ),
    _mutant(
        "constraints_not_with_penalties",
        "drops constraints where penalties are",
        NotWithPenalties,
        JSON,
        REGEX,
        CHOICE,
        GRAMMAR,
    ),
    Mutant("required_ignored", "leaves out required properties", NoRequiredContract, (JSON,)),
    _mutant("any_json", "gives JSON, but of any schema", AnyJson, JSON, shipped="xorbitsai/inference#3904"),
    _mutant("last_constraint", "all that runs obeys the last constraint", LastConstraint, *OWN),
    _mutant("constraint_outlives", "a constraint stays for the next request", OutlivesItsRequest, *OWN),
    _mutant("shared_matcher", "requests share the progress of their constraints", SharedProgress, *OWN),
    _mutant(
        "text_after_it",
        "goes on freely once the constraint is met",
        BeginsLikeIt,
        JSON,
        REGEX,
        CHOICE,
        GRAMMAR,
        *ROOM,
    ),
    _mutant(
        "ends_anywhere", "may end before the constraint is met", EndsAnywhere, JSON, REGEX, CHOICE, GRAMMAR
    ),
    _mutant("never_ends", "never ends by itself under a constraint", NeverEnds, *ROOM),
    _mutant(
        "cut_afterwards",
        "cuts free text to what is accepted so far",
        CutsAfterwards,
        *ROOM,
        shipped="mudler/LocalAI#8806",
    ),
    _mutant(
        "cut_and_called_whole",
        "cuts free text and says that it ended",
        CutsAndStops,
        JSON,
        REGEX,
        CHOICE,
        GRAMMAR,
        *ROOM,
    ),
    _mutant("log_probs_of_the_mask", "log probs among what is allowed", LogprobsOfTheMask, RAW),
]
