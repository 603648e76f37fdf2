"""Storages that go wrong in what lies there already, and read-only ones that are not."""

from __future__ import annotations

import posixpath
from collections.abc import AsyncGenerator, AsyncIterable
from dataclasses import replace
from typing import Any

from tests.contract.mutants import Mutant
from tests.contract.mutants.storages import ReadOnlyStorage, storage_mutant

from llmengine_core.testing.memory_storage import MemoryStorage
from llmengine_core.types.objects import ObjectMeta

Content = bytes | AsyncIterable[bytes]


class WritesAnyway(ReadOnlyStorage):
    async def put(self, key: str, content: Content, **given: Any) -> ObjectMeta:
        return await MemoryStorage.put(self, key, content, **given)


class LeavesOutWriting(ReadOnlyStorage):
    async def copy(self, source: str, target: str) -> ObjectMeta:
        raise NotImplementedError


class ForgetsTheRange(ReadOnlyStorage):
    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        async for piece in super().get(key, start=start):
            yield piece


class GuessesSizes(ReadOnlyStorage):
    async def head(self, key: str) -> ObjectMeta:
        return replace(await super().head(key), size=0)


class FoldersFirst(ReadOnlyStorage):
    async def list(self, prefix: str = "", *, after: str | None = None) -> AsyncGenerator[ObjectMeta, None]:
        found = [each async for each in super().list(prefix, after=after)]
        for each in sorted(found, key=lambda each: ("/" not in each.key, each.key)):
            yield each


class NothingForMissing(ReadOnlyStorage):
    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        self._check(key)
        if key in self._objects:
            async for piece in super().get(key, start=start, stop=stop):
                yield piece


class TidiesKeys(ReadOnlyStorage):
    def _check(self, key: str) -> None:
        if posixpath.normpath(f"/{key}").strip("/") not in self._objects:
            super()._check(key)

    def _found(self, key: str) -> Any:
        return super()._found(posixpath.normpath(f"/{key}").strip("/") or key)


class LoadsTheWhole(ReadOnlyStorage):
    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        whole = bytearray(self._found(key).content)
        self._check(key)
        for at in range(start, len(whole) if stop is None else min(stop, len(whole)), 1 << 20):
            yield bytes(whole[at : min(at + (1 << 20), len(whole) if stop is None else stop)])


MUTANTS: list[Mutant] = [
    storage_mutant(
        "writes_anyway",
        "what is said to be read-only is written",
        WritesAnyway,
        "test_a_read_only_storage_refuses_to_be_written",
    ),
    storage_mutant(
        "leaves_out_writing",
        "copy of a read-only storage raises NotImplementedError",
        LeavesOutWriting,
        "test_a_read_only_storage_refuses_to_be_written",
    ),
    storage_mutant(
        "forgets_the_range",
        "the end of a range of what lies there is forgotten",
        ForgetsTheRange,
        "test_what_lies_there_is_read_and_described",
    ),
    storage_mutant(
        "guesses_sizes",
        "what lies there is described with no size",
        GuessesSizes,
        "test_what_lies_there_is_read_and_described",
        "test_what_lies_there_is_listed_in_order",
    ),
    storage_mutant(
        "reads_folders_first",
        "what lies in folders is listed first",
        FoldersFirst,
        "test_what_lies_there_is_listed_in_order",
    ),
    storage_mutant(
        "nothing_for_missing",
        "what doesn't lie there is read as nothing",
        NothingForMissing,
        "test_what_does_not_lie_there_is_missing",
    ),
    storage_mutant(
        "tidies_keys",
        "'a//b' reads what lies under 'a/b'",
        TidiesKeys,
        "test_what_is_no_key_reads_nothing",
    ),
    storage_mutant(
        "loads_the_whole",
        "an object is loaded as a whole before it is streamed",
        LoadsTheWhole,
        "test_reading_takes_bounded_memory",
    ),
]
