"""Transactions: all of it, or nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

__all__ = ["transaction"]


@contextmanager
def transaction(
    connection: sqlite3.Connection, kind: Literal["DEFERRED", "IMMEDIATE", "EXCLUSIVE"]
) -> Iterator[None]:
    """Run a block in a transaction: "DEFERRED" to read, "IMMEDIATE" to write.

    A writer takes the lock before it reads: one that read first would be refused at once, without waiting,
    where another has written since.
    """
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk ends it by itself
            connection.execute("ROLLBACK")
        raise
