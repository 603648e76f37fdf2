"""What every store promises: the ground that its laws stand on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from llmengine_core.interfaces.store import Store
from llmengine_core.testing import strategies
from llmengine_core.testing.contracts.placed import PlacedGround
from llmengine_core.testing.contracts.stores.machine import Step, programs
from llmengine_core.types.declarations import StoreInfo

__all__ = ["MIGRATIONS", "ODD", "StoreGround"]

MIGRATIONS = "migrations"
"""The level of what a newer version has written: a store's author says how to make that."""
ODD = (
    "", "a", "A", "aa", "ab", "a%", "a_", "a%b", "a_b", "axb", "b", "a/b", "a b", "a ", "é", "e\u0301", "ß", "ss",
    "a\uffff", "a\U00010000", "\uffff", "\U00010000", "\U0010ffff", "'", '"; DROP TABLE rows; --', "\\", "1", "01",
    "10", "9", "None", "null", " ",
)  # fmt: skip
"""Keys that confuse patterns, orders, collations and quoting."""
_texts = strategies.texts(max_size=8)
_numbers = st.integers() | st.integers(-(10**300), 10**300) | st.floats(allow_nan=False, allow_infinity=False)
_json: SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | _numbers | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=8,
)


class StoreGround(PlacedGround):
    """How laws get stores."""

    kind = "store"
    store: ClassVar[str]
    """Its name, as in ``StoreInfo``."""
    table: ClassVar[SearchStrategy[str]] = st.sampled_from(
        ["models", "Models", "model", "_", "a_b", "select"]
    )
    """Tables that laws use; besides them they use short ones of ASCII letters."""
    key: ClassVar[SearchStrategy[str]] = st.sampled_from(ODD) | st.text(
        st.characters(exclude_categories=["Cc", "Cs"]), max_size=5
    )
    """Keys that laws use; besides them they use short ones of ASCII letters, digits and "/"."""
    value: ClassVar[SearchStrategy[dict[str, Any]]] = st.dictionaries(_texts, _json, max_size=3)
    """Values that laws use, and must get back."""
    program: ClassVar[SearchStrategy[list[Step]]]
    """Calls that follow each other: made of such tables, keys and values."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        cls.program = programs(cls.table, cls.key, cls.value)
        super().__init_subclass__(**kwargs)

    @classmethod
    def levels(cls) -> frozenset[str]:
        return super().levels() | {MIGRATIONS}

    @classmethod
    def info(cls) -> StoreInfo:
        return cls.named(cls.registry().stores, cls.store)

    def newer_url(self, folder: Path) -> str | None:
        """The URL of a store that a newer version has written, in an empty folder; None where none can be made here."""
        return None

    @asynccontextmanager
    async def at(self, url: str) -> AsyncIterator[Store]:
        """A store of its own at a URL, closed in the end."""
        store: Store = self.made(url)
        try:
            yield store
        finally:
            await store.aclose()

    @asynccontextmanager
    async def empty(self) -> AsyncIterator[Store]:
        """An empty store."""
        async with self.fresh() as place, self.at(place.url) as store:
            yield store
