"""The shape of the file, as the steps that lead to it.

A step, once released, never changes; a new shape is one more step. The file's ``user_version`` counts the
steps that it has been through.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from llmengine_core.interfaces.store import StoreError
from llmengine_sqlite.transactions import transaction

__all__ = ["MIGRATIONS", "Migration", "check_version", "migrate", "recognize"]

Migration = Sequence[str]
"""Statements that run together in one transaction."""

_APPLICATION = 0x4C4C4D45
"""What marks a file as ours: "LLME"."""

MIGRATIONS: tuple[Migration, ...] = (
    (
        f"PRAGMA application_id = {_APPLICATION}",
        # Text compares as its UTF-8 bytes, which is the order of `scan`.
        """
        CREATE TABLE rows (
            "table" TEXT NOT NULL,
            key TEXT NOT NULL,
            version INTEGER NOT NULL,
            value TEXT NOT NULL,
            PRIMARY KEY ("table", key)
        ) WITHOUT ROWID
        """,
    ),
)


def recognize(connection: sqlite3.Connection, path: Path, known: int) -> int:
    """The file's version, 0 where it is new; a ``StoreError`` where it isn't ours to write."""
    version = check_version(connection, path, known)
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application != _APPLICATION and connection.execute("SELECT 1 FROM sqlite_master").fetchone():
        raise StoreError(
            f"can't use {path}: it is a database of another program "
            f"(application_id {application}, not {_APPLICATION}); choose another path"
        )
    return version


def check_version(connection: sqlite3.Connection, path: Path, known: int) -> int:
    """The file's version; a ``StoreError`` where it is newer than ``known``."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > known:
        raise StoreError(
            f"can't use {path}: it has version {version}, written by a newer llmengine-sqlite; this one knows "
            f"versions up to {known}; upgrade it (pip install --upgrade llmengine-sqlite), or choose another path"
        )
    return int(version)


def migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[Migration]) -> None:
    """Bring the file to the last version. Of several processes at once, one does and the others wait."""
    with transaction(connection, "EXCLUSIVE"):
        done = recognize(connection, path, len(migrations))
        for migration in migrations[done:]:
            for statement in migration:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
