"""Sessions that end at the wrong place, or show what they shouldn't."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from tests.contract.mutants import Mutant
from tests.contract.mutants.toys import toy_mutant

from llmengine_core.testing.toy import ToySession
from llmengine_core.types.generation import GenerationChunk, GenerationRequest, Text, Usage

Chunks = Iterator[GenerationChunk]
Found = tuple[int, int]


class _Stopping(ToySession):
    """Finds stops in a way of its own, in all the text so far; holds back what ``held`` says."""

    def find(self, text: str, stops: Sequence[str], pieces: Sequence[str]) -> Found | None:
        """Where the stop that ends the text starts and ends."""
        found = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
        return (min(found)[1], min(found)[0]) if found else None

    def held(self, text: str, stops: Sequence[str]) -> int:
        """How many characters at the end may become a stop."""
        ends = [n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])]
        return max(ends, default=0)

    def last(self, text: str, stops: Sequence[str]) -> str:
        """What is shown of a text that no stop ended."""
        return text

    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Chunks:
        stops = request.sampling.stop
        free = replace(request, sampling=replace(request.sampling, stop=()))
        text, shown, pieces = "", 0, []
        for number, chunk in enumerate(super().answer(free, closed), 1):
            text += chunk.text
            pieces.append(chunk.text)
            if stops and (found := self.find(text, stops, pieces)):
                whole = text[: found[1] if request.sampling.include_stop else found[0]]
                usage = Usage(len(self.encode(request.prompt)), number)
                yield GenerationChunk(whole[shown:], chunk.tokens, "stop", usage)
                return
            if chunk.finish_reason is not None:
                yield replace(chunk, text=self.last(text, stops)[shown:])
                return
            upto = max(shown, len(text) - self.held(text, stops))
            yield replace(chunk, text=text[shown:upto])
            shown = upto


class ShownInParts(_Stopping):
    def held(self, text: str, stops: Sequence[str]) -> int:
        return 0


class ShortWindow(ToySession):
    """Looks through its last characters alone."""

    window = 32

    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Chunks:
        short = tuple(stop for stop in request.sampling.stop if len(stop) <= self.window)
        return super().answer(replace(request, sampling=replace(request.sampling, stop=short)), closed)


class HoldsForTheFirst(_Stopping):
    def held(self, text: str, stops: Sequence[str]) -> int:
        return super().held(text, stops[:1])


class FirstListed(_Stopping):
    def find(self, text: str, stops: Sequence[str], pieces: Sequence[str]) -> Found | None:
        return next(((text.find(each), text.find(each) + len(each)) for each in stops if each in text), None)


class EarliestStart(_Stopping):
    """Of what matched within four tokens the one that starts first, though another was complete before it."""

    def find(self, text: str, stops: Sequence[str], pieces: Sequence[str]) -> Found | None:
        if len(pieces) % 4 and text and len(pieces) < self._most:
            return None
        return min(
            ((text.find(each), text.find(each) + len(each)) for each in stops if each in text), default=None
        )

    def held(self, text: str, stops: Sequence[str]) -> int:
        return len(text)

    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Chunks:
        self._most = request.sampling.max_tokens
        return super().answer(request, closed)


class ShortestOfATie(_Stopping):
    def find(self, text: str, stops: Sequence[str], pieces: Sequence[str]) -> Found | None:
        found = [(text.find(stop) + len(stop), -text.find(stop)) for stop in stops if stop in text]
        return (-min(found)[1], min(found)[0]) if found else None


class WholeTokensOnly(_Stopping):
    def find(self, text: str, stops: Sequence[str], pieces: Sequence[str]) -> Found | None:
        matched = [stop for stop in stops if pieces[-1].startswith(stop)]
        start = len(text) - len(pieces[-1])
        return (start, start + len(matched[0])) if matched else None


class AtTheEndOfChunksOnly(_Stopping):
    """Of two tokens each."""

    def find(self, text: str, stops: Sequence[str], pieces: Sequence[str]) -> Found | None:
        if len(pieces) % 2:
            return None
        matched = [stop for stop in stops if text.endswith(stop)]
        return (len(text) - len(matched[0]), len(text)) if matched else None


class NeverFallsBack(_Stopping):
    """Begins anew after each character that doesn't fit, and forgets that it may begin a stop."""

    def find(self, text: str, stops: Sequence[str], pieces: Sequence[str]) -> Found | None:
        at = [0] * len(stops)
        for end, character in enumerate(text, 1):
            for number, stop in enumerate(stops):
                at[number] = at[number] + 1 if character == stop[at[number]] else 0
                if at[number] == len(stop):
                    return end - len(stop), end
        return None


