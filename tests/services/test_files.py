"""Files through the core, on real stores (L01, M09)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmengine_core.engine import Engine
from llmengine_core.errors import NotFoundError
from llmengine_core.settings import Settings
from llmengine_core.testing import echo
from llmengine_core.types.progress import Progress


async def pieces(content: bytes, size: int = 7) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def read(engine: Engine, file_id: str) -> bytes:
    async with aclosing(engine.files.read(file_id)) as content:
        return b"".join([piece async for piece in content])


@given(st.binary(max_size=100))
async def test_l01_what_goes_in_comes_out(shared: Engine, content: bytes) -> None:
    record = await shared.files.upload(pieces(content), filename="a.csv")
    assert record.id.startswith("file-")
    assert await shared.files.get(record.id) == record
    assert (record.filename, record.size) == ("a.csv", len(content))
    assert await read(shared, record.id) == content
    assert await shared.files.delete(record.id)


async def test_l01_an_upload_that_breaks_off_leaves_nothing(engine: Engine, settings: Settings) -> None:
    async def breaking() -> AsyncIterator[bytes]:
        yield b"a" * (1 << 20)
        raise OSError("the disk was pulled out")

    with pytest.raises(OSError, match="pulled out"):
        await engine.files.upload(breaking(), filename="a.csv")
    assert await engine.files.list() == []
    assert [path for path in (settings.home / "objects").rglob("*") if path.is_file()] == []


async def test_m09_files_are_their_owners_only(engine: Engine) -> None:
    record = await engine.files.upload(pieces(b"x"), filename="a", caller="me")
    assert await engine.files.list(caller="you") == []
    for refused in (engine.files.get(record.id, caller="you"), engine.files.delete(record.id, caller="you")):
        with pytest.raises(NotFoundError):
            await refused
    assert await engine.files.list(caller="me") == [record]


@pytest.mark.parametrize("file_id", ["file-none", "", "../../etc/passwd", "\x00", "x" * 10_000])
async def test_l01_missing_ids_are_not_found(engine: Engine, file_id: str) -> None:
    with pytest.raises(NotFoundError):
        await engine.files.get(file_id)


async def test_l01_files_are_listed_the_oldest_first(engine: Engine, tmp_path: Path) -> None:
    records = [await engine.files.upload(pieces(b""), filename=f"{n}") for n in range(5)]
    assert await engine.files.list() == records


async def test_l01_both_ways_tell_how_far_they_have_come(settings: Settings) -> None:
    news: list[Progress] = []
    async with Engine(settings, plugins=[echo], on_progress=news.append) as engine:
        record = await engine.files.upload(pieces(b"0123456789"), filename="a.csv", size=10)
        assert news == [Progress("a.csv", "upload", done, 10, "bytes") for done in (7, 10)]
        news.clear()
        assert await read(engine, record.id) == b"0123456789"
        assert news == [Progress("a.csv", "download", 10, 10, "bytes")]
