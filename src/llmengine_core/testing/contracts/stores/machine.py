"""Any store beside a dict: whatever is called, they agree.

A program is a list of steps, drawn by Hypothesis, that prints as the code that runs it again::

    asyncio.run(replay(lambda: SampleStore("sample://fresh"), [Insert("t", "a", {}), Delete("t", "a")]))
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from llmengine_core.interfaces.store import RowConflict, RowExists, Store
from llmengine_core.testing.profiles import current
from llmengine_core.types.objects import Row

__all__ = [
    "Delete",
    "Get",
    "Insert",
    "Reopen",
    "Replace",
    "Scan",
    "Step",
    "pages",
    "programs",
    "replay",
    "same",
]


def same(found: object, given: object) -> bool:
    """Whether two JSON values are equal and of equal types: 1 is neither 1.0 nor true."""
    if isinstance(given, dict) and hasattr(found, "keys"):
        other: dict[Any, Any] = dict(found)  # type: ignore[call-overload]
        return other.keys() == given.keys() and all(same(other[key], given[key]) for key in given)
    if isinstance(given, list) and isinstance(found, list):
        return len(found) == len(given) and all(map(same, found, given))
    return type(found) is type(given) and found == given


async def pages(store: Store, table: str, prefix: str = "", limit: int = 1000) -> list[Row]:
    """All rows, page by page."""
    rows: list[Row] = []
    while page := await store.scan(table, prefix=prefix, after=rows[-1].key if rows else None, limit=limit):
        assert len(page) <= limit, f"scan gave {len(page)} rows, and {limit} are the most"
        onward = not rows or page[0].key.encode() > rows[-1].key.encode()
        assert onward, f"the scan behind {rows[-1].key!r} began with {page[0].key!r}"
        rows += page
        await asyncio.sleep(0)  # others get their turn, also beside a store that never waits
    return rows


@dataclass
class Model:
    """What the store must hold."""

    store: Store
    opened: Callable[[], Store]
    rows: dict[tuple[str, str], Row] = field(default_factory=dict)

    def accept(self, table: str, row: Row, key: str, version: int, value: dict[str, Any], call: str) -> None:
        """Take a row that a call gave; it must be the one that is due."""
        self.check(row, Row(key, version, value), call)
        self.rows[table, key] = Row(key, version, value)

    def check(self, found: Row | None, due: Row | None, call: str) -> None:
        """Raise ``AssertionError`` unless a row is as it is due."""
        if found is not None and due is not None:
            alike = (found.key, found.version) == (due.key, due.version) and same(found.value, due.value)
        else:
            alike = found is due
        assert alike, f"{call} gave {found}, where {due} was due"


class Step(Protocol):
    """One call."""

    async def run(self, model: Model) -> None:
        """Make it; raises ``AssertionError`` where store and dict don't agree."""


@dataclass
class Insert:
    """``insert``."""

    table: str
    key: str
    value: dict[str, Any]

    async def run(self, model: Model) -> None:
        there = model.rows.get((self.table, self.key))
        try:
            row = await model.store.insert(self.table, self.key, self.value)
        except RowExists as error:
            if there is None:
                raise AssertionError(
                    f"there is no row {self.key!r} in {self.table}, and {error!r}"
                ) from error
            return
        assert there is None, f"insert replaced {there} by {row}"
        model.accept(self.table, row, self.key, 1, self.value, "insert")


@dataclass
class Get:
    """``get``."""

    table: str
    key: str

    async def run(self, model: Model) -> None:
        found = await model.store.get(self.table, self.key)
        model.check(found, model.rows.get((self.table, self.key)), f"get of {self.key!r} in {self.table}")


