"""Why SQLite refused, and what mends it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from llmengine_core.interfaces.store import StoreError

__all__ = ["explained"]

_MENDS = {
    sqlite3.SQLITE_BUSY: "another process keeps the write lock: find it with `fuser`, and end it or wait",
    sqlite3.SQLITE_LOCKED: "another process keeps the write lock: find it with `fuser`, and end it or wait",
    sqlite3.SQLITE_FULL: "free some space on its disk, or move the file to another",
    sqlite3.SQLITE_IOERR: "check the disk, its free space and the limit of file sizes (ulimit -f)",
    sqlite3.SQLITE_READONLY: "give the user that runs this the right to write the file and its folder",
    sqlite3.SQLITE_PERM: "give the user that runs this the right to write the file and its folder",
    sqlite3.SQLITE_CANTOPEN: "give the user that runs this the right to write the folder, or choose another path",
    sqlite3.SQLITE_NOTADB: "choose another path, or move the file away: a new one is made",
    sqlite3.SQLITE_CORRUPT: "put a copy back, or rescue its rows with `sqlite3 FILE .recover`",
    sqlite3.SQLITE_NOLFS: "move the file to a disk that takes larger ones",
    sqlite3.SQLITE_TOOBIG: "store less in the row; large content belongs into a storage",
}


def explained(error: sqlite3.Error | OSError, path: Path) -> StoreError:
    """The error to raise for one of SQLite or the operating system: where, why, the mend."""
    if isinstance(error, OSError):
        mend = "give the user that runs this the right to write there, or choose another path"
        return StoreError(f"can't use {path}: {error.strerror or error}; {mend}")
    code = getattr(error, "sqlite_errorcode", 0) or 0
    name = getattr(error, "sqlite_errorname", "no code")
    mend = _MENDS.get(code & 0xFF, "see to the file; a new one is made where it is moved away")
    return StoreError(f"can't use {path}: {error} ({name}); {mend}")
