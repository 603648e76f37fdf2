"""Laws of sessions: the shape of an answer: its end, its text, its counts."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

from hypothesis import strategies as st

from llmengine_core.testing.answers import Answer, ask, request
from llmengine_core.testing.contracts.sessions.greedy import GreedyGround, near_tie
from llmengine_core.testing.laws import law
from llmengine_core.testing.streams import checked
from llmengine_core.types.generation import Text, TokenIds
from llmengine_core.types.sampling import StructuredOutput

__all__ = ["AnswerLaws"]

UNKNOWN = "an-adapter-that-nobody-loaded"
REPLACEMENT = "\ufffd"
LONG = 32
"""Tokens in which a good part of answers end by themselves; fewer of a slow engine."""


class AnswerLaws(GreedyGround):
    """What comes, in which order, and how it is counted."""

    @law("C09")
    async def test_c09_exactly_one_chunk_ends_a_stream(self, prompt: str, max_tokens: int) -> None:
        """Exactly one chunk has finish_reason and usage; it is the last, and nothing comes after it."""
        asked = await self.fitted(request(prompt, max_tokens=max_tokens))
        async with aclosing(self.session.generate(asked)) as stream:
            answer = Answer(tuple([chunk async for chunk in checked(stream)]))
        assert answer.finish_reason != "cancelled", (
            f"nobody closed the session, and the answer to {asked} ended as cancelled"
        )

    @law()
    async def test_nothing_happens_before_the_first_chunk_is_asked(self, prompt: str) -> None:
        """generate() alone begins no work and raises nothing; what it gave can be closed unread."""
        before = await self.ask(prompt, max_tokens=4)
        doubtful = (
            request(prompt),
            request(prompt, deadline=time.monotonic() - 1),
            request(prompt, adapter=UNKNOWN),
            request(prompt, structured=StructuredOutput("regex", "[")),
            request(TokenIds((-1,))),
            request(
                prompt, max_tokens=self.session.facts.context_length + 1, seed=1, temperature=1.0, top_k=1
            ),
            request(prompt, logprobs=True, presence_penalty=1.0, frequency_penalty=1.0),
        )
        for asked in doubtful:
            running = asyncio.all_tasks()
            try:
                stream = self.session.generate(asked)
            except Exception as error:
                raise AssertionError(
                    f"generate() raised {error!r} before a chunk was asked for; the request was {asked}"
                ) from error
            begun = asyncio.all_tasks() - running
            assert hasattr(stream, "__anext__"), f"generate() gave no async generator, but {stream!r}"
            await stream.aclose()
            assert not begun, (
                f"generate() began {begun} before a chunk was asked for; the request was {asked}"
            )
        self._repeats(before, await self.ask(prompt, max_tokens=4), "after streams that were closed unread")

    @law("C08")
    async def test_c08_length_is_said_only_where_a_limit_was_reached(
        self, prompt: str, max_tokens: int
    ) -> None:
        """1 to max_tokens tokens are generated; it is "length" only at max_tokens or the context's end."""
        await self._is_as_long_as_asked(prompt, max_tokens)

    @law("C08", weight=0.6, most=st.integers(17, 140))
    async def test_c08_no_limit_but_max_tokens_ends_a_long_answer(self, prompt: str, most: int) -> None:
        """An answer that doesn't end by itself goes on to max_tokens: an engine's own default is none."""
        await self._is_as_long_as_asked(prompt, most)

    @law("C08")
    async def test_c08_the_end_is_counted_and_not_shown(self, prompt: str) -> None:
        """Where an answer of k tokens ends by itself, the same k are enough, and k - 1 have the same text."""
        asked, whole = await self._greedily(prompt, LONG)
        if whole.finish_reason != "stop":
            return
        count = whole.usage.completion_tokens
        enough = await self._earlier(asked, count)
        if near_tie(whole, enough):
            return
        assert (enough.text, enough.usage.completion_tokens) == (whole.text, count), (
            f"an answer ended by itself after {count} tokens with {whole.text!r}; with max_tokens={count} it is "
            f"{enough.text!r} of {enough.usage.completion_tokens} tokens"
        )
        if count == 1:
            assert whole.text == "", f"an answer of the end token alone shows it: {whole.text!r}"
            return
        short = await self._earlier(asked, count - 1)
        if near_tie(whole, short):
            return
        assert (short.text, short.finish_reason, short.usage.completion_tokens) == (
            whole.text,
            "length",
            count - 1,
        ), (
            f"an answer ended by itself after {count} tokens, the end token among them, with {whole.text!r}; "
            f"one token less gives {short.text!r}, {short.finish_reason!r} after {short.usage.completion_tokens}"
        )

    @law("C08")
    async def test_c08_prompt_tokens_are_what_count_tokens_says(self, prompt: str) -> None:
        """usage.prompt_tokens is what count_tokens says, blanks at both ends and all, on every call."""
        for text in (prompt, f" {prompt}", f"{prompt}\n\n", f"\t{prompt} "):
            asked = await self.fitted(request(text, max_tokens=1))
            counts = [await self.session.count_tokens(asked.prompt)]
            answers = [await ask(self.session, asked) for _ in range(2)]
            counts += [answer.usage.prompt_tokens for answer in answers]
            counts.append(await self.session.count_tokens(asked.prompt))
            assert len(set(counts)) == 1 <= counts[0], (
                f"count_tokens, prompt_tokens of two answers, and count_tokens again: {counts} for {asked.prompt}"
            )

    @law("C08")
    async def test_c08_count_tokens_counts_more_for_more_text(self, prompt: str) -> None:
        """Some more words are some more tokens."""
        text, count = prompt, await self.session.count_tokens(Text(prompt))
        for _ in range(3):
            text = f"{text} and then there were seven more words"
            more = await self.session.count_tokens(Text(text))
            assert more > count, f"seven more words: {more} tokens instead of {count}; the prompt is {text!r}"
            count = more

    @law("C05")
    async def test_c05_a_greedy_call_repeats(self, prompt: str, max_tokens: int) -> None:
        """The same greedy call, run alone, gives the same text, counts and finish_reason again."""
        asked, first = await self._greedily(prompt, max_tokens)
        self._repeats(first, await ask(self.session, asked), f"the same call again ({asked})")

    @law("C09", more=st.integers(1, 4))
    async def test_c09_fewer_tokens_are_the_beginning_of_more(
        self, prompt: str, max_tokens: int, more: int
    ) -> None:
        """A greedy answer cut earlier is the beginning of the same answer cut later, in whole characters."""
        asked, long = await self._greedily(prompt, max_tokens + more)
        least = max(1, asked.sampling.max_tokens - more)
        short = await self._earlier(asked, least)
        if near_tie(short, long):
            return
        assert long.text.startswith(short.text), (
            f"cut after {least} tokens it is {short.text!r}, which {long.text!r} doesn't begin with; that is the same "
            f"answer cut after {asked.sampling.max_tokens}"
        )
        if short.finish_reason == "stop":
            assert (short.text, short.usage) == (long.text, long.usage), (
                f"it ended by itself within {least} tokens ({short.text!r}, {short.usage}), and with "
                f"{asked.sampling.max_tokens} allowed it is another answer ({long.text!r}, {long.usage})"
            )

    @law("C09", weight=0.2)
    async def test_c09_the_first_token_is_shown(self, prompt: str) -> None:
        """An answer of one token has its text: nothing is lost at the beginning or the end of a stream."""
        beginnings = ("The capital of France is", "Once upon a time", "1, 2, 3, 4, 5,", prompt)
        calls = [await self._greedily(each, 2) for each in beginnings]
        calls = [
            (asked, answer) for asked, answer in calls if answer.text and answer.finish_reason == "length"
        ]
        if len(calls) < len(beginnings) / 2:
            return  # what it says is mostly no text, or over at once
        shown = {answer.text: (await self._earlier(asked, 1)).text for asked, answer in calls}
        assert any(shown.values()), f"two tokens have text, and the first of them has none: {list(shown)}"

    @law("C08")
    async def test_c08_the_text_is_of_the_tokens_that_were_counted(
        self, prompt: str, max_tokens: int
    ) -> None:
        """The text has about the tokens that the usage says: it isn't repeated, and the prompt isn't in it."""
        for text in (prompt, f"{prompt} and then there were seven more words"):
            asked, answer = await self._greedily(text, max_tokens)
            if not answer.text:
                continue
            overhead = await self.session.count_tokens(Text("a"))
            found = await self.session.count_tokens(Text(answer.text))
            most = 2 * answer.usage.completion_tokens + overhead + 2
            assert found <= most, (
                f"{answer.usage.completion_tokens} tokens were generated, but the text counts as {found}: "
                f"{answer.text!r}; the prompt was {asked.prompt}"
            )

    @law("C07")
    async def test_c07_tokens_that_are_given_join_to_the_text(self, prompt: str, max_tokens: int) -> None:
        """Where a session gives every token, their texts join to the answer; never more than were counted."""
        _, answer = await self._greedily(prompt, max_tokens)
        given, counted = answer.tokens, answer.usage.completion_tokens
        assert len(given) <= counted, f"{len(given)} tokens were given and {counted} counted: {given}"
        if len(given) == counted:
            joined = "".join(token.text for token in given)
            assert joined == answer.text, f"the tokens join to {joined!r}, the chunks to {answer.text!r}"

    @law("C09")
    async def test_c09_no_character_is_shown_in_parts(self, prompt: str, max_tokens: int) -> None:
        """U+FFFD is shown only where the model generated it, or bytes that are no UTF-8; never for a cut."""
        asked, answer = await self._greedily(prompt, max_tokens)
        generated = [token.bytes for token in answer.tokens]
        if REPLACEMENT not in answer.text or None in generated:
            return
        if len(generated) == answer.usage.completion_tokens:
            data = b"".join(each for each in generated if each is not None)
            most = data.decode(errors="replace").count(REPLACEMENT)
            assert answer.text.count(REPLACEMENT) <= most, (
                f"the bytes that were generated are {data!r}, and the text is {answer.text!r}; the request was {asked}"
            )

    @law("C01", weight=0.5)
    async def test_c01_blanks_around_a_prompt_are_kept(self, prompt: str) -> None:
        """A prompt is sent as it is: blank lines before or after it are seen by the model."""
        longest = await self.fitted(request(f"\n\n{prompt.strip()} Z\n\n", max_tokens=4))
        assert isinstance(longest.prompt, Text)
        plain = longest.prompt.text.strip().removesuffix(" Z") or "A"

        async def seen(text: str) -> tuple[object, ...]:
            answer = await self.ask(text, max_tokens=4, logprobs=self.capabilities.logprobs)
            return answer.text, answer.logprobs, answer.usage

        if await seen("A  B") == await seen("A B"):
            return  # the model itself sees no blanks
        bare, other = await seen(plain), await seen(f"{plain} Z")
        if bare[0] == other[0]:
            return  # it answers the same to anything
        for text in (f"\n\n{plain}", f"{plain}\n\n"):
            assert await seen(text) != bare, (
                f"the prompt {text!r} is answered and counted just as {plain!r} is"
            )

    async def _is_as_long_as_asked(self, prompt: str, max_tokens: int) -> None:
        asked = await self.fitted(request(prompt, max_tokens=max_tokens))
        answer = await ask(self.session, asked)
        most, usage, context = asked.sampling.max_tokens, answer.usage, self.session.facts.context_length
        assert 1 <= usage.completion_tokens <= most, (
            f"{usage.completion_tokens} completion_tokens of at most {most} and at least 1"
        )
        if answer.finish_reason == "length" and usage.completion_tokens < most:
            # Some keep the context's last place free.
            assert usage.prompt_tokens + usage.completion_tokens >= context - 1, (
                f"the answer ended for its length after {usage.completion_tokens} of {most} tokens; prompt and answer "
                f"are {usage.prompt_tokens + usage.completion_tokens} of the context's {context}"
            )
