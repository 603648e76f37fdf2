"""Who comes in between: kills, others that build the same, those who cancel, and those who run in what goes."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.building import UV, building, gate, left, recipe

from llmengine_core.environments import environments_folder, listed
from llmengine_core.installing import build, built_already, remove, users
from llmengine_core.types.progress import Progress

SECONDS = 30


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def mentioned(text: str) -> bool:
    """Whether any process has a text in its command."""
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if text.encode() in Path("/proc", name, "cmdline").read_bytes():
                return True
        except OSError:
            continue
    return False


@contextmanager
def silent_index() -> Iterator[str]:
    """The address of an index that takes every call, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def hold() -> None:
            while True:
                try:
                    held.append(server.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=hold)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/simple"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for each in held:
                each.close()


def test_a_build_that_is_killed_leaves_nothing_that_counts_and_the_next_one_works(
    home: Path, wheels: Path, tmp_path: Path
) -> None:
    wanted = recipe()
    # while uv waits for an index
    with silent_index() as index:
        environment = {"PIP_NO_INDEX": "", "PIP_INDEX_URL": index}
        with building(home, wanted, environment) as started:
            started.until("resolve")
            started.process.kill()
            started.process.wait()
    (half,) = left(home)
    assert half.startswith(f".{wanted.name}.")
    assert listed(home) == ()
    wait_for(lambda: not mentioned(half))  # its installer went with it

    # while it is tried out, in its place
    other = recipe(engine="other")
    with gate(tmp_path) as (path, _), building(home, other, {"MOTOR_GATE": str(path)}) as started:
        started.until("check")
        wait_for(lambda: left(home) == [other.name])
        started.process.kill()
        started.process.wait()
    (unfinished,) = listed(home)
    assert "never finished" in str(unfinished.problem)
    assert built_already(home, other) is None
    wait_for(lambda: not mentioned(other.name))

    with building(home, wanted, {}) as started:
        assert "folder" in started.rest()[-1]
    assert left(home) == [wanted.name]  # and the other one is gone


def test_of_two_that_build_the_same_one_works_and_the_other_waits(
    home: Path, wheels: Path, tmp_path: Path
) -> None:
    wanted = recipe()
    with gate(tmp_path) as (path, let_go), building(home, wanted, {"MOTOR_GATE": str(path)}) as first:
        first.until("check")
        with building(home, wanted, {"MOTOR_GATE": str(path)}) as second:
            second.until("wait")
            let_go()
            done = {"folder": str(environments_folder(home) / wanted.name)}
            assert first.rest() == [done]
            assert second.rest() == [done]
    assert left(home) == [wanted.name]


async def test_a_build_of_another_recipe_goes_on_beside(home: Path, wheels: Path, tmp_path: Path) -> None:
    one, other = recipe(), recipe(engine="other")
    with gate(tmp_path) as (path, let_go), building(home, one, {"MOTOR_GATE": str(path)}) as first:
        await asyncio.to_thread(first.until, "check")
        assert (await build(home, other, tool=UV)).problem is None  # and sweeps none of what is held
        let_go()
        assert "folder" in (await asyncio.to_thread(first.rest))[-1]
    assert left(home) == sorted([one.name, other.name])


@pytest.mark.parametrize("phase", ["resolve", "check"])
async def test_cancelling_ends_the_installer_and_removes_what_it_made(
    home: Path, wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    reached = asyncio.Event()
    with silent_index() as index, gate(tmp_path) as (path, _):
        monkeypatch.setenv("MOTOR_GATE", str(path))
        if phase == "resolve":
            monkeypatch.delenv("PIP_NO_INDEX")
            monkeypatch.setenv("PIP_INDEX_URL", index)

        def hear(progress: Progress) -> None:
            if progress.phase == phase:
                reached.set()

        task = asyncio.create_task(build(home, recipe(), on_progress=hear, tool=UV))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert left(home) == []
        assert not mentioned(str(home))


@pytest.mark.parametrize("system", ["linux", "darwin"])
def test_whoever_runs_in_an_environment_is_seen_until_it_ends(
    home: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch, system: str
) -> None:
    monkeypatch.setattr("llmengine_core.installing.removing.sys", SimpleNamespace(platform=system))
    found = asyncio.run(build(home, recipe(), tool=UV))
    assert asyncio.run(users(found)) == []
    with subprocess.Popen([found.python, "-I", "-c", "input()"], stdin=subprocess.PIPE) as process:
        (user,) = asyncio.run(users(found))
        assert (user.pid, user.command.startswith(str(found.python))) == (process.pid, True)
        process.communicate(b"\n")
    assert asyncio.run(users(found)) == []
    asyncio.run(remove(home, found))
    assert left(home) == []
    asyncio.run(remove(home, found))  # twice is no error


def test_whoever_has_loaded_a_library_of_an_environment_is_seen(home: Path, wheels: Path) -> None:
    found = asyncio.run(build(home, recipe(), tool=UV))
    library = found.folder / "libmotor.so"
    library.write_bytes(bytes(4096))
    code = "import mmap, sys; file = open(sys.argv[1], 'r+b'); held = mmap.mmap(file.fileno(), 0); print(); input()"
    command = [sys.executable, "-u", "-I", "-c", code, str(library)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert [each.pid for each in asyncio.run(users(found))] == [process.pid]
        process.communicate(b"\n")
