"""Laws of sessions: what is asked for is honoured on every kind of prompt, and on adapters."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from llmengine_core.errors import BadRequestError
from llmengine_core.testing.answers import Answer, ask, request
from llmengine_core.testing.contracts.sessions.adapters import AdapterLaws
from llmengine_core.testing.contracts.sessions.prompts import PromptLaws
from llmengine_core.testing.contracts.sessions.stops import StopLaws
from llmengine_core.testing.contracts.sessions.structured import APART, StructuredLaws
from llmengine_core.testing.laws import NotApplicable, law
from llmengine_core.types.generation import GenerationRequest, Message, Messages, Prompt, TokenIds
from llmengine_core.types.sampling import SamplingParams, StructuredOutput

__all__ = ["MixedLaws"]

TOKENS = 8
constraints = st.sampled_from([each for both in APART.values() for each in both])


class MixedLaws(StopLaws, StructuredLaws, PromptLaws, AdapterLaws):
    """Adapters, conversations and token ids often take a way of their own through an engine's API."""

    @law("C06", "C07", "C13", level="token_ids", weight=0.2)
    async def test_c13_values_hold_for_token_ids(self, token_ids: tuple[int, ...]) -> None:
        """Stop sequences, limits and log probs are honoured where the prompt is token ids."""
        await self._honours(TokenIds(token_ids))

    @law("C06", "C07", "C13", level="messages", weight=0.2)
    async def test_c13_values_hold_for_messages(self, said: str) -> None:
        """Stop sequences, limits and log probs are honoured where the prompt is a conversation."""
        await self._honours(Messages((Message("user", said),)))

    @law("C06", "C07", "C13", level="adapters", weight=0.2)
    async def test_c13_values_hold_on_adapters(self, prompt: str) -> None:
        """Stop sequences, limits and log probs are honoured on an adapter."""
        async with self._loaded() as names:
            await self._honours(prompt, names[0])

    @law("C03", "C13", level="token_ids", weight=0.2, constraint=constraints)
    async def test_c03_constraints_hold_for_token_ids(
        self, token_ids: tuple[int, ...], constraint: StructuredOutput
    ) -> None:
        """A constraint is obeyed where the prompt is token ids."""
        await self._constrains(TokenIds(token_ids), constraint)

    @law("C03", "C13", level="messages", weight=0.2, constraint=constraints)
    async def test_c03_constraints_hold_for_messages(self, said: str, constraint: StructuredOutput) -> None:
        """A constraint is obeyed where the prompt is a conversation."""
        await self._constrains(Messages((Message("user", said),)), constraint)

    @law("C03", "C13", level="adapters", weight=0.2, constraint=constraints)
    async def test_c03_constraints_hold_on_adapters(self, prompt: str, constraint: StructuredOutput) -> None:
        """A constraint is obeyed on an adapter."""
        async with self._loaded() as names:
            await self._constrains(prompt, constraint, names[0])

    async def _honours(self, prompt: str | Prompt, adapter: str | None = None) -> None:
        """Raise ``AssertionError`` unless an answer ends at its stop sequence, and has log probs when asked."""
        asked = await self._roomy(request(prompt, adapter=adapter, max_tokens=TOKENS))
        asked = replace(asked, sampling=replace(asked.sampling, logprobs=self.capabilities.logprobs))
        free = await self._taken(asked)
        if free is None:
            return
        middle = len(free.text) // 2
        await self._ends(asked, free, (free.text[middle : middle + 2], free.text[-1:]))
        assert free.usage.completion_tokens <= asked.sampling.max_tokens, (
            f"{free.usage.completion_tokens} tokens are more than the {asked.sampling.max_tokens} that were asked for"
        )
        told = [token for token in free.tokens if token.logprob is not None]
        assert told or not free.text or not asked.sampling.logprobs, (
            f"log probs were asked for, and {free.tokens} have none; the request was {asked}"
        )

    async def _constrains(
        self, prompt: str | Prompt, constraint: StructuredOutput, adapter: str | None = None
    ) -> None:
        """Raise ``AssertionError`` unless an answer obeys."""
        if constraint.kind not in self.capabilities.structured:
            return
        asked = await self._request(prompt, constraint, SamplingParams(max_tokens=TOKENS, temperature=0.0))
        if asked is None:
            return
        asked = await self._roomy(replace(asked, adapter=adapter))
        answer = await self._taken(asked)
        if answer is not None:
            self._obeys(constraint, asked, answer)

    async def _roomy(self, asked: GenerationRequest) -> GenerationRequest:
        """The request, of as many tokens as its prompt leaves room for."""
        asked = await self.fitted(asked)
        room = self.session.facts.context_length - await self.session.count_tokens(asked.prompt)
        if room < 1:
            raise NotApplicable("the context has no room for such a prompt")
        most = min(asked.sampling.max_tokens, room)
        return replace(asked, sampling=replace(asked.sampling, max_tokens=most))

    async def _taken(self, asked: GenerationRequest) -> Answer | None:
        """The answer; None where the model's template refuses the conversation."""
        try:
            return await ask(self.session, asked)
        except BadRequestError:
            if isinstance(asked.prompt, Messages):
                return None
            raise
