"""The laws of stores, on an SQLite file."""

from __future__ import annotations

from pathlib import Path

from store_laws import StoreLaws


class TestSqlite(StoreLaws):
    factory = "llmengine_sqlite.store:SqliteStore"

    def fresh_url(self, folder: Path) -> str:
        return f"sqlite:///{folder}/new folder/50%41 #é.db"
