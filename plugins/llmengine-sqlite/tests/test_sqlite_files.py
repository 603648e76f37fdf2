"""Files that are older, newer, somebody else's or broken, and disks that refuse."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlite_child

from llmengine_core.interfaces.store import StoreError
from llmengine_core.types.objects import Row
from llmengine_sqlite import files
from llmengine_sqlite.files import file_of, open_file
from llmengine_sqlite.migrations import MIGRATIONS
from llmengine_sqlite.store import SqliteStore

MOUNT = 'mount -t tmpfs -o size=2m none "$0" && exec "$@"'
LATER = (
    *MIGRATIONS,
    ("ALTER TABLE rows ADD COLUMN note TEXT NOT NULL DEFAULT 'none'", "UPDATE rows SET note = key"),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


def used(path: Path) -> Row | None:
    """Open the file, look up a row, close it."""

    async def use() -> Row | None:
        store = SqliteStore(f"sqlite:///{path}")
        try:
            return await store.get("models", "k")
        finally:
            await store.aclose()

    return asyncio.run(use())


def write_by_hand(path: Path) -> None:
    """A file as the first migration makes it, with a row."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in MIGRATIONS[0]:
            connection.execute(statement)
        connection.execute("PRAGMA user_version = 1")
        connection.execute("""INSERT INTO rows VALUES ('models', 'k', 7, '{"a":1}')""")


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        return int(found)


def test_the_first_migration_never_changes(path: Path) -> None:
    write_by_hand(path)
    assert used(path) == Row("k", 7, {"a": 1})
    with closing(sqlite3.connect(path)) as connection:
        [(schema,)] = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")
    assert " ".join(schema.split()) == (
        'CREATE TABLE rows ( "table" TEXT NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL, '
        'value TEXT NOT NULL, PRIMARY KEY ("table", key) ) WITHOUT ROWID'
    )


def test_an_older_file_is_brought_up_to_date_and_keeps_its_rows(path: Path) -> None:
    write_by_hand(path)
    with closing(open_file(path, LATER)) as connection:
        assert connection.execute("SELECT * FROM rows").fetchall() == [("models", "k", 7, '{"a":1}', "k")]
    assert version(path) == 2


def test_a_migration_that_fails_changes_nothing(path: Path) -> None:
    write_by_hand(path)
    for broken in ("SELECT nonsense", "DROP TABLE nowhere"):
        with pytest.raises(StoreError, match=r"can't use .*state.db"):
            open_file(path, (*LATER, ("DELETE FROM rows", broken)))
    assert version(path) == 1
    assert used(path) == Row("k", 7, {"a": 1})


def test_a_fresh_file_goes_through_all_migrations(path: Path) -> None:
    with closing(open_file(path, LATER)) as connection:
        connection.execute("INSERT INTO rows VALUES ('t', 'k', 1, '{}', 'note')")
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert version(path) == 2


