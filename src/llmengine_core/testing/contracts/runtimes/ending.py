"""How replicas end: asked to, cancelled, by themselves, or with the process that started them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess  # noqa: TID251 - see _Host
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

from llmengine_core.interfaces.runtime import Replica
from llmengine_core.testing.contracts.runtimes.ground import (
    SERVE,
    RuntimeGround,
    Step,
    together,
)
from llmengine_core.testing.laws import law
from llmengine_core.testing.lives import gate
from llmengine_core.types.launch import Exit

__all__ = ["EndingLaws"]

AT_ONCE = 1.0
"""Seconds: what doesn't wait is far below, also on a machine that is busy."""
A_WHILE = 0.1
"""Seconds in which a replica that nobody ended doesn't end."""
STUBBORN: tuple[Step, ...] = (("deaf",), ("descend",))
"""A child that can only be killed, with a descendant in another group that is like it."""


class EndingLaws(RuntimeGround):
    """Laws on ``Replica.wait``, ``aclose`` and ``close_now``, and on starts that are given up."""

    @law()
    async def test_a_replica_runs_until_it_is_ended(self) -> None:
        """A replica's input stays open and it runs, until somebody ends it."""
        async with self.replica() as (replica, _):
            await self.status(replica.endpoint)
            waiting = asyncio.ensure_future(replica.wait())
            early, _ = await asyncio.wait({waiting}, timeout=A_WHILE)
            waiting.cancel()
            assert not early, f"a replica that nobody ended has ended: {await replica.wait()}"
            assert await self.status(replica.endpoint) == 200, "a replica answers no more that nobody ended"

    @law()
    async def test_every_caller_of_wait_is_told_the_end(self) -> None:
        """wait() tells any number of callers how the child ended, before and after; one of them may be cancelled."""
        words = "fatal: the device was lost"
        for step, expected in (
            (("leave", 3), (3, None)),
            (("die", int(signal.SIGKILL)), (None, int(signal.SIGKILL))),
        ):
            async with self.a_life() as life:
                path, opener = await asyncio.to_thread(gate, life.path.parent)
                try:
                    steps: tuple[Step, ...] = (("ready", {}), ("await_word", str(path)), ("log", words), step)
                    replica = await self.start(self.runtime_given, self.spec(life, *steps))
                    waiting = [asyncio.ensure_future(replica.wait()) for _ in range(3)]
                    await asyncio.sleep(0)
                    waiting[0].cancel()
                    await asyncio.to_thread(os.write, opener, b".")
                    ends = [await self.told(each) for each in waiting[1:]]
                    ends.append(await self.told(replica.wait()))
                    await self.ended(replica)
                finally:
                    await asyncio.to_thread(os.close, opener)
            assert len(set(ends)) == 1, f"several callers of wait() were told different ends: {ends}"
            assert (ends[0].code, ends[0].signal) == expected, (
                f"the child did {step}; wait() told {ends[0]!r}, expected code and signal {expected}"
            )
            assert words in ends[0].reason, (
                f"the child's last words were {words!r}; wait() gives the reason {ends[0].reason!r}"
            )

    @law()
    async def test_closing_ends_the_child_and_its_descendants(self) -> None:
        """aclose() ends a replica and all that it started within 10 s, also those who won't be asked."""
        async with self.a_life() as life:
            replica = await self.start(
                self.runtime_given, self.spec(life, *STUBBORN, ("ready", {}), ("hang",))
            )
            await self.ended(replica, "a replica that ignores SIGTERM, with a descendant that does")
            assert await life.over(0), (
                "aclose() returned while something that the replica had started still ran"
            )
            end = await self.told(replica.wait())
        assert end.code != 0, f"the child had to be killed; wait() says {end!r}"

    @law()
    async def test_closing_a_replica_is_idempotent(self) -> None:
        """aclose() may be called at once by several, and again; then nothing answers and no socket is left."""
        async with self.a_life() as life:
            replica = await self.start(self.runtime_given, self.spec(life, *SERVE))
            await asyncio.gather(self.ended(replica), self.ended(replica))
            await self.ended(replica, "a replica that has ended")
            await self.told(replica.wait())
            await self.gone(life, "aclose()")
            try:
                status = await self.status(replica.endpoint)
            except Exception:
                status = 0
            assert not status, f"a replica that was ended answered {status} at {replica.endpoint.address}"
            kind, _, path = replica.endpoint.address.partition(":")
            left = kind == "unix" and await asyncio.to_thread(os.path.lexists, path)
            assert not left, f"the socket {path} of a replica that was ended is still there"

    @law()
    async def test_closing_the_runtime_ends_everything(self) -> None:
        """Runtime.aclose() ends every replica, also one that is still starting; it is idempotent."""
        async with self.own() as runtime, self.a_life() as ready, self.a_life() as loading:
            replica = await self.start(runtime, self.spec(ready, *SERVE))
            starting = asyncio.ensure_future(runtime.start(self.spec(loading, ("hang",))))
            assert await loading.begun(1, self.starting), "the program did not run"
            try:
                async with asyncio.timeout(self.grace + self.margin):
                    await asyncio.gather(runtime.aclose(), runtime.aclose())
                    await runtime.aclose()
            except TimeoutError:
                raise AssertionError(
                    f"Runtime.aclose() did not return within {self.grace + self.margin:g} s"
                ) from None
            await self.gone(ready, "Runtime.aclose()")
            await self.gone(loading, "Runtime.aclose() while it was starting")
            await self.told(replica.wait())
            done, _ = await asyncio.wait({starting}, timeout=self.margin)
            starting.cancel()
            assert done, "start() of a child that Runtime.aclose() had ended did not return"
            assert starting.cancelled() or starting.exception() is not None, (
                "start() gave a replica that Runtime.aclose() had ended"
            )

    @law()
    async def test_close_now_lets_go_without_waiting(self) -> None:
        """close_now() returns at once, needs no loop and no thread, and every replica ends."""
        async with self.own() as runtime, self.a_life() as one, self.a_life() as two:
            await together(
                self.start(runtime, self.spec(one, *STUBBORN, ("ready", {}), ("hang",))),
                self.start(runtime, self.spec(two, *SERVE)),
            )
            seconds, started = await asyncio.to_thread(_timed, runtime.close_now)
            assert seconds < AT_ONCE, f"close_now() took {seconds:.1f} s: it waits for something"
            assert not started, f"close_now() started threads, which can't be at interpreter exit: {started}"
            await self.gone(two, "close_now()")
            await self.gone(one, "close_now() of a replica that won't be asked")

    # -- starts that are given up ----------------------------------------------------------------------------

    @law()
    async def test_cancelling_a_start_ends_the_child(self) -> None:
        """Who gives up a start gets away at once, and the child that isn't ready ends with all that it started."""
        async with self.a_life() as life:
            starting = asyncio.ensure_future(
                self.runtime_given.start(self.spec(life, ("descend",), ("beat",), ("hang",)))
            )
            assert await life.begun(3, self.starting), "the program did not run"
            starting.cancel()
            done, _ = await asyncio.wait({starting}, timeout=self.grace + self.margin)
            assert done, f"start() did not return within {self.grace + self.margin:g} s of its cancellation"
            assert starting.cancelled(), f"start() was cancelled and gave {_outcome(starting)} instead"
            await self.gone(life, "a start was cancelled")

    @law()
    async def test_cancelling_a_start_anywhere_leaves_nothing(self) -> None:
        """A start can be given up at any moment: once the runtime is closed, nothing of it is left."""
        async with self.own() as runtime, self.a_life() as life:
            steps, finished = 0, False
            while not finished:
                starting = asyncio.ensure_future(runtime.start(self.spec(life, ("ready", {}))))
                for _ in range(steps):
                    await asyncio.sleep(0)
                    if finished := starting.done():
                        break
                starting.cancel()
                with suppress(asyncio.CancelledError):
                    await starting
                steps = steps * 3 + 1
            await runtime.aclose()
            assert await life.over(self.margin), (
                "a child whose start was cancelled is there after the runtime's end"
            )

    # -- the end of this process -----------------------------------------------------------------------------

    @law()
    async def test_nothing_is_left_when_this_process_is_killed(self) -> None:
        """Replicas end with the process that started them, also when that is killed with SIGKILL."""
        async with self.a_life() as life:
            spec = self.spec(life, ("descend",), ("ready", {}), ("beat",), ("hang",))
            order = {
                "path": sys.path,
                "factory": await asyncio.to_thread(self.factory),
                "home": str(life.path.parent / "home"),
                "argv": spec.argv,
                "document": dict(spec.document),
            }
            process = await asyncio.to_thread(_Host, json.dumps(order))
            try:
                begun = await life.begun(3, self.starting)
            finally:
                said = await asyncio.to_thread(process.kill)
            assert begun, f"a process with a runtime of its own did not start a replica: {said}"
            await self.gone(life, "the process that had started it was killed with SIGKILL")

    async def told(self, waiting: object) -> Exit:
        """What ``wait`` tells of a replica that has ended."""
        try:
            async with asyncio.timeout(self.margin):
                found: Exit = await waiting  # type: ignore[misc]
        except TimeoutError:
            raise AssertionError(
                f"wait() told nothing within {self.margin:g} s of a replica that has ended"
            ) from None
        return found


class _Host:
    """A process that runs a runtime of its own, under nobody who would clean up after it."""

    def __init__(self, order: str) -> None:
        # Not under our supervisor, which would end what the runtime that is judged leaves behind.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by kill()
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parents[2] / "runtime_host.py")],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
        )
        assert self._process.stdin is not None, "it was asked for"
        self._stdin = self._process.stdin
        self._stdin.write(order.encode() + b"\n")
        self._stdin.flush()

    def kill(self) -> str:
        """End it as the system does when memory runs out; what it has said."""
        self._process.kill()
        self._process.wait()
        with suppress(OSError):
            self._stdin.close()
        with self._log:
            self._log.seek(0)
            return self._log.read().decode(errors="replace")[-2000:]


def _timed(call: object) -> tuple[float, list[str]]:
    """How long a call took, and the threads that it left running."""
    before = set(threading.enumerate())
    began = time.monotonic()
    call()  # type: ignore[operator]
    seconds = time.monotonic() - began
    return seconds, [thread.name for thread in threading.enumerate() if thread not in before]


def _outcome(task: asyncio.Future[Replica]) -> str:
    error = task.exception()
    return repr(error) if error is not None else repr(task.result())