class FourAtMost(_Stopping):
    def find(self, text: str, stops: Sequence[str], pieces: Sequence[str]) -> Found | None:
        return super().find(text, stops[:4], pieces)


class NeverAtTheStart(_Stopping):
    def find(self, text: str, stops: Sequence[str], pieces: Sequence[str]) -> Found | None:
        found = super().find(text, stops, pieces)
        return found if found and found[0] > 0 else None


class TailLost(_Stopping):
    def last(self, text: str, stops: Sequence[str]) -> str:
        return text[: len(text) - self.held(text, stops)]


class Patterns(_Stopping):
    def find(self, text: str, stops: Sequence[str], pieces: Sequence[str]) -> Found | None:
        for stop in stops:
            try:
                found = re.search(stop, text)
            except re.error:
                continue
            if found and found.end() > found.start():
                return found.span()
        return None


class AnyCase(_Stopping):
    def find(self, text: str, stops: Sequence[str], pieces: Sequence[str]) -> Found | None:
        return super().find(text.lower(), [stop.lower() for stop in stops], pieces)


class BlanksIgnored(_Stopping):
    """Stops are stripped before they are looked for."""

    def find(self, text: str, stops: Sequence[str], pieces: Sequence[str]) -> Found | None:
        return super().find(text, [stop.strip() or stop for stop in stops], pieces)


class IncludeIgnored(ToySession):
    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Chunks:
        sampling = replace(request.sampling, include_stop=False)
        return super().answer(replace(request, sampling=sampling), closed)


class AlwaysIncluded(ToySession):
    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Chunks:
        sampling = replace(request.sampling, include_stop=True)
        return super().answer(replace(request, sampling=sampling), closed)


class StopsIgnored(ToySession):
    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Chunks:
        sampling = replace(request.sampling, stop=())
        return super().answer(replace(request, sampling=sampling), closed)


class StopsInThePrompt(ToySession):
    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Chunks:
        prompt = request.prompt.text if isinstance(request.prompt, Text) else ""
        if any(stop in prompt for stop in request.sampling.stop):
            yield GenerationChunk("", (), "stop", Usage(len(self.encode(request.prompt)), 1))
            return
        yield from super().answer(request, closed)


class StopsAcrossThePrompt(_Stopping):
    """The text that is searched begins with the prompt's last characters."""

    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Chunks:
        self._before = request.prompt.text[-6:] if isinstance(request.prompt, Text) else ""
        return super().answer(request, closed)

    def find(self, text: str, stops: Sequence[str], pieces: Sequence[str]) -> Found | None:
        found = super().find(self._before + text, stops, pieces)
        before = len(self._before)
        return (max(0, found[0] - before), max(0, found[1] - before)) if found else None


class GoesOnBehindTheStop(ToySession):
    """Cuts the text when all of it is there."""

    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Chunks:
        stopped: GenerationChunk | None = None
        for chunk in super().answer(request, closed):
            stopped = chunk if chunk.finish_reason == "stop" and request.sampling.stop else None
            if stopped is None:
                yield chunk
        if stopped is not None and stopped.usage is not None:
            all_tokens = replace(stopped.usage, completion_tokens=request.sampling.max_tokens)
            yield replace(stopped, usage=all_tokens)


class StopNotCounted(ToySession):
    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Chunks:
        for chunk in super().answer(request, closed):
            if chunk.usage is not None and chunk.finish_reason == "stop" and request.sampling.stop:
                fewer = max(1, chunk.usage.completion_tokens - 1)
                chunk = replace(chunk, usage=replace(chunk.usage, completion_tokens=fewer))
            yield chunk


