"""Locks that pass with their holders: never held by two, whoever removes them meanwhile."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from llmengine_core.locks import file_lock, held, in_thread, tried

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("passing", [True, False])
def test_of_many_threads_and_tasks_one_holds_it(tmp_path: Path, passing: bool) -> None:
    path = tmp_path / "locks" / "one"
    inside: list[int] = []
    most: list[int] = []
    turns: list[int] = []

    async def turn(number: int) -> None:
        async with file_lock(path, passing=passing):
            inside.append(number)
            most.append(len(inside))
            await asyncio.sleep(0)
            inside.remove(number)
            turns.append(number)

    async def several(first: int) -> None:
        await asyncio.gather(*(turn(number) for number in range(first, first + 4)))

    threads = [threading.Thread(target=lambda n=n: asyncio.run(several(n * 4))) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(turns) == list(range(24))
    assert max(most) == 1
    assert path.exists() != passing


async def test_who_waits_is_told_and_keeps_no_thread(tmp_path: Path) -> None:
    path = tmp_path / "one"
    waited = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def wait() -> None:
        async with file_lock(path, waiting=lambda: loop.call_soon_threadsafe(waited.set)):
            pass

    async with file_lock(path):
        tasks = [asyncio.ensure_future(wait()) for _ in range(100)]  # far more than there are threads
        async with asyncio.timeout(60):
            await waited.wait()
            assert await asyncio.to_thread(lambda: 1) == 1, "others find threads to work in"
        for task in tasks[1:]:
            task.cancel()
        await asyncio.gather(*tasks[1:], return_exceptions=True)
    async with asyncio.timeout(60):
        await tasks[0]


async def test_who_is_cancelled_while_it_lets_go_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "one"
    going, go = threading.Event(), threading.Event()

    def unlink(path: object) -> None:
        going.set()
        assert go.wait(60)
        raise OSError

    async def hold() -> None:
        async with file_lock(path, passing=True):
            pass

    monkeypatch.setattr("llmengine_core.locks.os.unlink", unlink)
    task = asyncio.ensure_future(hold())
    await asyncio.to_thread(going.wait, 60)
    task.cancel()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    monkeypatch.undo()

    def attempt() -> bool:
        with tried(path) as free:
            return free

    assert await asyncio.to_thread(attempt)


async def test_it_is_tried_without_waiting(tmp_path: Path) -> None:
    path = tmp_path / "one"

    def attempt() -> bool:
        with tried(path) as free:
            return free

    async with file_lock(path, passing=True):
        assert not await asyncio.to_thread(attempt)
        assert await asyncio.to_thread(path.exists)
    assert await asyncio.to_thread(attempt)
    assert not await asyncio.to_thread(path.exists)


def test_it_is_held_for_a_moment(tmp_path: Path) -> None:
    count = 0

    def work() -> None:
        nonlocal count
        for _ in range(200):
            with held(tmp_path / "index"):
                now = count
                (tmp_path / "between").touch()
                count = now + 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert count == 800


async def test_a_cancelled_caller_stays_until_the_work_has_ended() -> None:
    begun, ended = threading.Event(), threading.Event()

    def work(stop: threading.Event) -> None:
        begun.set()
        assert stop.wait(60)
        ended.set()

    task = asyncio.ensure_future(in_thread(work))
    await asyncio.to_thread(begun.wait, 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
