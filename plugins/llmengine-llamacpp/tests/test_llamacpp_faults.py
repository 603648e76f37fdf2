"""What goes wrong: files that are no model, and children that die."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from gguf_files import gguf_file
from llamacpp_engine import Engine

from llmengine_core.errors import ServerError
from llmengine_core.interfaces.backend import SessionLost
from llmengine_core.runtime_local import LocalRuntime
from llmengine_core.types.launch import Deployment
from llmengine_core.types.progress import Progress
from llmengine_llamacpp.backend import LlamaCppBackend

pytestmark = pytest.mark.engine


def truncated(weights: Path) -> bytes:
    with open(weights, "rb") as file:
        return file.read(20_000_000)


def without_metadata(weights: Path) -> bytes:
    with open(weights, "rb") as file:
        return file.read(1000)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda weights: b"This is a text file.\n" * 100, "magic"),
        (lambda weights: b"", "magic"),
        (truncated, "not within the file bounds"),
        (without_metadata, "failed to read"),
        (lambda weights: gguf_file("not_a_model", {}), "unknown model architecture: 'not_a_model'"),
    ],
    ids=["text", "empty", "truncated", "header", "architecture"],
)
async def test_a_bad_file_is_refused_with_the_engines_reason(
    runtime: LocalRuntime,
    deployment: Deployment,
    weights: Path,
    tmp_path: Path,
    content: Callable[[Path], bytes],
    reason: str,
) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(content(weights))
    with pytest.raises(ServerError, match=reason) as failure:
        await runtime.start(LlamaCppBackend().launch(replace(deployment, weights=str(path))))
    told = failure.value.message
    assert told.startswith("bad.gguf: the engine ended with exit code 1 before it was ready: ")
    assert not re.search(r"\d\.\d{3}\.\d{3} E |failed to load model|exiting", told)
    assert len(told.splitlines()) == len(set(told.splitlines())) <= 3


async def test_a_missing_file_is_named(runtime: LocalRuntime, deployment: Deployment, tmp_path: Path) -> None:
    missing = replace(deployment, weights=str(tmp_path / "missing.gguf"))
    with pytest.raises(ServerError, match=r"missing\.gguf"):
        await runtime.start(LlamaCppBackend().launch(missing))


async def test_a_child_killed_while_idle_is_lost(own_engine: Engine) -> None:
    os.kill(own_engine.pid, signal.SIGKILL)
    await own_engine.replica.wait()
    with pytest.raises(SessionLost):
        await own_engine.complete("Hi")
    with pytest.raises(SessionLost):
        await own_engine.session.count_tokens(own_engine.request("Hi").prompt)


async def test_a_child_killed_mid_stream_is_lost(own_engine: Engine) -> None:
    stream = own_engine.session.generate(own_engine.request("Once", max_tokens=300))
    await anext(stream)
    os.kill(own_engine.pid, signal.SIGKILL)
    with pytest.raises(SessionLost, match=r"after [1-9][0-9]* tokens"):
        async for _ in stream:
            pass


async def test_a_child_killed_under_load_is_lost_to_all(own_engine: Engine) -> None:
    begun = asyncio.Event()

    async def drain() -> None:
        async for _ in own_engine.session.generate(own_engine.request("Once", max_tokens=300)):
            begun.set()

    answers = [asyncio.ensure_future(drain()) for _ in range(12)]
    await begun.wait()
    os.kill(own_engine.pid, signal.SIGKILL)
    results = await asyncio.gather(*answers, return_exceptions=True)
    assert [type(result) for result in results] == [SessionLost] * 12


async def test_a_child_killed_while_loading_fails_the_start(
    runtime: LocalRuntime, deployment: Deployment
) -> None:
    others = set(runtime._children)

    def kill(_: Progress) -> None:
        (child,) = runtime._children - others
        os.kill(child.pid, signal.SIGKILL)

    with pytest.raises(ServerError, match="SIGKILL"):
        await runtime.start(LlamaCppBackend().launch(deployment), on_progress=kill)


async def test_the_key_is_asked_for(engine: Engine, deployment: Deployment) -> None:
    with pytest.raises(ServerError, match="401"):
        await LlamaCppBackend().connect(replace(engine.replica.endpoint, key="other"), deployment)
