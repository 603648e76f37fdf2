"""What is held is seen, whatever it is, and what isn't held any more is not."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from llmengine_core.testing.leaks import cpu_seconds, descendants, grown, holdings, own_folder

SOON = 5.0


@asynccontextmanager
async def a_task() -> AsyncIterator[None]:
    task = asyncio.create_task(asyncio.Event().wait())
    yield
    task.cancel()


@asynccontextmanager
async def a_thread() -> AsyncIterator[None]:
    done = threading.Event()
    thread = threading.Thread(target=done.wait, name="decode-loop")
    thread.start()
    yield
    done.set()
    await asyncio.to_thread(thread.join)


@asynccontextmanager
async def a_process() -> AsyncIterator[None]:
    child = await asyncio.to_thread(
        subprocess.Popen, [sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE
    )
    yield
    await asyncio.to_thread(child.communicate, b"\n")


@asynccontextmanager
async def a_file() -> AsyncIterator[None]:
    number = os.open(os.devnull, os.O_RDONLY)
    yield
    os.close(number)


@asynccontextmanager
async def a_socket() -> AsyncIterator[None]:
    with socket.socket(socket.AF_UNIX):
        yield


@asynccontextmanager
async def a_folder() -> AsyncIterator[None]:
    folder = await asyncio.to_thread(tempfile.TemporaryDirectory, prefix="scratch-")
    yield
    await asyncio.to_thread(folder.cleanup)


@pytest.mark.parametrize(
    ("hold", "kind"),
    [
        (a_task, "task"),
        (a_thread, "decode-loop"),
        (a_process, "input()"),
        (a_file, os.devnull),
        (a_socket, "socket:"),
        (a_folder, "scratch-"),
    ],
)
async def test_it_is_named_for_as_long_as_it_is_held(
    hold: Callable[[], AbstractAsyncContextManager[None]], kind: str
) -> None:
    async with own_folder() as folder:
        before = await holdings(folder)
        async with hold():
            more = await grown(before, seconds=0.0, folder=folder)
            assert any(kind in each for each in more), more
        assert await grown(before, seconds=SOON, folder=folder) == []


async def test_it_waits_for_what_is_about_to_go() -> None:
    before = await holdings()
    task = asyncio.create_task(asyncio.sleep(0.1))
    assert await grown(before, seconds=SOON) == []
    assert task.done()


async def test_temporary_files_go_to_a_folder_of_their_own() -> None:
    usual = tempfile.gettempdir()
    async with own_folder() as folder:
        assert (tempfile.gettempdir(), os.environ["TMPDIR"]) == (str(folder), str(folder))
    assert tempfile.gettempdir() == usual
    assert not await asyncio.to_thread(Path.exists, folder)


async def test_children_of_children_are_known() -> None:
    program = "import subprocess, sys; subprocess.run([sys.executable, '-I', '-S', '-c', 'print(1, flush=1); input()'])"
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", "-c", program, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    await child.stdout.readline()
    found = await asyncio.to_thread(descendants, child.pid)
    assert list(found.values()) == [child.pid]
    await child.communicate(b"\n")


def test_cpu_time_never_falls() -> None:
    first = cpu_seconds()
    sum(number * number for number in range(200_000))
    assert cpu_seconds() > first
