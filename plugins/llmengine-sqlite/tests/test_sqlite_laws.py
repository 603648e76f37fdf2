"""The laws of stores, on an SQLite file."""

from __future__ import annotations

from pathlib import Path

from llmengine_core.testing import StoreContract
from llmengine_sqlite.files import open_file
from llmengine_sqlite.migrations import MIGRATIONS


class TestSqlite(StoreContract):
    store = "sqlite"

    def newer_url(self, folder: Path) -> str:
        open_file(folder / "s.db", [*MIGRATIONS, ["ALTER TABLE rows ADD COLUMN owner TEXT"]]).close()
        return f"sqlite:///{folder}/s.db"
