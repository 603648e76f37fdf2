"""The page on how a completion flows names what there is, and the frames that really are there."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncGenerator, Iterator
from functools import reduce
from importlib import import_module
from pathlib import Path
from types import FrameType

import pytest
from anyio.from_thread import start_blocking_portal

import llmengine
from llmengine_core.engine import Engine
from llmengine_core.settings import Settings
from llmengine_core.testing import echo
from llmengine_core.types.generation import GenerationChunk, GenerationRequest

PAGE = (Path(__file__).parents[2] / "docs" / "explanation" / "how-a-completion-flows.md").read_text()
FRAMES = [block.split() for block in re.findall(r"^```text\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)]
NAMES = set(re.findall(r"`([a-z_]+(?:\.\w+)+)`", PAGE)) | {name for each in FRAMES for name in each}


def found(name: str) -> object:
    """What a name of the page names. Raises where there is no such thing."""
    parts = name.split(".") if name.startswith("llmengine.") else ["llmengine_core", *name.split(".")]
    for end in range(len(parts) - 1, 0, -1):
        try:
            module = import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        return reduce(getattr, parts[end:], module)
    raise AssertionError(name)


def test_there_is_much_to_find() -> None:
    assert len(NAMES) > 30


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_name_exists(name: str) -> None:
    assert found(name) is not None


class Watched(echo.EchoSession):
    """An echo that notes who stands above it while it generates."""

    frames: list[str]

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        Watched.frames = list(reversed(list(ours())))
        async for chunk in super().generate(request):
            yield chunk


def ours() -> Iterator[str]:
    """The frames of llmengine's above this one, as the page writes them, the innermost first."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        module = str(frame.f_globals["__name__"])
        if module.startswith(("llmengine.", "llmengine_core.")):
            yield f"{module.removeprefix('llmengine_core.')}.{frame.f_code.co_qualname}"
        frame = frame.f_back


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """An engine on a loop of its own, as the home engine is."""
    monkeypatch.setattr(echo, "EchoSession", Watched)
    opened = Engine(Settings(home=tmp_path), plugins=[echo])
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(opened), llmengine.use(opened):
        yield opened


def test_a_chunk_passes_the_frames_of_the_first_block(engine: Engine) -> None:
    list(llmengine.Completion.create(model="echo", prompt="one two", stream=True))
    assert Watched.frames == FRAMES[0]
    assert len(FRAMES[0]) == 3


def test_a_whole_answer_passes_those_of_the_second(engine: Engine) -> None:
    llmengine.Completion.create(model="echo", prompt="one two")
    assert Watched.frames == FRAMES[1]


def test_acreate_on_the_engines_own_loop_passes_those_of_the_third(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(echo, "EchoSession", Watched)
    settings = Settings(home=tmp_path)

    async def complete() -> None:
        async with Engine(settings, plugins=[echo]) as opened:
            with llmengine.use(opened):
                await llmengine.Completion.acreate(model="echo", prompt="one two")

    asyncio.run(complete())
    assert Watched.frames == FRAMES[2]
