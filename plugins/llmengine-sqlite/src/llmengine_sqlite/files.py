"""The file: found by its URL, opened, brought up to date."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

from llmengine_core.interfaces.store import StoreError
from llmengine_sqlite.migrations import MIGRATIONS, Migration, migrate, recognize
from llmengine_sqlite.reasons import explained
from llmengine_sqlite.transactions import transaction

__all__ = ["BUSY_SECONDS", "file_of", "open_file"]

_SCHEME = "sqlite:///"

BUSY_SECONDS = 15.0
"""How long a call waits while other processes write."""


def file_of(url: str) -> Path:
    """The file that a URL names: ``sqlite:////absolute/path.db`` or ``sqlite:///relative/path.db``.

    The path is taken as it stands, as SQLAlchemy does; a relative one starts from the folder that the process
    is in now.
    """
    path = url.removeprefix(_SCHEME)
    if path == url or path in {"", ":memory:"} or path.endswith("/") or "?" in path or "\0" in path:
        raise StoreError(
            f"{url!r} names no file; allowed are {_SCHEME}/absolute/path.db and {_SCHEME}relative/path.db, "
            'without options ("?")'
        )
    return Path(path) if path.startswith("/") else Path.cwd() / path


def open_file(path: Path, migrations: Sequence[Migration] = MIGRATIONS) -> sqlite3.Connection:
    """A connection to the file, which is made where there is none. Blocks.

    Nothing of a file that isn't ours, or is newer, is changed.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            with transaction(connection, "DEFERRED"):  # one look: another process may be making the file
                version = recognize(connection, path, len(migrations))
            if version < len(migrations):
                _write_ahead(connection)
                migrate(connection, path, migrations)
                _sync_folder(path.parent)
            connection.execute("PRAGMA synchronous = FULL")
        except BaseException:
            connection.close()
            raise
    except (sqlite3.Error, OSError) as error:
        raise explained(error, path) from error
    return connection


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Let readers and a writer go on at the same time; the file remembers it.

    SQLite refuses this at once, without waiting, while another process does it too.
    """
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
