"""Laws of sessions: prompts that are conversations or token ids."""

from __future__ import annotations

from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from llmengine_core.errors import BadRequestError
from llmengine_core.testing.answers import Answer, ask, request
from llmengine_core.testing.contracts.sessions.comparing import ComparingGround
from llmengine_core.testing.contracts.sessions.ground import NEAR_TIE
from llmengine_core.testing.laws import law
from llmengine_core.types.generation import Message, Messages, Prompt, Text, TokenIds

__all__ = ["PromptLaws"]

JOINERS = ("", " ", "\n", "\n\n")
"""How conversations are made one text by those who apply no template."""


class PromptLaws(ComparingGround):
    """A conversation gets the model's template; token ids are taken as they are."""

    said: ClassVar[SearchStrategy[str]] = st.sampled_from(
        ["Hi", "Who are you?", "I am a cat", "Yes", "2 + 2", "é"]
    )
    """What is said in a turn of a conversation."""
    token_ids: ClassVar[SearchStrategy[tuple[int, ...]]] = st.lists(
        st.integers(0, 31), min_size=1, max_size=5
    ).map(tuple)
    """Ids of tokens that the model has."""

    @law(
        level="messages",
        said=st.lists(st.sampled_from(["Hi", "I am a cat", "é\n"]), min_size=1, max_size=3).filter(
            lambda said: len(said) % 2
        ),
    )
    async def test_messages_are_counted_as_they_are_read(self, said: list[str]) -> None:
        """A conversation is answered, the same way each time, and count_tokens says what prompt_tokens does."""
        talk = _talk(*said)
        answers = [await self._answer(talk) for _ in range(2)]
        one, other = answers
        if one is None or other is None:
            return
        counted = await self.session.count_tokens(talk)
        assert one.usage.prompt_tokens == counted, (
            f"{talk} was read as {one.usage.prompt_tokens} tokens, and count_tokens says {counted}"
        )
        self.agree(one, other, f"two greedy answers to {talk} differ")

    @law(level="messages")
    async def test_messages_get_the_models_template(self, said: str) -> None:
        """A message takes more tokens than its text alone: the model's chat template is around it."""
        talk = _talk(said)
        with_template = await self.session.count_tokens(talk)
        verbatim = await self.session.count_tokens(Text(said))
        assert with_template > verbatim, (
            f"{talk} takes {with_template} tokens, its text alone {verbatim}: there is no template around it"
        )

    @law(level="messages", weight=0.4)
    async def test_messages_keep_their_turns_apart(self, said: str) -> None:
        """Three turns are read otherwise than one that says the same, or than the last ones alone."""
        turns = (said, "Go on", "Why?")
        talk = _talk(*turns)
        for text in (*(joiner.join(turns) for joiner in JOINERS), turns[-1]):
            assert await self._differ(talk, _talk(text)), (
                f"{talk} is read as if a user had said {text!r} in one turn"
            )
        assert await self._differ(talk, _talk("Another beginning", *turns[1:])), (
            f"{talk} is read the same whatever its first turn says"
        )

    @law(level="messages", weight=0.4)
    async def test_messages_tell_roles_apart(self, said: str) -> None:
        """It matters who said something: the system, the user or the assistant."""
        for role in ("system", "assistant"):
            talk = Messages((Message(role, said), Message("user", "Why?")))
            other = Messages((Message("user", said), Message("user", "Why?")))
            assert await self._differ(talk, other), f"{talk} is read as if the user had said all of it"

    @law(level="token_ids")
    async def test_token_ids_are_taken_as_they_are(self, token_ids: tuple[int, ...]) -> None:
        """A prompt of n token ids takes n tokens, and is answered the same way each time."""
        prompt = TokenIds(token_ids)
        one, other = await self._answer(prompt), await self._answer(prompt)
        if one is None or other is None:
            return
        counts = (one.usage.prompt_tokens, await self.session.count_tokens(prompt))
        assert set(counts) == {len(token_ids)}, (
            f"{prompt} has {len(token_ids)} ids; prompt_tokens and count_tokens are {counts}"
        )
        self.agree(one, other, f"two greedy answers to {prompt} differ")

    @law(level="token_ids", weight=0.5)
    async def test_token_ids_go_on_where_an_answer_was(self, token_ids: tuple[int, ...]) -> None:
        """A prompt and the first ids of its answer are gone on with by the rest of the answer."""
        answer = await self._answer(TokenIds(token_ids))
        if answer is None or len(answer.tokens) != answer.usage.completion_tokens or len(answer.tokens) < 2:
            return  # which ids they were isn't known, where tokens are merged or not given
        # A token that adds no text may be part of a character, which is better not cut in two.
        whole = [place for place, token in enumerate(answer.tokens[:-1], 1) if token.text]
        if not whole:
            return
        middle = whole[len(whole) // 2]
        longer = TokenIds((*token_ids, *(token.id for token in answer.tokens[:middle])))
        rest = answer.tokens[middle:]
        further = await self._answer(longer, len(rest))
        read = further.usage.prompt_tokens if further else len(longer.ids)
        assert read == len(longer.ids), f"{longer} has {len(longer.ids)} ids, and was read as {read} tokens"
        for one, other in zip(rest, further.tokens if further else [], strict=False):
            if one.id == other.id:
                continue
            known = one.logprob is not None and other.logprob is not None
            tied = known and abs((one.logprob or 0.0) - (other.logprob or 0.0)) <= NEAR_TIE
            if tied and not self.capabilities.batch_invariant:
                return
            raise AssertionError(
                f"{TokenIds(token_ids)} went on with {[token.id for token in answer.tokens]}; with the first {middle} "
                f"of these in the prompt it goes on with {other.id} instead of {one.id}"
            )

    async def _answer(self, prompt: Prompt, max_tokens: int = 4) -> Answer | None:
        """A greedy answer; None where the context has no room, or the model's template refuses the conversation."""
        room = self.session.facts.context_length - await self.session.count_tokens(prompt)
        if room < 1:
            return None
        values: dict[str, Any] = {"max_tokens": min(max_tokens, room), "logprobs": self.capabilities.logprobs}
        return await ask(self.session, request(prompt, **values))

    async def _differ(self, one: Messages, other: Messages) -> bool:
        """Whether the model may read two conversations differently: False only where nothing tells them apart.

        The same text proves nothing, of a point mass nothing at all; the same log probs do.
        """
        try:
            if await self.session.count_tokens(one) != await self.session.count_tokens(other):
                return True
            # Asked twice, so that what an engine keeps of a prompt is the same for both.
            answers = [await self._answer(each) for each in (one, one, other, other)]
        except BadRequestError:  # the model's template takes no such conversation
            return True
        first, second = (
            [(token.id, token.logprob) for token in each.tokens] if each else [] for each in answers[1::2]
        )
        return first != second or not any(logprob for _, logprob in first)


def _talk(*said: str) -> Messages:
    """A conversation of user and assistant by turns."""
    roles = ("user", "assistant")
    return Messages(tuple(Message(roles[number % 2], each) for number, each in enumerate(said)))
