"""What tests do with storages again and again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llmengine_core.interfaces.storage import Storage
from llmengine_core.types.objects import ObjectMeta

__all__ = ["bring", "content", "listed"]


async def content(storage: Storage, key: str, start: int = 0, stop: int | None = None) -> bytes:
    return b"".join([piece async for piece in storage.get(key, start=start, stop=stop)])


async def listed(storage: Storage, prefix: str = "", after: str | None = None) -> list[ObjectMeta]:
    return [each async for each in storage.list(prefix, after=after)]


async def bring(storage: Storage, keys: Sequence[str]) -> Path:
    """What came is there, and the progress was sound."""
    told: list[tuple[int, int | None]] = []
    folder = await storage.bring(keys, on_progress=lambda done, total: told.append((done, total)))
    assert folder is not None
    metas = [await storage.head(key) for key in dict.fromkeys(keys)]
    total = sum(meta.size for meta in metas)
    assert told[-1] == (total, total)
    assert all(0 <= done <= total and each == total for done, each in told)
    for meta in metas:
        assert (folder / meta.key).stat().st_size == meta.size
    return folder
