"""Drafts: never taken for objects, swept when their writer is gone, and only then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llmengine_core.interfaces.storage import StorageError
from llmengine_core.testing.contracts.children import racers
from llmengine_core.testing.contracts.storages import racer as storage_racer
from llmengine_core.testing.contracts.storages.ground import content, listed
from llmengine_localdisk.drafts import DRAFTS
from llmengine_localdisk.keys import is_segment
from llmengine_localdisk.storage import LocalDiskStorage

FACTORY = "llmengine_localdisk.storage:LocalDiskStorage"


def drafts(root: Path) -> list[Path]:
    return list((root / DRAFTS).glob("*"))


def test_what_a_killed_writer_left_is_swept_by_whoever_comes_next(tmp_path: Path) -> None:
    with racers(storage_racer, FACTORY, tmp_path.as_uri(), "stall", [0]) as [child]:
        assert [child.line() for _ in range(2)] == ["mid", "mid"]
        child.kill()
        assert [draft.stat().st_size for draft in drafts(tmp_path)] == [3 << 20] * 2
        assert asyncio.run(listed(LocalDiskStorage(tmp_path.as_uri()))) == []
        assert list(tmp_path.iterdir()) == []


def test_what_is_still_being_written_is_left_alone(tmp_path: Path) -> None:
    with racers(storage_racer, FACTORY, tmp_path.as_uri(), "stall", [0]) as [child]:
        assert [child.line() for _ in range(2)] == ["mid", "mid"]
        storage = LocalDiskStorage(tmp_path.as_uri())
        assert asyncio.run(listed(storage)) == []
        asyncio.run(storage.put("k", b""))
        assert len(drafts(tmp_path)) == 2
        child.go()
        child.go()
        assert child.report() == []
        for key in ("old", "new"):
            assert asyncio.run(content(storage, key)) == b"x" * (3 << 20) + b"y"
        assert not drafts(tmp_path)


def test_drafts_are_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "root" / DRAFTS).symlink_to(tmp_path / "outside")
    with pytest.raises(StorageError, match="symbolic link, which is not followed"):
        asyncio.run(LocalDiskStorage((tmp_path / "root").as_uri()).put("k", b"content"))
    assert not list((tmp_path / "outside").iterdir())


def test_a_draft_that_somebody_removes_is_told(tmp_path: Path) -> None:
    async def source() -> AsyncIterator[bytes]:
        yield b"x" * (3 << 20)
        [draft] = await asyncio.to_thread(drafts, tmp_path)
        await asyncio.to_thread(draft.unlink)

    storage = LocalDiskStorage(tmp_path.as_uri())
    with pytest.raises(StorageError, match="somebody removed a draft"):
        asyncio.run(storage.put("k", source()))
    assert list(tmp_path.iterdir()) == []


def test_no_key_names_a_draft() -> None:
    assert not is_segment(DRAFTS)
