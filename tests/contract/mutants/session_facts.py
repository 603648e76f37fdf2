"""Sessions that say what isn't true of themselves, or drop what they should refuse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from tests.contract.mutants import Mutant
from tests.contract.mutants.toys import toy_mutant

from llmengine_core.errors import BadRequestError, UnsupportedFeatureError
from llmengine_core.gate import refuse_undeclared
from llmengine_core.testing.toy import CAPABILITIES, ToySession
from llmengine_core.testing.toy_tokens import END
from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.generation import (
    GenerationChunk,
    GenerationRequest,
    Messages,
    Prompt,
    SessionFacts,
    Text,
    TokenIds,
)

Chunks = Iterator[GenerationChunk]
NOTHING = Capabilities()


class WidenedFacts(ToySession):
    @property
    def facts(self) -> SessionFacts:
        return replace(self._facts, capabilities=CAPABILITIES)


class NoContext(ToySession):
    @property
    def facts(self) -> SessionFacts:
        return replace(self._facts, max_concurrent=0)


class ContextThatShrinks(ToySession):
    @property
    def facts(self) -> SessionFacts:
        return replace(self._facts, context_length=self._facts.context_length - len(self._live))


class OverheadTooSmall(ToySession):
    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        return (0, *super().encode(prompt))


class LongestTooSmall(ToySession):
    @property
    def facts(self) -> SessionFacts:
        return replace(self._facts, longest_token=2)


class _Dropping(ToySession):
    """Honours a request without what it doesn't look at."""

    def without(self, request: GenerationRequest) -> GenerationRequest:
        raise NotImplementedError

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        async with aclosing(super().generate(self.without(request))) as chunks:
            async for chunk in chunks:
                yield chunk


class PenaltiesDropped(_Dropping):
    def without(self, request: GenerationRequest) -> GenerationRequest:
        sampling = replace(request.sampling, presence_penalty=0.0, frequency_penalty=0.0)
        return replace(request, sampling=sampling)


class LogprobsDropped(_Dropping):
    def without(self, request: GenerationRequest) -> GenerationRequest:
        return replace(request, sampling=replace(request.sampling, logprobs=False))


class SeedZeroDropped(_Dropping):
    """Zero counts as none."""

    def without(self, request: GenerationRequest) -> GenerationRequest:
        return replace(request, sampling=replace(request.sampling, seed=request.sampling.seed or None))


class ConstraintDropped(_Dropping):
    def without(self, request: GenerationRequest) -> GenerationRequest:
        return replace(request, structured=None)


class AdapterDropped(_Dropping):
    def without(self, request: GenerationRequest) -> GenerationRequest:
        return replace(request, adapter=None)


class MessagesFlattened(_Dropping):
    def without(self, request: GenerationRequest) -> GenerationRequest:
        if isinstance(request.prompt, Messages):
            text = "\n".join(message.content for message in request.prompt.messages)
            return replace(request, prompt=Text(text))
        return request


class ExclusionsIgnored(ToySession):
    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        penalized = request.sampling.presence_penalty and request.structured
        free = replace(request, sampling=replace(request.sampling, presence_penalty=0.0))
        async with aclosing(super().generate(free if penalized else request)) as chunks:
            async for chunk in chunks:
                yield chunk


class RefusesAsBadRequest(ToySession):
    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        try:
            refuse_undeclared(request, self.facts.capabilities, who="the toy")
        except UnsupportedFeatureError as error:
            raise BadRequestError(str(error)) from error
        async with aclosing(super().generate(request)) as chunks:
            async for chunk in chunks:
                yield chunk


class RefusesAfterText(ToySession):
    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        yield GenerationChunk("")
        async with aclosing(super().generate(request)) as chunks:
            async for chunk in chunks:
                yield chunk


class RefusesNeutralTopK(ToySession):
    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        if request.sampling.top_k is not None and not self.facts.capabilities.top_k:
            raise UnsupportedFeatureError("the toy does not support top_k")
        async with aclosing(super().generate(request)) as chunks:
            async for chunk in chunks:
                yield chunk


class RefusesTemperatureZero(ToySession):
    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        if (
            request.sampling.temperature == 0
            and request.sampling.top_p == 1
            and request.sampling.include_stop
        ):
            raise BadRequestError("temperature has to be above 0")
        async with aclosing(super().generate(request)) as chunks:
            async for chunk in chunks:
                yield chunk


