"""Stores that are correct, but unlike those that anybody would think of: no law may be wrong about them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest
from tests.contract.mutants.stores import FileContract, MemoryContract

from llmengine_core.testing.memory_store import MemoryStore
from llmengine_core.testing.profiles import PROFILE_VARIABLE
from llmengine_core.types.objects import Row


class Slow(MemoryStore):
    """Every call takes its time; values can't be changed; keys of values are sorted; it works on when closed."""

    async def insert(self, table: str, key: str, value: Mapping[str, Any]) -> Row:
        await asyncio.sleep(0.004)
        return await super().insert(table, key, value)

    async def get(self, table: str, key: str) -> Row | None:
        found = await super().get(table, key)
        await asyncio.sleep(0.004)
        return found

    async def scan(
        self, table: str, *, prefix: str = "", after: str | None = None, limit: int = 1000
    ) -> list[Row]:
        await asyncio.sleep(0.004)
        return await super().scan(table, prefix=prefix, after=after, limit=min(limit, 10_000))

    def _row(self, place: tuple[str, str]) -> Row:
        row = super()._row(place)
        return Row(row.key, row.version, MappingProxyType(dict(sorted(row.value.items()))))

    async def aclose(self) -> None:
        await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def fewer_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless somebody asks for more."""
    if not os.environ.get(PROFILE_VARIABLE):
        monkeypatch.setenv(PROFILE_VARIABLE, "smoke")


class TestFile(FileContract):
    pass


class TestSlow(MemoryContract):
    store_type = Slow
