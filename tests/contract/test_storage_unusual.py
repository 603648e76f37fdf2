"""Storages that are correct, but unlike those that anybody would think of: no law may be wrong about them."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import math
import os
from collections.abc import AsyncGenerator, AsyncIterable
from dataclasses import replace
from typing import Any

import pytest
from tests.contract.mutants.storages import FolderContract, MemoryContract
from tests.contract.presigning import PresigningStorage

from llmengine_core.interfaces.storage import StorageError
from llmengine_core.testing.memory_storage import MemoryObject, MemoryStorage
from llmengine_core.testing.profiles import PROFILE_VARIABLE
from llmengine_core.types.objects import ObjectMeta

Content = bytes | AsyncIterable[bytes]


class Bare(MemoryStorage):
    """No etags, no times; works on when closed; ranges of any kind; no key under another, nor a very long one."""

    async def _replace(self, key: str, content: bytes, mode: Any, if_match: str | None) -> ObjectMeta:
        if if_match is not None:
            raise StorageError("there are no etags to match")
        if len(key) > 300:
            raise StorageError("too long")
        if any(each.startswith(key + "/") or key.startswith(each + "/") for each in self._objects):
            raise StorageError("in the way")
        meta = await super()._replace(key, content, mode, None)
        self._objects[key] = MemoryObject(content, replace(meta, etag=None, modified_at=None))
        return self._objects[key].meta

    def _require_open(self) -> None:
        """Always."""


class Slow(MemoryStorage):
    """Every call takes its time; etags are digests; times are rounded by some; pieces are small and some empty."""

    async def put(self, key: str, content: Content, **given: Any) -> ObjectMeta:
        self._check(key)
        await asyncio.sleep(0.01)
        return await super().put(key, content, **given)

    async def _replace(self, key: str, content: bytes, mode: Any, if_match: str | None) -> ObjectMeta:
        meta = await super()._replace(key, content, mode, if_match)
        meta = replace(meta, etag=f'"{hashlib.md5(content).hexdigest()}"')  # noqa: S324 - as S3 has it
        self._objects[key] = MemoryObject(content, meta)
        return meta

    async def head(self, key: str) -> ObjectMeta:
        await asyncio.sleep(0.005)
        found = await super().head(key)
        return replace(found, modified_at=math.floor(found.modified_at or 0))

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        await asyncio.sleep(0.005)
        for number in itertools.count():
            yield b""
            at = start + number * 500_000
            pieces = [p async for p in super().get(key, start=at, stop=min(at + 500_000, stop or 1 << 60))]
            if not pieces or (stop is not None and at >= stop):
                return
            yield b"".join(pieces)

    async def list(self, prefix: str = "", *, after: str | None = None) -> AsyncGenerator[ObjectMeta, None]:
        for number, each in enumerate([each async for each in super().list(prefix, after=after)]):
            if number % 100 == 0:
                await asyncio.sleep(0.01)
            yield each


@pytest.fixture(autouse=True)
def fewer_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless somebody asks for more."""
    if not os.environ.get(PROFILE_VARIABLE):
        monkeypatch.setenv(PROFILE_VARIABLE, "smoke")


class TestFolder(FolderContract):
    pass


class TestBare(MemoryContract):
    storage_type = Bare


class TestSlow(MemoryContract):
    storage_type = Slow


class TestPresigning(MemoryContract):
    storage_type = PresigningStorage
