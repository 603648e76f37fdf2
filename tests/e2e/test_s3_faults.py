"""S3 that is slow, flaky or killed: what was acknowledged is there, what wasn't is whole or absent."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.e2e.disks import MIB
from tests.servers.proxy import Fault, FaultProxy, fault_proxy, in_turn
from tests.servers.seaweed import S3Server

from llmengine_core.interfaces.storage import ObjectMissing, StorageError
from llmengine_s3 import client
from llmengine_s3.storage import S3Storage


@pytest.fixture(scope="module")
def bucket(s3_server: S3Server) -> str:
    """Where these tests keep what they break."""
    return s3_server.bucket()


def faults() -> st.SearchStrategy[Fault | None]:
    """What befalls one request."""
    return st.one_of(
        st.none(),
        st.sampled_from([Fault(status=503), Fault(status=500), Fault(lose_answer=True), Fault(delay=0.03)]),
        st.integers(0, 6 * MIB).map(lambda after: Fault(cut_request=after)),
        st.integers(0, 400).map(lambda after: Fault(cut_answer=after)),
        st.integers(0, 6 * MIB).map(lambda after: Fault(cut_answer=after)),
    )


SIZES = (*[0, 1000] * 3, *[300_000] * 8, 9 * MIB)  # the large ones in parts, and seldom, as they take long
Step = tuple[str, int]


@st.composite
def lives(draw: st.DrawFn) -> dict[str, list[Step]]:
    """What is done to each of some keys, one thing after another: calls, and the sizes of what they write."""
    step = st.tuples(st.sampled_from(["put", "create", "swap", "get", "delete"]), st.sampled_from(SIZES))
    return {key: draw(st.lists(step, min_size=1, max_size=3)) for key in ("a", "b/c", "ü")}


class Witness:
    """What one key may hold: what was acknowledged, or written since without an answer."""

    def __init__(self, storage: S3Storage, key: str) -> None:
        self.possible: set[bytes | None] = {None}
        self._storage = storage
        self._key = key
        self._written = 0

    async def live(self, steps: list[Step]) -> None:
        """One call after another, whatever becomes of them."""
        for call, size in steps:
            with suppress(StorageError):
                await getattr(self, call)(size)

    async def put(self, size: int) -> None:
        """Write new content."""
        await self._write(size)

    async def create(self, size: int) -> None:
        """Write new content where there is none."""
        before = self.possible
        await self._write(size, mode="create")
        assert None in before, "two have created it"

    async def swap(self, size: int) -> None:
        """Write new content where that is there which was."""
        await self._write(size, if_match=(await self._storage.head(self._key)).etag)

    async def _write(self, size: int, **how: Any) -> None:
        self._written += 1
        content = self._written.to_bytes(8, "big") + os.urandom(size)
        self.possible = self.possible | {content}
        meta = await self._storage.put(self._key, _pieces(content), **how)
        assert meta.size == len(content)
        self.possible = {content}

    async def get(self, _: int) -> None:
        """Read it: what comes to its end is whole."""
        try:
            found = b"".join([piece async for piece in self._storage.get(self._key)])
        except ObjectMissing:
            self.saw(None)
        else:
            self.saw(found)

    async def delete(self, _: int) -> None:
        """Remove it."""
        self.possible = self.possible | {None}
        await self._storage.delete(self._key)
        self.possible = {None}

    def saw(self, content: bytes | None) -> None:
        """That this is there."""
        assert content in self.possible, f"{self._key}: lost, torn or come back"
        self.possible = {content}


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), MIB):
        yield content[start : start + MIB]


@pytest.fixture(scope="module")
def flaky(s3_server: S3Server) -> Iterator[FaultProxy]:
    """A way to the server on which the plan's faults lie in wait."""
    with fault_proxy(s3_server.endpoint) as proxy:
        yield proxy


