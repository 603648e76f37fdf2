"""What this plugin registers with llmengine."""

from __future__ import annotations

from llmengine_core.hookspecs import hookimpl
from llmengine_core.types.declarations import StoreInfo

__all__ = ["CONTRACT", "register_stores"]

CONTRACT = 1


@hookimpl
def register_stores() -> list[StoreInfo]:
    """Metadata in one SQLite file, by ``sqlite://`` URLs."""
    return [
        StoreInfo(
            name="sqlite",
            schemes=frozenset({"sqlite"}),
            factory="llmengine_sqlite.store:SqliteStore",
        )
    ]
