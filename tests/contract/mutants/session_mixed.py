"""Sessions that honour less where a prompt is no text, or an adapter is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

from tests.contract.mutants import Mutant
from tests.contract.mutants.toys import toy_mutant

from llmengine_core.testing.toy import ToySession
from llmengine_core.types.generation import GenerationChunk, GenerationRequest, Messages, TokenIds

Chunks = Iterator[GenerationChunk]


class _Elsewhere(ToySession):
    """Drops what was asked for, of some requests."""

    def concerned(self, request: GenerationRequest) -> bool:
        """Whether a request takes a way of its own."""
        raise NotImplementedError

    def less(self, request: GenerationRequest) -> GenerationRequest:
        """What is left of it there."""
        return replace(request, sampling=replace(request.sampling, stop=()))

    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Chunks:
        return super().answer(self.less(request) if self.concerned(request) else request, closed)


class OfIds(_Elsewhere):
    def concerned(self, request: GenerationRequest) -> bool:
        return isinstance(request.prompt, TokenIds)


class OfMessages(_Elsewhere):
    def concerned(self, request: GenerationRequest) -> bool:
        return isinstance(request.prompt, Messages)


class OfAdapters(_Elsewhere):
    def concerned(self, request: GenerationRequest) -> bool:
        return request.adapter is not None


class _Free(_Elsewhere):
    def less(self, request: GenerationRequest) -> GenerationRequest:
        return replace(request, structured=None)


class FreeIds(_Free, OfIds):
    """Nothing constrains what goes on from token ids."""


class FreeMessages(_Free, OfMessages):
    """Nothing constrains what answers a conversation."""


class FreeAdapters(_Free, OfAdapters):
    """Nothing constrains what an adapter says."""


class IdsWithoutLogprobs(OfIds):
    def less(self, request: GenerationRequest) -> GenerationRequest:
        return replace(request, sampling=replace(request.sampling, logprobs=False))


IDS, FREE_IDS = "test_c13_values_hold_for_token_ids", "test_c03_constraints_hold_for_token_ids"
MESSAGES, FREE_MESSAGES = "test_c13_values_hold_for_messages", "test_c03_constraints_hold_for_messages"
ADAPTERS, FREE_ADAPTERS = "test_c13_values_hold_on_adapters", "test_c03_constraints_hold_on_adapters"
MUTANTS: list[Mutant] = [
    toy_mutant("stops_not_for_ids", "stops are dropped where the prompt is token ids", OfIds, killers=(IDS,)),
    toy_mutant(
        "log_probs_not_for_ids",
        "token ids are answered without log probs",
        IdsWithoutLogprobs,
        killers=(IDS,),
    ),
    toy_mutant("stops_not_for_messages", "stops are dropped in chats", OfMessages, killers=(MESSAGES,)),
    toy_mutant("stops_not_on_adapters", "stops are dropped on adapters", OfAdapters, killers=(ADAPTERS,)),
    toy_mutant("constraints_not_for_ids", "token ids go on unconstrained", FreeIds, killers=(FREE_IDS,)),
    toy_mutant(
        "constraints_not_for_messages",
        "constraints are dropped in chats",
        FreeMessages,
        killers=(FREE_MESSAGES,),
    ),
    toy_mutant(
        "constraints_not_on_adapters",
        "constraints are dropped on adapters",
        FreeAdapters,
        killers=(FREE_ADAPTERS,),
    ),
]