@given(lives(), st.lists(faults(), min_size=2, max_size=8))
async def test_nothing_acknowledged_is_lost_and_nothing_is_there_in_part(
    s3_server: S3Server,
    opened: Callable[..., S3Storage],
    bucket: str,
    flaky: FaultProxy,
    lives: dict[str, list[Step]],
    planned: list[Fault | None],
) -> None:
    prefix = secrets.token_hex(6)
    storage = opened(f"s3://{bucket}/{prefix}", endpoint=flaky.url)
    witnesses = {key: Witness(storage, key) for key in lives}
    flaky.reset(in_turn(planned))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "PAUSE", 0.002)  # what fails is tried again at once
        async with asyncio.TaskGroup() as group:
            for key, steps in lives.items():
                group.create_task(witnesses[key].live(steps))
    flaky.reset()
    listed = {each.key: each.size async for each in storage.list()}
    await storage.aclose()
    assert {f"{prefix}/{key}": size for key, size in listed.items()} == s3_server.contents(
        bucket, f"{prefix}/"
    )
    for key, witness in witnesses.items():
        found = {"Bucket": bucket, "Key": f"{prefix}/{key}"}
        witness.saw(s3_server.client().get_object(**found)["Body"].read() if key in listed else None)


async def test_a_slow_server_is_waited_for(
    s3_server: S3Server, opened: Callable[..., S3Storage], bucket: str, flaky: FaultProxy
) -> None:
    content = os.urandom(6 * MIB)
    flaky.reset(lambda _: Fault(delay=0.2, rate=12 * MIB))
    storage = opened(f"s3://{bucket}/slow", endpoint=flaky.url)
    assert (await storage.put("k", _pieces(content))).size == len(content)
    assert b"".join([piece async for piece in storage.get("k")]) == content
    await storage.aclose()
    assert not flaky.harmed


async def test_a_killed_server_ends_calls_with_an_error_and_keeps_what_it_acknowledged(
    frail_s3_server: S3Server, opened: Callable[..., S3Storage], monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = frail_s3_server.bucket()
    storage = opened(f"s3://{bucket}/x", endpoint=frail_s3_server.endpoint)
    async with asyncio.TaskGroup() as group:
        for number in range(1100):  # more than a page
            group.create_task(_put(storage, f"small/{number:04}"))
    before = frail_s3_server.contents(bucket)
    assert len(before) == 1100

    upload = Upload(storage)
    await upload.half.wait()
    async with aclosing(storage.list("small/")) as listing:
        listed = [(await anext(listing)).key for _ in range(900)]
        frail_s3_server.kill()
        upload.go_on.set()
        with monkeypatch.context() as patch:
            patch.setattr(client, "UNREACHABLE", 1.0)
            with pytest.raises(StorageError, match="nobody answers"):
                listed.extend([each.key async for each in listing])
            with pytest.raises(StorageError, match="nobody answers"):
                await upload.done
    assert listed == [f"small/{number:04}" for number in range(len(listed))]
    assert len(listed) < 1100

    frail_s3_server.restart()
    assert frail_s3_server.contents(bucket) == before
    assert [each.size async for each in storage.list()] == [5] * 1100
    await storage.aclose()


async def test_a_server_that_comes_back_soon_is_waited_for(
    frail_s3_server: S3Server, opened: Callable[..., S3Storage]
) -> None:
    bucket = frail_s3_server.bucket()
    storage = opened(f"s3://{bucket}/x", endpoint=frail_s3_server.endpoint)
    upload = Upload(storage)
    await upload.half.wait()
    frail_s3_server.kill()
    upload.go_on.set()
    await asyncio.to_thread(frail_s3_server.restart)
    assert (await upload.done).size == upload.size
    await storage.aclose()
    found = frail_s3_server.client().get_object(Bucket=bucket, Key="x/large")["Body"].read()
    assert hashlib.sha256(found).digest() == upload.digest.digest()


class Upload:
    """A large object on its way to a storage, that waits when half of it is sent."""

    size = 40 * MIB

    def __init__(self, storage: S3Storage) -> None:
        self.half, self.go_on = asyncio.Event(), asyncio.Event()
        self.digest = hashlib.sha256()
        self.done = asyncio.ensure_future(storage.put("large", self._content()))

    async def _content(self) -> AsyncIterator[bytes]:
        for number in range(self.size // MIB):
            if number == self.size // MIB // 2:
                self.half.set()
                await self.go_on.wait()
            piece = os.urandom(MIB)
            self.digest.update(piece)
            yield piece


async def _put(storage: S3Storage, key: str) -> None:
    await storage.put(key, b"small")
