"""Threads that nobody waits for: what an executor promises, and that a program's end needs none of it."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import Future

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmengine_core.threads import DaemonThreads


@given(st.integers(1, 4), st.integers(0, 40))
def test_every_call_is_made_once_by_no_more_threads_than_allowed(most: int, calls: int) -> None:
    threads = DaemonThreads(most)
    seen = [future.result() for future in [threads.submit(threading.get_ident) for _ in range(calls)]]
    assert len(seen) == calls
    assert len(set(seen)) <= most
    threads.shutdown()


def test_calls_run_beside_each_other_up_to_the_limit() -> None:
    threads = DaemonThreads(3)
    together = threading.Barrier(3, timeout=30)
    for future in [threads.submit(together.wait) for _ in range(3)]:
        future.result()
    threads.shutdown()


def test_a_thread_that_is_free_is_used_again() -> None:
    threads = DaemonThreads()
    for _ in range(20):
        threads.submit(int).result()
        with threads._free:  # the thread says that it is free a moment after its result is there
            pass
    assert len(threads._own) == 1
    threads.shutdown()


def test_what_a_call_raises_arrives_and_the_thread_goes_on() -> None:
    threads = DaemonThreads(1)
    with pytest.raises(ZeroDivisionError):
        threads.submit(divmod, 1, 0).result()
    with pytest.raises(SystemExit):
        threads.submit(sys.exit).result()
    assert threads.submit(divmod, 7, 2).result() == (3, 1)
    threads.shutdown()


def test_a_call_that_was_cancelled_before_it_began_is_never_made() -> None:
    threads = DaemonThreads(1)
    begin = threading.Event()
    made: list[int] = []
    first = threads.submit(begin.wait)
    second: Future[None] = threads.submit(made.append, 1)
    assert second.cancel()
    begin.set()
    assert first.result()
    threads.shutdown()
    assert made == []


def test_shutdown_waits_for_the_calls_and_takes_no_more() -> None:
    threads = DaemonThreads(2)
    futures = [threads.submit(int, n) for n in range(10)]
    threads.shutdown()
    assert [future.result(timeout=0) for future in futures] == list(range(10))
    with pytest.raises(RuntimeError, match="after shutdown"):
        threads.submit(int)


def test_shutdown_can_cancel_the_calls_that_have_not_begun() -> None:
    threads = DaemonThreads(1)
    begun, end = threading.Event(), threading.Event()

    def first() -> bool:
        begun.set()
        return end.wait(30)

    running = threads.submit(first)
    waiting = [threads.submit(int) for _ in range(3)]
    begun.wait()
    threads.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in waiting)
    end.set()
    assert running.result()
    threads.shutdown()


PROGRAM = """
import sys, threading
from llmengine_core.threads import DaemonThreads
threads, ended = DaemonThreads(), threading.Event()
threads.submit(threading.Event().wait)  # never ends
threading._register_atexit(ended.set)
def late():
    ended.wait()
    print(threads.submit(divmod, 7, 2).result(), flush=True)
threading.Thread(target=late).start()
"""


def test_calls_are_made_after_the_main_thread_and_never_hold_the_interpreter_up() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True
    )
    assert (done.stdout, done.stderr) == ("(3, 1)\n", "")
