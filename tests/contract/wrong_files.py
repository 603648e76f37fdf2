"""Stores in files that are wrong: where processes, what is killed and what is newer are concerned.

They stand apart from the contract, which the processes that use them need not import.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.contract.file_store import FileStore, Tables


class Unlocked(FileStore):
    """Nobody is kept out between reading and writing."""

    @contextmanager
    def locked(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        yield


class LockedInProcess(Unlocked):
    _lock = threading.Lock()

    @contextmanager
    def locked(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock:
            yield


class WritesLater(FileStore):
    """Changes are acknowledged, and written by and by."""

    pending: dict[str, Tables] = {}  # noqa: RUF012

    def read(self) -> Tables:
        return self.pending.get(str(self.path)) or super().read()

    def write(self, tables: Tables) -> None:
        path = str(self.path)
        if path not in self.pending:
            threading.Thread(target=self.later, args=(path,), daemon=True).start()
        self.pending[path] = tables

    def later(self, path: str) -> None:
        time.sleep(0.05)
        super().write(self.pending.pop(path))


class KnowsNoVersions(FileStore):
    def read(self) -> Tables:
        try:
            tables: Tables = json.loads(self.path.read_text())["tables"]
        except FileNotFoundError:
            return {}
        return tables