def test_a_fresh_file_that_another_process_holds_is_waited_for(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_by_hand(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as locking:
        locking.execute("BEGIN IMMEDIATE")  # SQLite refuses to change the journal beside it, without waiting
        waits: list[float] = []

        def wait(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 3:
                locking.execute("COMMIT")

        monkeypatch.setattr(files, "time", SimpleNamespace(sleep=wait, monotonic=time.monotonic))
        open_file(path, LATER).close()
    assert len(waits) == 3
    assert version(path) == 2


def test_a_fresh_file_that_another_process_keeps_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_by_hand(path)
    monkeypatch.setattr(files, "BUSY_SECONDS", 0.05)
    with closing(sqlite3.connect(path, isolation_level=None)) as locking:
        locking.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match=r"SQLITE_BUSY.*another process keeps the write lock"):
            open_file(path, LATER)
    assert used(path) == Row("k", 7, {"a": 1})


def test_a_newer_file_is_refused_untouched(path: Path) -> None:
    open_file(path, LATER).close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"has version 2.*knows versions up to 1.*pip install --upgrade"):
        used(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


async def test_a_file_that_another_process_makes_newer_is_refused_from_then_on(path: Path) -> None:
    store = SqliteStore(f"sqlite:///{path}")
    await store.insert("models", "k", {})
    (await asyncio.to_thread(open_file, path, LATER)).close()
    with pytest.raises(StoreError, match="has version 2"):
        await store.get("models", "k")
    with pytest.raises(StoreError, match="has version 2"):
        await store.insert("models", "l", {})
    await store.aclose()


def test_a_database_of_another_program_is_refused_untouched(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE bookmarks (url)")
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"a database of another program.*choose another path"):
        used(path)
    assert path.read_bytes() == before


def test_an_empty_file_is_a_fresh_store(path: Path) -> None:
    path.write_bytes(b"")
    assert used(path) is None
    assert version(path) == len(MIGRATIONS)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            b"no database at all, but long enough to be looked at" * 100,
            "file is not a database.*choose another path",
        ),
        (b"SQLite format 3\x00" + b"\xff" * 4096, "not a database|malformed"),
    ],
)
def test_a_file_that_is_no_database_is_refused_untouched(path: Path, content: bytes, reason: str) -> None:
    path.write_bytes(content)
    with pytest.raises(StoreError, match=reason):
        used(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("damage", ["overwritten", "truncated"])
def test_a_corrupt_file_is_told_with_the_mend(path: Path, damage: str) -> None:
    async def use() -> list[Row]:
        store = SqliteStore(f"sqlite:///{path}")
        try:
            return await store.scan("t")
        finally:
            await store.aclose()

    with closing(open_file(path)) as connection:
        connection.executemany(
            "INSERT INTO rows VALUES ('t', ?, 1, ?)",
            [(str(each), '{"a":"%s"}' % ("x" * 500)) for each in range(200)],
        )
    size = path.stat().st_size
    with path.open("r+b") as file:
        if damage == "truncated":
            file.truncate(size // 2)
        else:
            file.seek(4096)
            file.write(b"\xa5" * (size - 8192))
    with pytest.raises(StoreError, match=r"malformed \(SQLITE_CORRUPT\w*\); put a copy back, or rescue"):
        asyncio.run(use())


def test_a_row_that_is_no_json_is_told(path: Path) -> None:
    for text in ("nonsense", "[]", "1"):
        path.unlink(missing_ok=True)
        write_by_hand(path)
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("UPDATE rows SET value = ?", (text,))
        with pytest.raises(StoreError, match="a row holds no JSON"):
            used(path)


def test_a_lock_that_another_process_keeps_is_told_with_the_mend(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_by_hand(path)
    monkeypatch.setattr(files, "BUSY_SECONDS", 0.05)

    async def use() -> None:
        store = SqliteStore(f"sqlite:///{path}")
        with pytest.raises(StoreError, match=r"database is locked \(SQLITE_BUSY\); another process.*fuser"):
            await store.insert("models", "l", {})
        locking.execute("ROLLBACK")
        assert (await store.insert("models", "l", {})).version == 1
        await store.aclose()

    with closing(sqlite3.connect(path, isolation_level=None)) as locking:
        locking.execute("BEGIN IMMEDIATE")
        asyncio.run(use())


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///a/",
        "sqlite:///a?mode=ro",
        "sqlite:a",
        "/a.db",
    ],
)
def test_urls_that_name_no_file_are_refused(url: str) -> None:
    with pytest.raises(StoreError, match="allowed are sqlite:////absolute/path"):
        SqliteStore(url)


def test_relative_urls_start_where_the_process_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert file_of("sqlite:///sub/state.db") == tmp_path / "sub" / "state.db"
    assert file_of(f"sqlite:///{tmp_path}/a %41#b.db") == tmp_path / "a %41#b.db"


# Disks that refuse, for real.


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that any user can reach."""
    with tempfile.TemporaryDirectory(prefix="llmengine-") as found:
        Path(found).chmod(0o755)
        yield Path(found)


def namespace(folder: Path) -> list[str] | None:
    """The command prefix that mounts a disk of 2 MiB over a folder; None where that isn't permitted."""
    for options in ("-rm", "-m"):
        prefix = ["unshare", options, "sh", "-c", MOUNT, str(folder)]
        try:
            if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0:
                return prefix
        except FileNotFoundError:
            break
    return None


def told(task: str, path: Path, prefix: list[str] | None = None) -> str:
    """What a process says about its task."""
    command = [*(prefix or []), sys.executable, sqlite_child.__file__, task, f"sqlite:///{path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_file_that_grows_too_large_keeps_what_was_acknowledged(folder: Path) -> None:
    assert "check the disk, its free space and the limit of file sizes (ulimit -f)" in told(
        "limited", folder / "s.db"
    )


@pytest.mark.parametrize("_", ["small disk"] if namespace(Path(tempfile.gettempdir())) else [])
def test_a_full_disk_keeps_what_was_acknowledged(folder: Path, _: str) -> None:
    found = told("full", folder / "s.db", namespace(folder))
    assert found.startswith(
        f"can't use {folder}/s.db: database or disk is full (SQLITE_FULL); free some space"
    )


def test_a_read_only_folder_is_told(folder: Path) -> None:
    folder.chmod(0o555)
    found = told("read_only", folder / "s.db")
    assert found.startswith(
        f"can't use {folder}/s.db: unable to open database file (SQLITE_CANTOPEN); give the user"
    )
    found = told("read_only", folder / "new" / "s.db")
    assert found.startswith(f"can't use {folder}/new/s.db: Permission denied; give the user")


def test_a_read_only_file_is_told(folder: Path) -> None:
    open_file(folder / "s.db").close()
    for path in folder.iterdir():
        path.chmod(0o444)
    folder.chmod(0o555)
    assert "; give the user that runs this the right to write" in told("read_only", folder / "s.db")


def test_a_folder_in_the_files_place_is_told(tmp_path: Path) -> None:
    os.mkdir(tmp_path / "s.db")
    assert "unable to open database file (SQLITE_CANTOPEN" in told("refused", tmp_path / "s.db")


def test_those_who_make_a_file_at_the_same_time_all_open_it(tmp_path: Path) -> None:
    at_once = 4
    gate = threading.Barrier(at_once)

    def make(path: Path) -> None:
        gate.wait()
        open_file(path).close()

    with ThreadPoolExecutor(at_once) as threads:
        for number in range(60):
            made = [threads.submit(make, tmp_path / f"{number}.db") for _ in range(at_once)]
            for each in made:
                each.result()
