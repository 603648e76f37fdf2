"""Threads, loops, forks and ends: the connection is used by one, and an interpreter that ends waits for nothing."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlite_child

from llmengine_core.interfaces.store import StoreError
from llmengine_sqlite.files import BUSY_SECONDS, open_file
from llmengine_sqlite.store import SqliteStore


@contextmanager
def child(task: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, sqlite_child.__file__, task, f"sqlite:///{path}"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


def test_the_thread_starts_with_the_first_call_and_ends_with_the_store(path: Path) -> None:
    async def use() -> set[threading.Thread]:
        store = SqliteStore(f"sqlite:///{path}")
        before = set(threading.enumerate())
        assert await store.get("t", "k") is None
        started = set(threading.enumerate()) - before
        await store.aclose()
        return started

    [thread] = asyncio.run(use())
    thread.join()
    assert not path.with_name("state.db-wal").exists()


def test_one_store_serves_loop_after_loop(path: Path) -> None:
    store = SqliteStore(f"sqlite:///{path}")
    for number in range(3):
        asyncio.run(store.insert("t", str(number), {}))
    assert len(asyncio.run(store.scan("t"))) == 3
    asyncio.run(store.aclose())


def test_a_loop_that_ends_during_a_call_leaves_the_store_in_order(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, go = threading.Event(), threading.Event()

    def slowly(path: Path) -> sqlite3.Connection:
        began.set()
        go.wait()
        return open_file(path)

    async def leave() -> None:
        asyncio.ensure_future(store.insert("t", "left", {})).add_done_callback(lambda call: call.cancelled())
        await asyncio.to_thread(began.wait)

    monkeypatch.setattr("llmengine_sqlite.store.open_file", slowly)
    store = SqliteStore(f"sqlite:///{path}")
    asyncio.run(leave())
    go.set()
    assert asyncio.run(store.get("t", "left")) is not None
    asyncio.run(store.aclose())


async def test_cancelled_calls_hold_up_nobody(path: Path) -> None:
    (await asyncio.to_thread(open_file, path)).close()
    store = SqliteStore(f"sqlite:///{path}")
    with closing(sqlite3.connect(path, isolation_level=None)) as locking:
        locking.execute("BEGIN IMMEDIATE")
        waiting = [asyncio.ensure_future(store.insert("t", str(each), {})) for each in range(20)]
        await asyncio.sleep(0)
        for each in waiting:
            each.cancel()
        await asyncio.wait(waiting)
        assert all(each.cancelled() for each in waiting)
        locking.execute("COMMIT")
    await store.insert("t", "after", {})
    keys = {row.key for row in await store.scan("t")}
    assert {"after"} <= keys <= {"after", "0"}  # one had begun, the others never did
    await store.aclose()


def test_a_forked_process_opens_the_file_anew(path: Path) -> None:
    with child("forked", path) as process:
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "")


def test_an_interpreter_ends_with_calls_under_way(path: Path) -> None:
    for _ in range(5):
        path.unlink(missing_ok=True)
        with child("left_open", path) as process:
            out, err = process.communicate(timeout=30)
        assert (process.returncode, out, err) == (0, "k\n", "")
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert connection.execute("SELECT count(*) FROM rows WHERE key = 'k'").fetchone() == (1,)


def test_an_interpreter_ends_while_another_process_keeps_the_lock(path: Path) -> None:
    open_file(path).close()
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as locking,
        child("left_waiting", path) as process,
    ):
        locking.execute("BEGIN IMMEDIATE")
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        started = time.monotonic()
        _, err = process.communicate("\n", timeout=30)
        assert (process.returncode, err) == (0, "")
        assert time.monotonic() - started < BUSY_SECONDS / 2


async def test_a_closed_store_refuses(path: Path) -> None:
    store = SqliteStore(f"sqlite:///{path}")
    await store.aclose()
    with pytest.raises(StoreError, match="closed"):
        await store.get("t", "k")


async def test_what_may_not_be_stored_is_told_with_what_may(path: Path) -> None:
    store = SqliteStore(f"sqlite:///{path}")
    for table, key in (
        ("a-b", "k"),
        ("a1", "k"),
        ("é", "k"),
        ("t", "a\0"),
        ("t", "\ud800"),
        ("t", "x" * 513),
    ):
        for call in (store.get(table, key), store.delete(table, key), store.insert(table, key, {})):
            with pytest.raises(StoreError, match="allowed"):
                await call
    odd: list[Any] = [{"a": float("nan")}, {1: "a"}, {"a": (1, 2)}, {"a": b""}, [], "text"]
    for value in odd:
        with pytest.raises(StoreError, match="allowed are dicts"):
            await store.insert("t", "k", value)
    for limit in (0, -1, 10_001):
        with pytest.raises(StoreError, match="1 to 10,000"):
            await store.scan("t", limit=limit)
    for bound in ("\ud800", "a\udfff"):
        with pytest.raises(StoreError, match="half a character"):
            await store.scan("t", prefix=bound)
        with pytest.raises(StoreError, match="half a character"):
            await store.scan("t", after=bound)
    await store.aclose()