class BrokenByRefusals(ToySession):
    """What was refused stays in its state."""

    _refused = 0

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        try:
            async with aclosing(super().generate(request)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except UnsupportedFeatureError:
            self._refused += 1
            raise

    def salt(self, request: GenerationRequest) -> int:
        return super().salt(request) + self._refused


class _Truncating(ToySession):
    """Reads the last ``room`` tokens of a prompt."""

    def room(self, request: GenerationRequest) -> int:
        return self.facts.context_length - 1

    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Chunks:
        prompt = self.encode(request.prompt)
        if len(prompt) > self.room(request):
            request = replace(request, prompt=TokenIds(prompt[-self.room(request) :]))
        return super().answer(request, closed)


class PromptsAreCut(_Truncating):
    """Where they are longer than the context."""


class PromptsMakeRoom(_Truncating):
    def room(self, request: GenerationRequest) -> int:
        return self.facts.context_length - request.sampling.max_tokens


class PromptsOfABatch(_Truncating):
    def room(self, request: GenerationRequest) -> int:
        return 256


class ContextOverstated(ToySession):
    """The engine was started with half of it."""

    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Chunks:
        taken = len(self.encode(request.prompt)) + request.sampling.max_tokens
        if taken > self.facts.context_length // 2:
            raise BadRequestError(f"{taken} tokens are too many")
        return super().answer(request, closed)


class EngineErrors(ToySession):
    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Chunks:
        try:
            yield from super().answer(request, closed)
        except BadRequestError as error:
            raise RuntimeError("CUDA error: device-side assert triggered") from error


class UnknownAdapterIsTheBase(ToySession):
    def salt(self, request: GenerationRequest) -> int:
        return self._adapters.get(request.adapter or "", 0)


class TokenIdsWrap(ToySession):
    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        if isinstance(prompt, TokenIds):
            prompt = TokenIds(tuple(each % END for each in prompt.ids))
        return super().encode(prompt)


VALUES = "test_c13_undeclared_sampling_values_are_refused"
CONSTRAINTS = "test_c13_undeclared_constraints_are_refused"
PROMPTS = "test_c13_undeclared_prompts_and_adapters_are_refused"
EXCLUDED = "test_c13_excluded_combinations_are_refused"
NARROW = "test_facts_narrow_what_is_declared"
NEUTRAL = "test_c02_neutral_values_are_never_refused"
BEYOND = "test_c04_a_prompt_beyond_the_context_is_never_cut"
EXCLUDING = replace(CAPABILITIES, structured_excludes=frozenset({"presence_penalty"}))


def bare(name: str, bug: str, session: type[ToySession], **about: Any) -> Mutant:
    """A mutant that declares nothing."""
    return toy_mutant(name, bug, session, declared=NOTHING, **about)


MUTANTS: list[Mutant] = [
    bare(
        "facts_widened",
        "facts claim more than is declared",
        WidenedFacts,
        killers=(NARROW,),
        shipped="simonw/llm-openrouter#28",
    ),
    toy_mutant("facts_without_sense", "facts say that nothing can run", NoContext, killers=(NARROW,)),
    toy_mutant(
        "facts_that_change",
        "facts depend on the load",
        ContextThatShrinks,
        killers=("test_facts_never_change",),
    ),
    toy_mutant(
        "overhead_too_small",
        "a start token is no overhead",
        OverheadTooSmall,
        killers=("test_prompt_token_overhead_bounds_every_prompt",),
    ),
    toy_mutant(
        "longest_token_too_small",
        "tokens are longer than is said",
        LongestTooSmall,
        killers=("test_longest_token_bounds_every_prompt",),
    ),
    bare(
        "penalties_dropped",
        "undeclared penalties are dropped",
        PenaltiesDropped,
        killers=(VALUES,),
        shipped="BerriAI/litellm#38269",
    ),
    bare("logprobs_dropped", "undeclared log probs are dropped", LogprobsDropped, killers=(VALUES,)),
    bare("seed_zero_dropped", "the seed 0 counts as none", SeedZeroDropped, killers=(VALUES,)),
    bare(
        "constraint_dropped",
        "constraints are ignored, free text comes",
        ConstraintDropped,
        killers=(CONSTRAINTS,),
        shipped="vllm-project/vllm#53975",
    ),
    bare("adapter_dropped", "the base model answers for an adapter", AdapterDropped, killers=(PROMPTS,)),
    bare(
        "messages_flattened",
        "conversations are joined, with no template",
        MessagesFlattened,
        killers=(PROMPTS,),
    ),
    toy_mutant(
        "exclusions_ignored",
        "a penalty is dropped beside a constraint",
        ExclusionsIgnored,
        killers=(EXCLUDED,),
        declared=EXCLUDING,
    ),
    bare(
        "refuses_as_bad_request",
        "what isn't declared is a plain BadRequestError",
        RefusesAsBadRequest,
        killers=(VALUES, CONSTRAINTS, PROMPTS),
    ),
    bare(
        "refuses_after_text",
        "a chunk comes before the refusal",
        RefusesAfterText,
        killers=(VALUES, CONSTRAINTS, PROMPTS),
    ),
    bare(
        "refuses_neutral_top_k",
        "top_k is refused where it has no effect",
        RefusesNeutralTopK,
        killers=(NEUTRAL,),
    ),
    bare("refuses_temperature_zero", "temperature 0 is refused", RefusesTemperatureZero, killers=(NEUTRAL,)),
    bare("broken_by_refusals", "answers change after a refusal", BrokenByRefusals, killers=(VALUES,)),
    toy_mutant(
        "prompts_are_cut", "a prompt beyond the context is cut in silence", PromptsAreCut, killers=(BEYOND,)
    ),
    toy_mutant(
        "prompts_make_room",
        "a prompt is cut to leave room for max_tokens",
        PromptsMakeRoom,
        killers=("test_c04_the_context_ends_an_answer_that_outgrows_it",),
    ),
    toy_mutant(
        "prompts_of_a_batch",
        "a prompt is cut to one batch",
        PromptsOfABatch,
        killers=("test_c04_a_long_prompt_that_fits_is_read_whole",),
    ),
    toy_mutant(
        "context_overstated",
        "the facts say twice the context that there is",
        ContextOverstated,
        killers=("test_c04_a_long_prompt_that_fits_is_read_whole",),
    ),
    toy_mutant("engine_errors", "the engine's own errors come through", EngineErrors, killers=(BEYOND,)),
    toy_mutant(
        "unknown_adapter_is_the_base",
        "the base model answers for an unknown adapter",
        UnknownAdapterIsTheBase,
        killers=("test_an_unknown_adapter_is_a_bad_request",),
        shipped="xorbitsai/inference#4209",
    ),
    toy_mutant(
        "token_ids_wrap",
        "unknown token ids become others",
        TokenIdsWrap,
        killers=("test_token_ids_that_there_are_not_are_a_bad_request",),
    ),
]
