"""Puts whose answers are lost, contents of many parts, and copies by the server."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.servers.proxy import Asked, Fault, FaultProxy, fault_proxy, in_turn

from llmengine_core.interfaces.storage import ObjectExists, ObjectMissing, PreconditionFailed, StorageError
from llmengine_core.testing.contracts.storages.ground import content
from llmengine_s3 import answers, client, uploads
from llmengine_s3 import storage as storage_module
from llmengine_s3.storage import S3Storage
from llmengine_s3.uploads import EQUAL_PARTS, MAX_PARTS, PART, part_size, parts_of

if TYPE_CHECKING:
    from tests.servers.seaweed import S3Server

MIB = 1 << 20


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PAUSE", 0.01)


@pytest.fixture
def proxy(only_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A way to the server on which a plan's faults lie in wait."""
    with fault_proxy(only_server.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[S3Storage]:
    storage = S3Storage(url)
    try:
        yield storage
    finally:
        await storage.aclose()


async def large(mebibytes: int = 20) -> AsyncIterator[bytes]:
    for number in range(mebibytes):
        yield bytes([number]) * MIB


def writes(asked: Asked) -> bool:
    """Whether a request makes an object: a put, or the end of an upload."""
    return (asked.method == "PUT" and "partNumber" not in asked.target) or (
        asked.method == "POST" and "uploadId" in asked.target
    )


@pytest.mark.parametrize("fault", [Fault(lose_answer=True), Fault(cut_answer=0)], ids=["lost", "cut"])
@pytest.mark.parametrize("source", [lambda: b"content", large], ids=["at once", "in parts"])
async def test_a_put_that_won_and_lost_its_answer_has_won(
    proxy: FaultProxy, only_server: S3Server, fault: Fault, source: Any
) -> None:
    bucket = only_server.bucket()
    async with opened(f"s3://{bucket}/folder") as storage:
        proxy.reset(in_turn([fault], writes))
        created = await storage.put("k", source(), mode="create")
        assert len(proxy.harmed) == 1
        assert (await storage.head("k")).etag == created.etag
        proxy.reset(in_turn([fault], writes))
        swapped = await storage.put("k", source(), if_match=created.etag)
        assert (await storage.head("k")).etag == swapped.etag
        proxy.reset(in_turn([fault], writes))
        with pytest.raises(ObjectExists):
            await storage.put("k", source(), mode="create")
        proxy.reset(in_turn([fault], writes))
        with pytest.raises(PreconditionFailed):
            await storage.put("k", b"another", if_match="0" * 32)
        assert only_server.unfinished(bucket) == []


async def test_of_writers_whose_answers_are_lost_exactly_one_wins(
    proxy: FaultProxy, only_server: S3Server
) -> None:
    async with opened(f"s3://{only_server.bucket()}") as storage:
        proxy.reset(in_turn([Fault(lose_answer=True)] * 4, writes))
        results = await asyncio.gather(
            *(storage.put("k", b"%d" % each, mode="create") for each in range(4)), return_exceptions=True
        )
        [won] = [each for each, result in enumerate(results) if not isinstance(result, ObjectExists)]
        assert await content(storage, "k") == b"%d" % won


async def test_a_delete_that_lost_its_answer_had_one(proxy: FaultProxy, only_server: S3Server) -> None:
    async with opened(f"s3://{only_server.bucket()}") as storage:
        await storage.put("k", b"")
        proxy.reset(in_turn([Fault(lose_answer=True)], lambda asked: asked.method == "DELETE"))
        assert await storage.delete("k")
        assert not await storage.delete("k")


async def test_of_several_who_delete_one_had_it(only_server: S3Server) -> None:
    async with opened(f"s3://{only_server.bucket()}") as storage:
        await storage.put("k", b"")
        assert sorted(await asyncio.gather(*(storage.delete("k") for _ in range(6)))) == [False] * 5 + [True]


async def test_parts_are_made_again_and_none_are_left(proxy: FaultProxy, only_server: S3Server) -> None:
    bucket = only_server.bucket()

    def is_part(asked: Asked) -> bool:
        return "partNumber" in asked.target

    async with opened(f"s3://{bucket}") as storage:
        faults = [Fault(status=503), Fault(cut_request=MIB), Fault(lose_answer=True), Fault(cut_answer=0)]
        proxy.reset(in_turn(faults, is_part))
        meta = await storage.put("k", large(30))
        assert (meta.size, len(proxy.harmed)) == (30 * MIB, 4)
        assert (await storage.head("k")).etag == meta.etag
        assert await content(storage, "k") == b"".join([each async for each in large(30)])
        proxy.reset(lambda asked: Fault(status=403, code="AccessDenied") if is_part(asked) else None)
        with pytest.raises(StorageError, match="AccessDenied"):
            await storage.put("l", large())
    assert only_server.unfinished(bucket) == []
    assert list(only_server.contents(bucket)) == ["k"]


class Refusing:
    """Begins uploads, and takes no part of them."""

    async def call(self, request: client.Request) -> client.Answer:
        if "uploads" in request.query:
            return client.Answer(200, {}, b"<A><UploadId>1</UploadId></A>", uncertain=False)
        raise client.Refused(answers.Fault(403, "AccessDenied", "", ""))


async def test_all_parts_that_fail_at_once_are_asked_why() -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: told.append(what))

    async def upload() -> None:
        async with uploads.Upload(cast("client.Client", Refusing()), "k", {}) as begun:
            for number in (1, 2, 3):
                await begun.put(number, b"part")
            await begun.complete({})

    with pytest.raises(client.Refused):
        await upload()
    gc.collect()
    assert told == []


