"""C06: where generation ends, against a definition that is too slow to use."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmengine_core.stops import StopMatcher

# Few letters, so that stop sequences overlap, nest and nearly match.
LETTERS = st.sampled_from("ab\n é漢🦊")
TEXTS = st.text(LETTERS, max_size=24)
STOPS = st.lists(st.text(LETTERS, min_size=1, max_size=5), max_size=6)


def cut(text: str, stops: list[str], include: bool) -> tuple[str, bool]:
    """The answer by definition: try every end, from the earliest on, and there every start."""
    for end in range(1, len(text) + 1):
        for start in range(end):
            if text[start:end] in stops:
                return text[: end if include else start], True
    return text, False


def could_become_stop(text: str, stops: list[str]) -> int:
    """Length of the longest end of the text that starts a stop sequence."""
    lengths = range(1, len(text) + 1)
    return max((n for n in lengths if any(stop.startswith(text[-n:]) for stop in stops)), default=0)


@st.composite
def pieces(draw: st.DrawFn) -> list[str]:
    text = draw(TEXTS)
    borders = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
    return [text[a:b] for a, b in zip([0, *borders], [*borders, len(text)], strict=True)]


@given(pieces(), STOPS, st.booleans())
@example(["ab", "cd"], ["bcd", "abc"], False)
@example(["aab"], ["aab", "ab", "b"], False)
@example(["aaaa"], ["aaab", "aa"], True)
def test_c06_ends_at_the_earliest_match_however_text_is_cut(
    given_pieces: list[str], stops: list[str], include: bool
) -> None:
    matcher = StopMatcher(stops, include)
    shown = "".join(matcher.feed(piece) for piece in given_pieces)
    if not matcher.stopped:
        shown += matcher.flush()
    assert (shown, matcher.stopped) == cut("".join(given_pieces), stops, include)


@given(pieces(), STOPS)
def test_c06_holds_back_only_what_could_become_a_stop(given_pieces: list[str], stops: list[str]) -> None:
    matcher = StopMatcher(stops)
    read = shown = ""
    for piece in given_pieces:
        read += piece
        shown += matcher.feed(piece)
        if matcher.stopped:
            return
        assert shown == read[: len(read) - could_become_stop(read, stops)]
    assert shown + matcher.flush() == read


@given(pieces(), STOPS)
def test_c06_holds_nothing_back_where_the_stop_text_is_kept(
    given_pieces: list[str], stops: list[str]
) -> None:
    matcher = StopMatcher(stops, include=True)
    for piece in given_pieces:
        shown = matcher.feed(piece)
        if not matcher.stopped:
            assert shown == piece


def test_c06_nothing_follows_a_stop() -> None:
    matcher = StopMatcher(["."])
    assert matcher.feed("One. Two.") == "One"
    assert (matcher.feed(" Three."), matcher.flush(), matcher.stopped) == ("", "", True)


def test_c06_takes_any_number_of_stop_sequences() -> None:
    stops = [f"<{number}>" for number in range(5000)]
    matcher = StopMatcher(stops)
    assert "".join(matcher.feed(c) for c in "a <4999 b <12x> <4321> c") == "a <4999 b <12x> "
    assert matcher.stopped


def test_c06_a_large_list_costs_no_more_than_the_text_needs() -> None:
    stops = [f"{number:05}" + "x" * 45 for number in range(20_000)]
    tracemalloc.start()
    matcher = StopMatcher(stops)
    assert matcher.feed("12345 99999 0000" + "x" * 1000) == "12345 99999 0000" + "x" * 1000
    assert matcher.feed(f"…{stops[7]}…") == "…"
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert matcher.stopped
    assert peak < 5_000_000  # bytes; a place for each of the million characters takes a hundred times that


def test_c06_a_long_stop_sequence_that_nearly_matches_is_no_trouble() -> None:
    stops = ["a" * 5000 + "b", *("a" * number + "c" for number in range(1, 3000))]
    matcher = StopMatcher(stops)
    text = "a" * 6000 + "b" + "a" * 10
    assert matcher.feed("a" * 6000) == "a" * 1000
    assert (matcher.feed("d"), matcher.stopped) == ("a" * 5000 + "d", False)
    assert (matcher.feed(text), matcher.stopped) == ("a" * 1000, True)


def test_c06_refuses_an_empty_stop_sequence() -> None:
    with pytest.raises(ValueError, match="empty"):
        StopMatcher(["a", ""])
