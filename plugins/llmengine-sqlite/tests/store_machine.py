"""Any store beside a dict: whatever is called, they agree."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from llmengine_core.interfaces.store import RowConflict, RowExists, Store, StoreError
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


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


NO_KEYS = ["a\0", "a\nb", "\x7f", "a\x85", "\ud800", "\ud83d\ude00", "x" * 513]
NO_TABLES = ["", "a-b", "a b", "a.b", "a1", '"', "models; DROP TABLE rows", "é", "a\n"]
NO_VALUES: list[Any] = [
    {"a": float("nan")},
    {"a": [float("-inf")]},
    {"a": "\ud800"},
    {"\udfff": 1},
    {"a": "\ud83d\ude00"},
    {1: "a"},
    {None: "a"},
    {"a": {2: 3}},
    {"a": (1, 2)},
    {"a": b"bytes"},
    {"a": {1, 2}},
    {"a": 10**5000},
    {"a": object()},
    {"a": nested(100_000)},
    [],
    "text",
]


async def scanned(store: Store, table: str, prefix: str, limit: int) -> list[Row]:
    """All rows, page by page."""
    rows: list[Row] = []
    while page := await store.scan(table, prefix=prefix, after=rows[-1].key if rows else None, limit=limit):
        assert len(page) <= limit
        assert not rows or page[0].key.encode() > rows[-1].key.encode()
        rows += page
    return rows


class StoreMachine(RuleBasedStateMachine):
    """A store beside a dict: whatever is called, they agree."""

    laws: ClassVar[StoreLaws]
    fresh_url: ClassVar[Callable[[], str]]

    def __init__(self) -> None:
        super().__init__()
        self.url = type(self).fresh_url()
        self.runner = asyncio.Runner()
        self.store = self.laws.opened(self.url)
        self.model: dict[tuple[str, str], Row] = {}

    def run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        return self.runner.run(coroutine)

    @rule(table=TABLES, key=KEYS, value=VALUES)
    def insert(self, table: str, key: str, value: dict[str, Any]) -> None:
        inserting = self.store.insert(table, key, value)
        if (table, key) in self.model:
            with pytest.raises(RowExists):
                self.run(inserting)
        else:
            self.model[table, key] = Row(key, 1, value)
            assert self.run(inserting) == Row(key, 1, value)

    @rule(table=TABLES, key=KEYS)
    def get(self, table: str, key: str) -> None:
        assert self.run(self.store.get(table, key)) == self.model.get((table, key))

    @rule(table=TABLES, key=KEYS, value=VALUES, off=st.sampled_from([0, 0, 0, 1, -1, 2**63, -(2**64)]))
    def replace(self, table: str, key: str, value: dict[str, Any], off: int) -> None:
        row = self.model.get((table, key))
        version = (row.version if row else 1) + off
        replacing = self.store.replace(table, key, value, version=version)
        if row and not off:
            self.model[table, key] = Row(key, version + 1, value)
            assert self.run(replacing) == self.model[table, key]
        else:
            with pytest.raises(RowConflict):
                self.run(replacing)

    @rule(table=TABLES, key=KEYS, off=st.sampled_from([None, None, 0, 1, 2**63]))
    def delete(self, table: str, key: str, off: int | None) -> None:
        row = self.model.get((table, key))
        version = None if off is None else (row.version if row else 1) + off
        deleting = self.store.delete(table, key, version=version)
        if row and off:
            with pytest.raises(RowConflict):
                self.run(deleting)
        else:
            self.model.pop((table, key), None)
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

    @rule(key=st.sampled_from(NO_KEYS))
    def refuse_key(self, key: str) -> None:
        for call in (self.store.insert, self.store.get, self.store.delete):
            with pytest.raises(StoreError):
                self.run(call("models", key, *([{}] if call == self.store.insert else [])))
        with pytest.raises(StoreError):
            self.run(self.store.replace("models", key, {}, version=1))

    @rule(table=st.sampled_from(NO_TABLES))
    def refuse_table(self, table: str) -> None:
        with pytest.raises(StoreError):
            self.run(self.store.insert(table, "k", {}))
        with pytest.raises(StoreError):
            self.run(self.store.scan(table))

    @rule(key=KEYS, number=st.integers(0, len(NO_VALUES) - 1))
    def refuse_value(self, key: str, number: int) -> None:
        value = NO_VALUES[number]
        with pytest.raises(StoreError):
            self.run(self.store.insert("models", key, value))
        with pytest.raises(StoreError):
            self.run(self.store.replace("models", key, value, version=1))

    @rule()
    def reopen(self) -> None:
        self.run(self.store.aclose())
        self.run(self.store.aclose())
        self.store = self.laws.opened(self.url)

    def teardown(self) -> None:
        with self.runner:
            for table in {table for table, _ in self.model}:
                self.scan(table, "", None, 3)
            self.run(self.store.aclose())