@pytest.mark.parametrize("stage", ["?uploads=", "partNumber=2", "partNumber=3", "?uploadId="])
async def test_an_upload_cancelled_anywhere_leaves_nothing(
    proxy: FaultProxy, only_server: S3Server, stage: str
) -> None:
    bucket = only_server.bucket()
    proxy.reset(lambda asked: Fault(delay=0.2))
    async with opened(f"s3://{bucket}") as storage:
        putting = asyncio.ensure_future(storage.put("k", large()))
        while not any(stage in f"{each.method} {each.target}" for each in proxy.asked):
            assert not putting.done()
            await asyncio.sleep(0.005)
        putting.cancel()
        await asyncio.wait([putting])
        assert only_server.unfinished(bucket) == []
        found = only_server.contents(bucket)
        assert found in ({}, {"k": 20 * MIB}), found
        assert found or putting.cancelled()


async def test_large_objects_are_copied_by_the_server_in_parts(
    only_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_module, "COPIED_AT_ONCE", 5 * MIB)
    bucket = only_server.bucket()
    async with opened(f"s3://{bucket}/a %+é") as storage:
        put = await storage.put("k?#", large(12))
        copied = await storage.copy("k?#", "l&=")
        assert copied.size == put.size == 12 * MIB
        assert await storage.head("l&=") == await storage.head("l&=")
        assert (await storage.head("l&=")).etag == copied.etag
        assert await content(storage, "l&=") == await content(storage, "k?#")
        with pytest.raises(ObjectMissing):
            await storage.copy("absent", "l&=")
    assert only_server.unfinished(bucket) == []


async def test_expires_is_more_than_nothing_and_at_most_a_week(only_server: S3Server) -> None:
    async with opened("s3://bucket") as storage:
        for expires in (0, -1, 604_801, float("nan"), float("inf")):
            with pytest.raises(StorageError, match="more than 0 and at most 604800 seconds"):
                await storage.presign("k", expires=expires)
        assert "X-Amz-Expires=604800" in await storage.presign("k", expires=604_800)
        assert "X-Amz-Expires=1&" in await storage.presign("k", expires=0.01)


@given(pieces=st.lists(st.integers(0, 40), max_size=12), small=st.integers(1, 16), growing=st.integers(1, 4))
async def test_parts_hold_what_pieces_held(pieces: list[int], small: int, growing: int) -> None:
    async def source() -> AsyncIterator[bytes]:
        for number, size in enumerate(pieces):
            yield bytes([number]) * size

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uploads, "PART", small)
        patch.setattr(uploads, "EQUAL_PARTS", growing)
        patch.setattr(uploads, "STEP", 1)
        parts = [bytes(part) async for part in parts_of(source())]
        sizes = [part_size(number) for number in range(1, len(parts) + 1)]
    assert b"".join(parts) == b"".join([each async for each in source()])
    assert [len(part) for part in parts[:-1]] == sizes[:-1]
    assert len(parts) == 1 or 0 < len(parts[-1]) <= sizes[-1]


def test_parts_suffice_for_any_object() -> None:
    sizes = [part_size(number) for number in range(1, MAX_PARTS + 1)]
    assert set(sizes[:EQUAL_PARTS]) == {PART}
    assert max(sizes) <= 5 << 30
    assert sum(sizes) > 5 << 40