@dataclass
class Replace:
    """``replace``, with the version that is there, or one that is ``off``."""

    table: str
    key: str
    value: dict[str, Any]
    off: int = 0

    async def run(self, model: Model) -> None:
        there = model.rows.get((self.table, self.key))
        version = (there.version if there else 1) + self.off
        fits = there is not None and self.off == 0
        try:
            row = await model.store.replace(self.table, self.key, self.value, version=version)
        except RowConflict as error:
            if fits:
                raise AssertionError(f"there is {there}, and replacing it raised {error!r}") from error
            return
        assert fits, f"version {version} was replaced by {row}, where there was {there}"
        model.accept(self.table, row, self.key, version + 1, self.value, "replace")


@dataclass
class Delete:
    """``delete``, of any version where ``off`` is None."""

    table: str
    key: str
    off: int | None = None

    async def run(self, model: Model) -> None:
        there = model.rows.get((self.table, self.key))
        version = None if self.off is None else (there.version if there else 1) + self.off
        conflict = there is not None and bool(self.off)
        try:
            found = await model.store.delete(self.table, self.key, version=version)
        except RowConflict as error:
            if not conflict:
                raise AssertionError(f"deleting version {version} of {there} raised {error!r}") from error
            return
        assert not conflict, f"delete of version {version} gave {found}, where there was {there}"
        assert found == (there is not None), f"delete gave {found}, where there was {there}"
        model.rows.pop((self.table, self.key), None)


@dataclass
class Scan:
    """``scan``, and all pages of it."""

    table: str
    prefix: str = ""
    after: str | None = None
    limit: int = 1000

    async def run(self, model: Model) -> None:
        keys = (key for table, key in model.rows if table == self.table and key.startswith(self.prefix))
        due = [model.rows[self.table, key] for key in sorted(keys, key=str.encode)]
        behind = [row for row in due if self.after is None or row.key.encode() > self.after.encode()]
        found = await model.store.scan(self.table, prefix=self.prefix, after=self.after, limit=self.limit)
        self._check(model, found, behind[: self.limit])
        self._check(model, await pages(model.store, self.table, self.prefix, self.limit), due)

    def _check(self, model: Model, found: list[Row], due: list[Row]) -> None:
        names, wanted = [row.key for row in found], [row.key for row in due]
        assert names == wanted, f"{self} gave {names}, not {wanted}"
        for row, each in zip(found, due, strict=True):
            model.check(row, each, f"{self}")


@dataclass
class Reopen:
    """``aclose``, twice, and another store of the same URL."""

    async def run(self, model: Model) -> None:
        await model.store.aclose()
        await model.store.aclose()
        model.store = model.opened()


async def replay(opened: Callable[[], Store], steps: list[Step]) -> None:
    """Run a program; ``opened`` gives a store of one URL, at first an empty one."""
    model = Model(opened(), opened)
    try:
        for step in steps:
            await step.run(model)
        for table in sorted({table for table, _ in model.rows}):
            await Scan(table, limit=3).run(model)
    finally:
        await model.store.aclose()


@st.composite
def programs(
    draw: st.DrawFn,
    table: SearchStrategy[str],
    key: SearchStrategy[str],
    value: SearchStrategy[dict[str, Any]],
) -> list[Step]:
    """Programs on few rows, that meet each other."""
    keys = st.sampled_from(draw(st.lists(key, min_size=2, max_size=4, unique=True)))
    tables = st.sampled_from(draw(st.lists(table, min_size=1, max_size=2, unique=True)))
    off = st.sampled_from([0, 0, 0, 1, -1, 2**53, -(2**53)])
    step: SearchStrategy[Step] = st.one_of(
        st.builds(Insert, tables, keys, value),
        st.builds(Insert, tables, keys, value),
        st.builds(Get, tables, keys),
        st.builds(Replace, tables, keys, value, off),
        st.builds(Delete, tables, keys, st.none() | off),
        st.builds(Scan, tables, keys.map(lambda key: key[:1]), st.none() | keys, st.integers(1, 4)),
        st.builds(Reopen),
    )
    return draw(st.lists(step, max_size=current().steps))
