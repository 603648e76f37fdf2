"""The check of streams lets sound ones pass as they are, and says what is wrong with others."""

from __future__ import annotations

import doctest
from collections.abc import AsyncGenerator
from types import ModuleType

import pytest

from llmengine_core.testing import faulty, scripted, streams
from llmengine_core.testing.streams import checked
from llmengine_core.types.generation import GenerationChunk, Usage

USAGE = Usage(1, 1)
END = GenerationChunk("", (), "stop", USAGE)
HELLO = GenerationChunk("Hello")


async def given(*chunks: GenerationChunk) -> AsyncGenerator[GenerationChunk, None]:
    for chunk in chunks:
        yield chunk


class Unending:
    """Ends, and goes on where it is asked again."""

    def __init__(self) -> None:
        self._steps = iter([HELLO, END, None, HELLO])

    def __aiter__(self) -> Unending:
        return self

    async def __anext__(self) -> GenerationChunk:
        chunk = next(self._steps)
        if chunk is None:
            raise StopAsyncIteration
        return chunk


async def test_a_sound_stream_passes() -> None:
    for chunks in (
        [END],
        [HELLO, GenerationChunk(""), END],
        [GenerationChunk("all", (), "cancelled", USAGE)],
    ):
        assert [chunk async for chunk in checked(given(*chunks))] == chunks


@pytest.mark.parametrize(
    ("chunks", "said"),
    [
        ([], "ended after 0 chunks without"),
        ([HELLO], "ended after 1 chunks without"),
        ([END, HELLO], "chunk 2 comes after"),
        ([END, END], "chunk 2 comes after"),
        ([GenerationChunk("", (), "stop")], "come together"),
        ([GenerationChunk("", (), None, USAGE), END], "chunk 1 is"),
        ([GenerationChunk("", (), "eos", USAGE)], "chunk 1 has 'eos'"),  # type: ignore[arg-type]
        ([GenerationChunk("\ud83d"), END], "half a character"),
        ([GenerationChunk(None), END], "the text of chunk 1 is None"),  # type: ignore[arg-type]
        (["Hello", END], "no GenerationChunk: 'Hello'"),
    ],
)
async def test_what_is_wrong_is_said(chunks: list[GenerationChunk], said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        [chunk async for chunk in checked(given(*chunks))]


async def test_what_has_ended_stays_so() -> None:
    with pytest.raises(AssertionError, match="asked again"):
        [chunk async for chunk in checked(Unending())]


@pytest.mark.parametrize("module", [faulty, scripted, streams])
def test_examples_of_docstrings_run(module: ModuleType) -> None:
    assert doctest.testmod(module).failed == 0