class LengthAtAStop(ToySession):
    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Chunks:
        for chunk in super().answer(request, closed):
            stopped = chunk.finish_reason == "stop" and request.sampling.stop
            yield replace(chunk, finish_reason="length") if stopped else chunk


FIRST = "test_c06_ends_at_the_match_that_completes_first"
OVERLAP = "test_c06_overlapping_stops_end_at_the_first_completed"
BORDERS = "test_c06_stops_cross_the_borders_of_tokens"
START = "test_c06_a_stop_at_the_very_start_leaves_nothing"
INCLUDE = "test_c06_include_stop_keeps_the_stop_at_the_end"
BEGAN = "test_c06_what_only_began_a_stop_is_given_in_the_end"
ANY = "test_c06_any_number_of_stops_is_looked_for"
PLAIN = "test_c06_stops_are_plain_text"
PROMPT = "test_c06_a_stop_in_the_prompt_ends_nothing"
COUNTED = "test_c08_tokens_up_to_the_stop_are_counted"
AS_LONG = "test_c06_a_stop_may_be_as_long_as_an_answer"
MUTANTS: list[Mutant] = [
    toy_mutant("stop_window", "a stop of over 32 characters isn't found", ShortWindow, killers=(AS_LONG,)),
    toy_mutant("stop_shown_in_parts", "the beginning of a stop is shown", ShownInParts, killers=(BORDERS,)),
    toy_mutant(
        "stop_held_for_the_first", "only the first stop is held back", HoldsForTheFirst, killers=(FIRST, ANY)
    ),
    toy_mutant("stop_first_listed", "the first that is listed wins", FirstListed, killers=(FIRST,)),
    toy_mutant(
        "stop_earliest_start", "the earliest start wins in a chunk", EarliestStart, killers=(OVERLAP,)
    ),
    toy_mutant("stop_shortest_of_a_tie", "the latest start wins a tie", ShortestOfATie, killers=(OVERLAP,)),
    toy_mutant("stop_whole_tokens_only", "stops begin where tokens do", WholeTokensOnly, killers=(BORDERS,)),
    toy_mutant(
        "stop_at_the_end_of_chunks", "stops end where chunks do", AtTheEndOfChunksOnly, killers=(FIRST,)
    ),
    toy_mutant("stop_never_falls_back", "a false start hides a stop", NeverFallsBack, killers=(OVERLAP,)),
    toy_mutant("stop_four_at_most", "the fifth stop is dropped", FourAtMost, killers=(ANY,)),
    toy_mutant("stop_never_at_the_start", "a stop at the start is missed", NeverAtTheStart, killers=(START,)),
    toy_mutant("stop_tail_lost", "text that was held back is lost", TailLost, killers=(BEGAN,)),
    toy_mutant("stop_patterns", "stops are regular expressions", Patterns, killers=(PLAIN,)),
    toy_mutant("stop_any_case", "stops are found in any case", AnyCase, killers=(PLAIN,)),
    toy_mutant("stop_blanks_ignored", "stops are stripped", BlanksIgnored, killers=(PLAIN,)),
    toy_mutant("stop_include_ignored", "include_stop is dropped", IncludeIgnored, killers=(INCLUDE,)),
    toy_mutant("stop_always_included", "the stop is always shown", AlwaysIncluded, killers=(INCLUDE, START)),
    toy_mutant(
        "stops_ignored", "stops are dropped", StopsIgnored, killers=(FIRST,), shipped="BerriAI/litellm#40471"
    ),
    toy_mutant(
        "stop_in_the_prompt", "a stop in the prompt ends the answer", StopsInThePrompt, killers=(PROMPT,)
    ),
    toy_mutant(
        "stop_across_the_prompt", "a stop may begin in the prompt", StopsAcrossThePrompt, killers=(PROMPT,)
    ),
    toy_mutant(
        "stop_counts_all", "tokens behind the stop are counted", GoesOnBehindTheStop, killers=(COUNTED,)
    ),
    toy_mutant("stop_not_counted", "the stop's last token isn't counted", StopNotCounted, killers=(COUNTED,)),
    toy_mutant("stop_is_length", '"length" at a stop', LengthAtAStop, killers=(FIRST,)),
]
