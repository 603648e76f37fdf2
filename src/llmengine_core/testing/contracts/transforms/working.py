"""How a transform works: told of, stoppable, beside the loop, and begun again after it was broken off."""

from __future__ import annotations

import asyncio
import math
import os
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from llmengine_core.testing.contracts.transforms.ground import TransformGround, digest
from llmengine_core.testing.laws import law
from llmengine_core.testing.leaks import grown, holdings
from llmengine_core.types.progress import Progress

__all__ = ["WorkingLaws"]

TICK = 0.005
HELD = 0.25
"""Seconds for which nothing may hold the loop up."""
ATTEMPTS = 4
"""Of which the best counts: the machine may be busy."""
AFTER = 1.0
"""Seconds in which what was stopped has let go of everything."""


class WorkingLaws(TransformGround):
    """Laws on ``run`` while it works."""

    @law()
    async def test_progress_rises_to_its_end(self) -> None:
        """Progress is told on the loop, only rises within a phase, and comes to its end."""
        heard: list[Progress] = []
        strangers: list[str] = []
        here = threading.current_thread()

        def listen(progress: Progress) -> None:
            if threading.current_thread() is not here:
                strangers.append(threading.current_thread().name)
            heard.append(progress)

        await self.work(await self.place(), self.tried()[0], on_progress=listen)
        assert not strangers, (
            f"progress was told in the thread {strangers[0]}; it is told on the loop that does the work"
        )
        assert heard, "nothing was told of the progress of a run to its end"
        phases: dict[tuple[str, str], list[Progress]] = {}
        for each in heard:
            assert isinstance(each, Progress), (
                f"progress was told as a {type(each).__name__}, not as a Progress"
            )
            for number in (each.done, each.total if each.total is not None else 1.0):
                assert math.isfinite(number), f"progress holds a number that is not finite: {each}"
                assert number >= 0, f"progress holds a number below 0: {each}"
            assert each.total is None or each.done <= each.total, f"more was done than there is: {each}"
            phases.setdefault((each.subject, each.phase), []).append(each)
        for (_, phase), news in phases.items():
            done = [each.done for each in news]
            assert done == sorted(done), f"progress of the phase {phase!r} went back: {done}"
        last = heard[-1]
        assert last.total is None or last.done == last.total, f"the last news of a run to its end is {last}"

    @law()
    async def test_interrupted_work_done_again_gives_equal_bytes(self) -> None:
        """Broken off at any moment, thrown away and done again, it makes the same bytes."""
        method = self.tried()[0]
        expected = await self.expected(method)
        for moment in (at_once, at_first_news):
            target = await self.place()
            await self.broken_off(target, method, moment)
            await asyncio.to_thread(remove, target)
            await self.work(target, method)
            assert await asyncio.to_thread(digest, target) == expected, (
                f"broken off {moment.__doc__}, and done again, it made other bytes than at once"
            )

    @law()
    async def test_cancelling_stops_it_and_leaves_nothing(self) -> None:
        """Cancelled, it stops soon, and holds no process, thread, file or task any more."""
        method = self.tried()[0]
        await self.expected(method)  # what the first run alone opens isn't this one's
        began = time.monotonic()
        await self.done(method)
        whole = time.monotonic() - began
        folders: list[Path] = []
        for moment in (at_once, at_first_news):
            target = await self.place()
            before = await holdings()
            await self.broken_off(target, method, moment)
            await asyncio.to_thread(remove, target)
            folders.append(target.parent)
            held = await grown(before, seconds=AFTER)
            assert not held, (
                f"cancelled {moment.__doc__}, it still held {', '.join(held[:5])} after {AFTER:g} s"
            )
        await asyncio.sleep(2 * whole)  # in which whoever went on would be done
        for folder in folders:
            left = sorted(await asyncio.to_thread(os.listdir, folder))
            assert not left, f"it was cancelled and its part thrown away; then there is {', '.join(left)}"

    @law()
    async def test_the_loop_stays_free(self) -> None:
        """Work that blocks runs in a child or a thread: the event loop goes on meanwhile."""
        method = self.tried()[0]
        held = math.inf
        for _ in range(ATTEMPTS):
            held = min(held, await _longest_hold(self.work(await self.place(), method)))
            if held < HELD:
                return
        raise AssertionError(
            f"while it worked the event loop stood still for {held:.2f} s, each of {ATTEMPTS} times: what blocks "
            "belongs in a child or a thread"
        )

    async def broken_off(self, target: Path, method: str | None, moment: Callable[..., object]) -> None:
        """Cancel a run at some moment; it may be over by then."""
        news = asyncio.Event()
        working = asyncio.ensure_future(self.work(target, method, on_progress=lambda _: news.set()))
        if moment is at_once:
            for _ in range(3):
                await asyncio.sleep(0)
        else:
            heard = asyncio.ensure_future(news.wait())
            await asyncio.wait({working, heard}, return_when=asyncio.FIRST_COMPLETED)
            heard.cancel()
        working.cancel()
        done, _ = await asyncio.wait({working}, timeout=self.margin)
        assert done, f"cancelled {moment.__doc__}, it went on for more than {self.margin:g} s"
        if not working.cancelled() and (error := working.exception()) is not None:
            raise AssertionError(
                f"cancelled {moment.__doc__}, it raised {type(error).__name__}({error}), not the CancelledError"
            ) from error


def at_once() -> None:
    """as soon as it had begun"""


def at_first_news() -> None:
    """when it first told of its progress"""


def remove(path: Path) -> None:
    """Throw away what was broken off."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    with suppress(FileNotFoundError, IsADirectoryError):
        path.unlink()


async def _longest_hold(work: object) -> float:
    """For how long the loop did not get on at most, until ``work`` was done."""
    loop = asyncio.get_running_loop()
    working = asyncio.ensure_future(work)  # type: ignore[call-overload]
    longest, last = 0.0, loop.time()
    while not working.done():
        await asyncio.sleep(TICK)
        longest, last = max(longest, loop.time() - last), loop.time()
    await working
    return longest
