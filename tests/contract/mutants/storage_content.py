"""Storages that give other content than was put, or describe it otherwise."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable
from dataclasses import replace
from typing import Any

from tests.contract.mutants import Mutant
from tests.contract.mutants.storages import storage_mutant

from llmengine_core.interfaces.storage import StorageError
from llmengine_core.testing.memory_storage import MemoryObject, MemoryStorage
from llmengine_core.types.objects import ObjectMeta

Content = bytes | AsyncIterable[bytes]


async def whole(content: Content) -> bytes:
    return b"".join([piece async for piece in content]) if isinstance(content, AsyncIterable) else content


class EmptyPieceEnds(MemoryStorage):
    async def put(self, key: str, content: Content, **given: Any) -> ObjectMeta:
        taken = []
        if isinstance(content, AsyncIterable):
            async for piece in content:
                if not piece:
                    break
                taken.append(piece)
            content = b"".join(taken)
        return await super().put(key, content, **given)


class OnePiece(MemoryStorage):
    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        yield self._found(key).content[start:stop]


class InclusiveStop(MemoryStorage):
    def get(self, key: str, *, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        return super().get(key, start=start, stop=None if stop is None else stop + 1)


class RangeBeyondTheEnd(MemoryStorage):
    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        if start and start >= len(self._found(key).content):
            raise StorageError("416: the range can't be satisfied")
        async for piece in super().get(key, start=start, stop=stop):
            yield piece


class RereadsByKey(MemoryStorage):
    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        size = len(self._found(key).content)
        end = size if stop is None else min(stop, size)
        for at in range(start, end, 1 << 20):
            yield self._found(key).content[at : min(at + (1 << 20), end)]


class SizeEtags(MemoryStorage):
    async def _replace(self, key: str, content: bytes, mode: Any, if_match: str | None) -> ObjectMeta:
        meta = await super()._replace(key, content, mode, if_match)
        self._objects[key] = MemoryObject(content, replace(meta, etag=f"{len(content)}"))
        return self._objects[key].meta


class SecondEtags(SizeEtags):
    async def _replace(self, key: str, content: bytes, mode: Any, if_match: str | None) -> ObjectMeta:
        meta = await super()._replace(key, content, mode, if_match)
        self._objects[key] = MemoryObject(
            content, replace(meta, etag=f"{meta.modified_at:.0f}-{len(content)}")
        )
        return self._objects[key].meta


class SampledEtags(MemoryStorage):
    """Of the first and last bytes, as some do for large files."""

    async def _replace(self, key: str, content: bytes, mode: Any, if_match: str | None) -> ObjectMeta:
        meta = await super()._replace(key, content, mode, if_match)
        etag = (content[:1000] + content[-1000:]).hex()
        self._objects[key] = MemoryObject(content, replace(meta, etag=etag))
        return self._objects[key].meta


class CountingEtags(MemoryStorage):
    async def _replace(self, key: str, content: bytes, mode: Any, if_match: str | None) -> ObjectMeta:
        before = self._objects.get(key)
        count = int(before.meta.etag or 0) + 1 if before else 1
        meta = await super()._replace(key, content, mode, if_match)
        self._objects[key] = MemoryObject(content, replace(meta, etag=str(count)))
        return self._objects[key].meta


class QuotedInLists(MemoryStorage):
    async def list(self, prefix: str = "", *, after: str | None = None) -> AsyncGenerator[ObjectMeta, None]:
        async for each in super().list(prefix, after=after):
            yield replace(each, etag=f'"{each.etag}"')


class Milliseconds(MemoryStorage):
    async def head(self, key: str) -> ObjectMeta:
        found = await super().head(key)
        return replace(found, modified_at=(found.modified_at or 0) * 1000)

    async def _replace(self, key: str, content: bytes, mode: Any, if_match: str | None) -> ObjectMeta:
        meta = await super()._replace(key, content, mode, if_match)
        meta = replace(meta, modified_at=(meta.modified_at or 0) * 1000)
        self._objects[key] = MemoryObject(content, meta)
        return meta


class SizeOfLastPiece(MemoryStorage):
    async def put(self, key: str, content: Content, **given: Any) -> ObjectMeta:
        streamed = isinstance(content, AsyncIterable)
        meta = await super().put(key, content, **given)
        return replace(meta, size=min(meta.size, 9)) if streamed else meta


MUTANTS: list[Mutant] = [
    storage_mutant(
        "empty_piece_ends",
        "an empty piece is the end",
        EmptyPieceEnds,
        "test_content_comes_back_whatever_its_pieces",
    ),
    storage_mutant(
        "one_piece",
        "a large object comes as one piece",
        OnePiece,
        "test_pieces_are_at_most_16_mib",
    ),
    storage_mutant(
        "inclusive_stop",
        "a range includes its stop",
        InclusiveStop,
        "test_any_range_gives_the_bytes_that_are_in_it",
    ),
    storage_mutant(
        "range_beyond_the_end",
        "a range that begins beyond the end is an error",
        RangeBeyondTheEnd,
        "test_any_range_gives_the_bytes_that_are_in_it",
    ),
    storage_mutant(
        "rereads_by_key",
        "each piece is read by its key anew",
        RereadsByKey,
        "test_a_stream_is_of_one_content",
    ),
    storage_mutant(
        "size_etags",
        "etags are sizes",
        SizeEtags,
        "test_an_etag_changes_with_the_content",
    ),
    storage_mutant(
        "second_etags",
        "etags are seconds and sizes",
        SecondEtags,
        "test_an_etag_changes_with_the_content",
    ),
    storage_mutant(
        "sampled_etags",
        "etags are of both ends of the content",
        SampledEtags,
        "test_an_etag_changes_with_the_content",
    ),
    storage_mutant(
        "counting_etags",
        "etags count from 1 after a delete",
        CountingEtags,
        "test_an_equal_etag_means_equal_content_after_delete",
    ),
    storage_mutant(
        "quoted_in_lists",
        "etags have quotes in listings alone",
        QuotedInLists,
        "test_an_object_is_described_alike_by_all_calls",
        "test_any_sequence_of_calls_agrees_with_a_dict",
    ),
    storage_mutant(
        "milliseconds",
        "times are in milliseconds",
        Milliseconds,
        "test_an_object_is_described_alike_by_all_calls",
    ),
    storage_mutant(
        "size_of_last_piece",
        "streams are described with the size of their last piece",
        SizeOfLastPiece,
        "test_content_comes_back_whatever_its_pieces",
        "test_an_object_is_described_alike_by_all_calls",
    ),
]
