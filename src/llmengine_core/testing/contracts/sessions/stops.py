"""Laws of sessions: stop sequences."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeAlias

from hypothesis import strategies as st

from llmengine_core.testing.answers import Answer, ask
from llmengine_core.testing.contracts.sessions.greedy import GreedyGround, near_tie
from llmengine_core.testing.laws import law
from llmengine_core.testing.strategies import stop_lists
from llmengine_core.types.generation import GenerationRequest

__all__ = ["StopLaws"]

Cut: TypeAlias = tuple[int, int]
"""Where a piece of a text begins, and how long it is, both modulo what the text has."""
CUTS = st.tuples(st.integers(0, 60), st.integers(1, 8))
ABSENT = "\U0010fffd"
"""A character that no model writes."""
MANY = 30
LONG = 96
"""Tokens of a long answer; fewer of a slow engine."""
PATTERNS = (".", ".*", "\\w", "\\s", "[^x]", "^", "$", "(", "a|b", "(?i)A", "%", "_", "*", "?", "\\n", "\\")
"""Plain texts that mean something to regular expressions, to SQL or to globs."""


class StopLaws(GreedyGround):
    """C06, judged by searching the whole answer that comes without stop sequences."""

    @law("C06", cuts=st.lists(CUTS, min_size=1, max_size=4), others=stop_lists(max_size=3))
    async def test_c06_ends_at_the_match_that_completes_first(
        self, prompt: str, max_tokens: int, cuts: list[Cut], others: tuple[str, ...]
    ) -> None:
        """An answer ends at the match that completes at the earliest character, whatever stops are listed first."""
        asked, free = await self._greedily(prompt, max_tokens)
        pieces = [_piece(free.text, cut) for cut in cuts]
        await self._ends(asked, free, (*others, *pieces))

    @law("C06", cut=CUTS, before=st.integers(1, 5), after=st.integers(1, 5))
    async def test_c06_overlapping_stops_end_at_the_first_completed(
        self, prompt: str, max_tokens: int, cut: Cut, before: int, after: int
    ) -> None:
        """Of stops that overlap or begin alike the first completed counts, and of those the longest."""
        asked, free = await self._greedily(prompt, max_tokens)
        piece, text = _piece(free.text, cut), free.text
        at = text.find(piece) if piece else 0
        wider = text[max(0, at - before) : at + len(piece)]
        later = text[at : at + len(piece) + after]
        await self._ends(asked, free, (later, piece + ABSENT, wider, piece, piece[1:], piece[:-1] + ABSENT))
        await self._ends(asked, free, (later, piece[1:-1], wider))

    @law("C06", cut=CUTS, keep=st.booleans())
    async def test_c06_stops_cross_the_borders_of_tokens(
        self, prompt: str, max_tokens: int, cut: Cut, keep: bool
    ) -> None:
        """A stop is found wherever the borders of tokens and chunks fall; no part of it is shown before."""
        asked, free = await self._greedily(prompt, max_tokens)
        borders, end = [], 0
        for piece in [token.text for token in free.tokens] or [chunk.text for chunk in free.chunks]:
            end += len(piece)
            borders.append(end)
        within = sorted({border for border in borders if 0 < border < len(free.text)})
        if within:
            border = within[cut[0] % len(within)]
            stop = free.text[border - 1 - cut[1] % 2 : border + 1 + cut[1] // 3]
            await self._ends(asked, free, (stop,), include_stop=keep)

    @law("C06", size=st.integers(1, 4))
    async def test_c06_a_stop_at_the_very_start_leaves_nothing(
        self, prompt: str, max_tokens: int, size: int
    ) -> None:
        """A stop that the answer begins with, or that is the whole answer, leaves an empty text."""
        asked, free = await self._greedily(prompt, max_tokens)
        for stop in {free.text[:size], free.text}:
            await self._ends(asked, free, (stop,))

    @law("C06", cut=CUTS)
    async def test_c06_include_stop_keeps_the_stop_at_the_end(
        self, prompt: str, max_tokens: int, cut: Cut
    ) -> None:
        """With include_stop the text ends with the stop that was found, and without it just before."""
        asked, free = await self._greedily(prompt, max_tokens)
        stops = (_piece(free.text, cut), free.text[-2:])
        await self._ends(asked, free, stops, include_stop=True)
        await self._ends(asked, free, stops, include_stop=False)

    @law("C06", size=st.integers(1, 6))
    async def test_c06_what_only_began_a_stop_is_given_in_the_end(
        self, prompt: str, max_tokens: int, size: int
    ) -> None:
        """Text that looked like the beginning of a stop, and wasn't one, is given at last."""
        asked, free = await self._greedily(prompt, max_tokens)
        middle = len(free.text) // 2
        stops = (free.text[-size:] + ABSENT, free.text + ABSENT, free.text[middle : middle + size] + ABSENT)
        await self._ends(asked, free, stops)

    @law("C06", cut=CUTS, at=st.integers(0, MANY))
    async def test_c06_any_number_of_stops_is_looked_for(
        self, prompt: str, max_tokens: int, cut: Cut, at: int
    ) -> None:
        """Thirty stops count as one does, wherever in the list the one that matches is."""
        asked, free = await self._greedily(prompt, max_tokens)
        absent = [f"{ABSENT}{number}" for number in range(MANY)]
        await self._ends(asked, free, (*absent[:at], _piece(free.text, cut), *absent[at:]))
        await self._ends(asked, free, absent)

    @law("C06", weight=0.4)
    async def test_c06_a_stop_may_be_as_long_as_an_answer(self, prompt: str) -> None:
        """A stop of dozens of tokens is found, and no part of it is shown, however much must be held back."""
        asked, free = await self._greedily(prompt, LONG)
        for stop in (free.text[1:], free.text[1:-1] + ABSENT):
            await self._ends(asked, free, (stop,))

    @law("C06", cut=CUTS, pattern=st.sampled_from(PATTERNS))
    async def test_c06_stops_are_plain_text(
        self, prompt: str, max_tokens: int, cut: Cut, pattern: str
    ) -> None:
        """A stop is compared character by character: no patterns, no other case, no other Unicode form."""
        asked, free = await self._greedily(prompt, max_tokens)
        piece = _piece(free.text, cut)
        other = (unicodedata.normalize("NFD", piece), unicodedata.normalize("NFC", piece), piece.swapcase())
        await self._ends(asked, free, (pattern, *(each for each in other if each not in free.text)))
        await self._ends(asked, free, (f"{piece} ", f" {piece}", f"{piece}\n"))

    @law("C06", size=st.integers(1, 6))
    async def test_c06_a_stop_in_the_prompt_ends_nothing(
        self, prompt: str, max_tokens: int, size: int
    ) -> None:
        """Only generated text is searched: a stop in the prompt, or across its end, doesn't end the answer."""
        asked, free = await self._greedily(prompt, max_tokens)
        given = getattr(asked.prompt, "text", prompt)
        stops = [given, given[-size:], given[:size], given[-size:] + free.text[:1]]
        await self._ends(asked, free, [stop for stop in stops if stop not in free.text])

    @law("C06", "C08", cut=CUTS)
    async def test_c08_tokens_up_to_the_stop_are_counted(
        self, prompt: str, max_tokens: int, cut: Cut
    ) -> None:
        """completion_tokens at a stop is how many tokens it takes until the match is complete."""
        asked, free = await self._greedily(prompt, max_tokens)
        stop = _piece(free.text, cut)
        if not stop:
            return
        answer = await self._ends(asked, free, (stop,))
        if answer.finish_reason != "stop" or near_tie(answer, free):
            return
        count, step = answer.usage.completion_tokens, _tokens_at_once(answer, free)
        holds = (await self._earlier(asked, count)).text
        assert stop in holds, (
            f"{count} tokens were counted at the stop {stop!r}; as many make {holds!r}, which doesn't hold it"
        )
        if count > step:
            holds = (await self._earlier(asked, count - step)).text
            assert stop not in holds, (
                f"{count} tokens were counted at the stop {stop!r}, but {count - step} hold it already: {holds!r}"
            )

    async def _ends(
        self, asked: GenerationRequest, free: Answer, stops: Iterable[str], *, include_stop: bool = False
    ) -> Answer:
        """The answer with ``stops``; raises ``AssertionError`` unless it ends where ``free``'s text says."""
        stops = tuple(dict.fromkeys(stop for stop in stops if stop))
        sampling = replace(asked.sampling, stop=stops, include_stop=include_stop)
        answer = await ask(self.session, replace(asked, sampling=sampling))
        if near_tie(answer, free):
            return answer
        expected, found = _cut(free.text, stops, include_stop=include_stop)
        kept = "kept" if include_stop else "left out"
        where = f"at {found!r} ({kept})" if found is not None else "at none of them"
        assert answer.text == expected, (
            f"without stops the answer is {free.text!r}; with {list(stops)} it ends {where} and is {expected!r}; "
            f"it was {answer.text!r} in the chunks {[chunk.text for chunk in answer.chunks]}"
        )
        reasons = {free.finish_reason if found is None else "stop"}
        if found is not None and answer.usage.completion_tokens == asked.sampling.max_tokens:
            reasons.add("length")  # both came with the last token
        assert answer.finish_reason in reasons, (
            f"finish_reason is {answer.finish_reason!r}, not {' or '.join(sorted(reasons))}, after {answer.text!r}; "
            f"of the stops {list(stops)} it ended {where}"
        )
        return answer


def _piece(text: str, cut: Cut) -> str:
    """A part of a text; "" of the empty text alone."""
    start = cut[0] % len(text) if text else 0
    return text[start : start + cut[1]]


def _cut(text: str, stops: Sequence[str], *, include_stop: bool) -> tuple[str, str | None]:
    """What C06 leaves of a text, and the stop that ends it: by searching for each by itself."""
    matches = [(text.index(stop) + len(stop), text.index(stop), stop) for stop in stops if stop in text]
    if not matches:
        return text, None
    end, start, stop = min(matches)
    return text[: end if include_stop else start], stop


def _tokens_at_once(*answers: Answer) -> int:
    """How many tokens the session may have generated before it could look for a stop."""
    widest = 1
    for answer in answers:
        if answer.tokens:
            widest = max(widest, *(len(chunk.tokens) for chunk in answer.chunks))
        elif len(answer.chunks) < answer.usage.completion_tokens:
            widest = max(widest, answer.usage.completion_tokens)
    return widest
