"""Any store beside a dict: whatever is called, they agree."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from llmengine_core.interfaces.store import RowConflict, RowExists, Store
from llmengine_core.types.objects import Row

if TYPE_CHECKING:
    from store_laws import StoreLaws

_T = TypeVar("_T")

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
KEYS = st.one_of(
    st.sampled_from(
        ["", "a", "A", "aa", "ab", "a%", "a_", "b", "é", "e\u0301", "\uffff", "\U00010000", "\U0010ffff"]
    ),
    st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=4),
)
TABLES = st.sampled_from(["models", "Models"])
NUMBERS = st.integers() | st.integers(-(10**300), 10**300) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
VALUES = st.dictionaries(TEXT, JSON, max_size=3)


async def scanned(store: Store, table: str, prefix: str, limit: int) -> list[Row]:
    """All rows, page by page."""
    rows: list[Row] = []
    while page := await store.scan(table, prefix=prefix, after=rows[-1].key if rows else None, limit=limit):
        assert len(page) <= limit
        assert not rows or page[0].key.encode() > rows[-1].key.encode()
        rows += page
    return rows


PLACES = st.tuples(TABLES, KEYS)
ROWS: st.SearchStrategy[tuple[str, str]] = st.runner().flatmap(
    lambda machine: st.sampled_from(sorted(machine.model)) if machine.model else PLACES
)
"""Rows that there are."""


class StoreMachine(RuleBasedStateMachine):
    """A store beside a dict: whatever is called, they agree."""

    laws: ClassVar[StoreLaws]
    fresh_url: ClassVar[Callable[[], str]]

    def __init__(self) -> None:
        super().__init__()
        self.url = type(self).fresh_url()
        self.runner = asyncio.Runner()
        self.store = self.laws.opened(self.url)
        self.used = False
        self.model: dict[tuple[str, str], Row] = {}

    def run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        self.used = True
        return self.runner.run(coroutine)

    @initialize(places=st.lists(PLACES, min_size=2, max_size=5, unique=True), value=VALUES)
    def begin(self, places: list[tuple[str, str]], value: dict[str, Any]) -> None:
        for place in places:
            self.insert(place, value)

    @rule(place=PLACES | ROWS, value=VALUES)
    def insert(self, place: tuple[str, str], value: dict[str, Any]) -> None:
        row = Row(place[1], 1, value)
        inserting = self.store.insert(*place, value)
        if place in self.model:
            with pytest.raises(RowExists):
                self.run(inserting)
        else:
            self.model[place] = row
            assert self.run(inserting) == row

    @rule(place=PLACES | ROWS)
    def get(self, place: tuple[str, str]) -> None:
        assert self.run(self.store.get(*place)) == self.model.get(place)

    @rule(place=PLACES | ROWS, value=VALUES, off=st.sampled_from([0, 0, 0, 1, -1, 2**63, -(2**64)]))
    def replace(self, place: tuple[str, str], value: dict[str, Any], off: int) -> None:
        row = self.model.get(place)
        version = (row.version if row else 1) + off
        replacing = self.store.replace(*place, value, version=version)
        if row and not off:
            self.model[place] = Row(row.key, version + 1, value)
            assert self.run(replacing) == self.model[place]
        else:
            with pytest.raises(RowConflict):
                self.run(replacing)

    @rule(place=PLACES | ROWS, off=st.sampled_from([None, None, 0, 1, 2**63]))
    def delete(self, place: tuple[str, str], off: int | None) -> None:
        row = self.model.get(place)
        version = None if off is None else (row.version if row else 1) + off
        deleting = self.store.delete(*place, version=version)
        if row and off:
            with pytest.raises(RowConflict):
                self.run(deleting)
        else:
            self.model.pop(place, None)
            assert self.run(deleting) == (row is not None)

    @rule(
        table=TABLES,
        prefix=KEYS | KEYS.map(lambda key: key[:1]),
        after=st.none() | KEYS,
        limit=st.integers(1, 4),
    )
    def scan(self, table: str, prefix: str, after: str | None, limit: int) -> None:
        keys = sorted(
            (key for each, key in self.model if each == table and key.startswith(prefix)), key=str.encode
        )
        behind = [key for key in keys if after is None or key.encode() > after.encode()]
        found = self.run(self.store.scan(table, prefix=prefix, after=after, limit=limit))
        assert found == [self.model[table, key] for key in behind[:limit]]
        assert self.run(scanned(self.store, table, prefix, limit)) == [self.model[table, key] for key in keys]

    @precondition(lambda self: self.used)
    @rule()
    def reopen(self) -> None:
        self.run(self.store.aclose())
        self.run(self.store.aclose())
        self.store = self.laws.opened(self.url)
        self.used = False

    def teardown(self) -> None:
        with self.runner:
            for table in {table for table, _ in self.model}:
                self.scan(table, "", None, 3)
            self.run(self.store.aclose())
