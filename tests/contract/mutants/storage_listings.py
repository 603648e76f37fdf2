"""Storages whose listings are of other objects, or in another order."""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import AsyncGenerator, AsyncIterable
from typing import Any

from tests.contract.mutants import Mutant
from tests.contract.mutants.storages import storage_mutant

from llmengine_core.testing.memory_storage import MemoryStorage
from llmengine_core.types.objects import ObjectMeta

Content = bytes | AsyncIterable[bytes]


async def whole(content: Content) -> bytes:
    return b"".join([piece async for piece in content]) if isinstance(content, AsyncIterable) else content


class Reordered(MemoryStorage):
    """Lists in another order than that of UTF-8 bytes."""

    def rank(self, key: str) -> Any:
        return key.encode()

    async def list(self, prefix: str = "", *, after: str | None = None) -> AsyncGenerator[ObjectMeta, None]:
        found = [each async for each in super().list(prefix, after=after)]
        for each in sorted(found, key=lambda each: self.rank(each.key)):
            yield each


class Utf16Order(Reordered):
    def rank(self, key: str) -> Any:
        return key.encode("utf-16-be")


class OrderWithoutCase(Reordered):
    def rank(self, key: str) -> Any:
        return key.casefold()


class FoldersFirst(Reordered):
    def rank(self, key: str) -> Any:
        return [part.encode() for part in key.split("/")]


class PrefixIsPattern(MemoryStorage):
    async def list(self, prefix: str = "", *, after: str | None = None) -> AsyncGenerator[ObjectMeta, None]:
        async for each in super().list("", after=after):
            fits = len(each.key) >= len(prefix) and all(
                one in (other, "_") for one, other in zip(prefix, each.key, strict=False)
            )
            if fits or ("%" in prefix and each.key.startswith(prefix.partition("%")[0])):
                yield each


class PrefixIsFolder(MemoryStorage):
    async def list(self, prefix: str = "", *, after: str | None = None) -> AsyncGenerator[ObjectMeta, None]:
        async for each in super().list(prefix, after=after):
            rest = each.key[len(prefix) :]
            if not prefix or prefix.endswith("/") or rest[:1] in ("", "/"):
                yield each


class PrefixIsTidied(MemoryStorage):
    def list(self, prefix: str = "", *, after: str | None = None) -> AsyncGenerator[ObjectMeta, None]:
        tidy = posixpath.normpath(prefix).lstrip("./") if prefix else ""
        return super().list(tidy, after=after)


class AfterInclusive(MemoryStorage):
    async def list(self, prefix: str = "", *, after: str | None = None) -> AsyncGenerator[ObjectMeta, None]:
        if after in self._objects and after.startswith(prefix):
            yield self._objects[after].meta
        async for each in super().list(prefix, after=after):
            yield each


class OnePage(MemoryStorage):
    async def list(self, prefix: str = "", *, after: str | None = None) -> AsyncGenerator[ObjectMeta, None]:
        left = 1000
        async for each in super().list(prefix, after=after):
            if left:
                left -= 1
                yield each


class ListsWhatChanges(MemoryStorage):
    async def list(self, prefix: str = "", *, after: str | None = None) -> AsyncGenerator[ObjectMeta, None]:
        wanted = set()
        for key in self._objects:
            wanted.add(key)
            if len(wanted) % 100 == 0:
                await asyncio.sleep(0)
        async for each in super().list(prefix, after=after):
            if each.key in wanted:
                yield each


class PagesByNumber(MemoryStorage):
    """Asks for each page by how many came before, while others put and delete."""

    async def list(self, prefix: str = "", *, after: str | None = None) -> AsyncGenerator[ObjectMeta, None]:
        at = 0
        while page := [each async for each in super().list(prefix, after=after)][at : at + 100]:
            for each in page:
                yield each
            at += len(page)
            await asyncio.sleep(0)


MUTANTS: list[Mutant] = [
    storage_mutant(
        "utf16_order",
        "listings are in UTF-16's order",
        Utf16Order,
        "test_a_listing_is_in_order_of_utf8_bytes",
    ),
    storage_mutant(
        "order_without_case",
        "listings are in order of letters without case",
        OrderWithoutCase,
        "test_a_listing_is_in_order_of_utf8_bytes",
    ),
    storage_mutant(
        "folders_first",
        "listings sort by folder",
        FoldersFirst,
        "test_a_listing_is_in_order_of_utf8_bytes",
        "test_a_listing_goes_on_page_by_page",
    ),
    storage_mutant(
        "prefix_is_pattern",
        "% and _ in a prefix match anything",
        PrefixIsPattern,
        "test_a_listing_is_in_order_of_utf8_bytes",
    ),
    storage_mutant(
        "prefix_is_folder",
        "a prefix names a folder",
        PrefixIsFolder,
        "test_a_listing_is_in_order_of_utf8_bytes",
    ),
    storage_mutant(
        "prefix_is_tidied",
        "prefixes are tidied as paths are",
        PrefixIsTidied,
        "test_odd_bounds_of_a_listing_list_what_fits",
    ),
    storage_mutant(
        "after_inclusive",
        "the key after which to list is listed",
        AfterInclusive,
        "test_a_listing_is_in_order_of_utf8_bytes",
        "test_a_listing_goes_on_page_by_page",
    ),
    storage_mutant(
        "one_page",
        "listings end after 1,000 objects",
        OnePage,
        "test_a_listing_goes_on_page_by_page",
    ),
    storage_mutant(
        "lists_what_changes",
        "listings fail while others put",
        ListsWhatChanges,
        "test_a_listing_goes_on_page_by_page",
    ),
    storage_mutant(
        "pages_by_number",
        "pages are counted while others put",
        PagesByNumber,
        "test_a_listing_goes_on_page_by_page",
    ),
]
