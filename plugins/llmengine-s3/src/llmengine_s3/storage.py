"""Objects in a bucket."""

from __future__ import annotations

import math
import secrets
from collections.abc import AsyncGenerator, AsyncIterable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Literal

from llmengine_core.interfaces.storage import (
    ObjectExists,
    PreconditionFailed,
    Storage,
    StorageError,
)
from llmengine_core.types.objects import ObjectMeta
from llmengine_s3.answers import Unreadable, seconds_of, text_of, unquoted
from llmengine_s3.client import Answer, Client, Lost, Refused, Request
from llmengine_s3.configuration import environment
from llmengine_s3.listing import Listing
from llmengine_s3.places import place_of
from llmengine_s3.reading import pieces
from llmengine_s3.reasons import explained
from llmengine_s3.signing import path_of
from llmengine_s3.uploads import LONG, PART, Upload, parts_of, upload_all

__all__ = ["S3Storage"]

GIB = 1 << 30
COPIED_AT_ONCE = 1 * GIB
"""Bytes that one request copies; S3 takes 5 GiB, and the answer to a smaller one comes sooner."""
WEEK = 7 * 24 * 3600
TOKEN = "x-amz-meta-llmengine-put"
"""The header that marks a conditional put, so that one whose answer was lost is known again."""
DELETES = 5
"""How often an object that others keep replacing is tried to be deleted."""


class S3Storage(Storage):
    """Objects in a bucket, below the folder of an ``s3://bucket/folder`` URL.

    Where the server is and whose requests these are is read from the variables and files that all S3 clients read,
    when the storage is made and first used. What others have put can be read; their keys that are none here, as
    "folder/" and "a//b", are not listed. To be used from one event loop.
    """

    def __init__(self, url: str) -> None:
        self._place = place_of(url)
        self._client = Client(self._place, environment())
        self._listing = Listing(self._client, self._place)
        self._deletes_by_etag = True

    def __repr__(self) -> str:
        return f"S3Storage({str(self._place)!r})"

    async def put(
        self,
        key: str,
        content: bytes | AsyncIterable[bytes],
        *,
        mode: Literal["overwrite", "create"] = "overwrite",
        if_match: str | None = None,
    ) -> ObjectMeta:
        """Write an object: one request up to 8 MiB, parts of 8 MiB above. See ``Storage.put``."""
        if mode not in {"overwrite", "create"} or (mode == "create" and if_match is not None):
            raise StorageError(
                f"mode={mode!r}, if_match={if_match!r} is no way to put; "
                'allowed are mode "create" without if_match, and "overwrite" with or without'
            )
        full = self._place.full(key)
        if if_match is not None:
            if_match = unquoted(if_match) or ""
            if not (if_match.isascii() and if_match.isprintable()) or '"' in if_match:
                raise PreconditionFailed(
                    f"no object under {key!r} has the etag {if_match!r}, which is none of S3's"
                )
        put = _Put(key, full, mode == "create", if_match, secrets.token_hex(16))
        with self._explained(f"put {key!r}"):
            if isinstance(content, AsyncIterable):
                async with aclosing(parts_of(content)) as parts:
                    first = await anext(parts)
                    if len(first) < PART:
                        return await self._put_at_once(put, bytes(first))
                    return await self._put_in_parts(put, first, parts)
            view = memoryview(content).cast("B")
            if len(view) <= PART:
                return await self._put_at_once(put, view)
            async with aclosing(parts_of(_once(view))) as parts:
                return await self._put_in_parts(put, await anext(parts), parts)

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        """Read the object that is there at the first piece, whatever is put meanwhile. See ``Storage.get``."""
        if start < 0 or (stop is not None and stop < 0):
            raise StorageError(f"the range {start} to {stop} of {key!r} is none; offsets are 0 or more")
        full, doing = self._place.full(key), f"get {key!r}"
        if stop is not None and stop <= start:
            await self.head(key)
            return
        with self._explained(doing):
            try:
                async with aclosing(pieces(self._client, full, start, stop)) as found:
                    async for piece in found:
                        yield piece
            except Refused as error:
                if error.fault.status == 412:
                    raise StorageError(
                        f"can't {doing} in {self._place}: it was replaced while it was read; read it again"
                    ) from None
                if error.fault.status != 416:  # there is an object, and nothing of it in the range
                    raise

    async def head(self, key: str) -> ObjectMeta:
        """Describe an object."""
        full = self._place.full(key)
        with self._explained(f"look at {key!r}"):
            return _described(key, (await self._headed(full)).headers)

    async def list(self, prefix: str = "", *, after: str | None = None) -> AsyncGenerator[ObjectMeta, None]:
        """Describe objects in order, 1,000 at a time."""
        with self._explained(f"list {prefix[:100]!r}"):
            async with aclosing(self._listing.objects(prefix, after)) as found:
                async for each in found:
                    yield each

    async def delete(self, key: str) -> bool:
        """Remove an object. Of several who do at once one is told that there was one, where the server can tell."""
        full, doing = self._place.full(key), f"delete {key!r}"
        with self._explained(doing):
            perhaps = False
            for _ in range(DELETES):
                try:
                    etag = unquoted((await self._headed(full)).headers.get("etag"))
                except Refused as error:
                    if error.fault.code == "NoSuchKey":
                        return perhaps
                    raise
                if (done := await self._deleted(full, etag)) is True:
                    return True
                perhaps = perhaps or done is None
        raise StorageError(
            f"can't {doing} in {self._place}: others keep replacing it; stop them, or try again"
        )

    async def copy(self, source: str, target: str) -> ObjectMeta:
        """Have the server copy: in one request up to 1 GiB, in parts of that size above."""
        origin, full = self._place.full(source), self._place.full(target)
        with self._explained(f"copy {source!r} to {target!r}"):
            headers = (await self._headed(origin)).headers
            found = _described(source, headers)
            if source == target:  # which S3 refuses
                return found
            named = path_of(f"/{self._place.bucket}/{origin}")
            if found.size > COPIED_AT_ONCE:
                return await self._copied_in_parts(target, full, named, found)
            wanted = {"x-amz-copy-source": named}
            if found.etag is not None:
                wanted["x-amz-copy-source-if-match"] = f'"{found.etag}"'
            answer = await self._client.call(Request("PUT", full, {}, wanted, b"", LONG))
            etag, changed = (text_of(answer.body, name) for name in ("ETag", "LastModified"))
            return ObjectMeta(target, found.size, unquoted(etag), seconds_of(changed))

    async def presign(self, key: str, *, expires: float, method: Literal["GET", "PUT"] = "GET") -> str:
        """A URL that grants access for at most a week, and no longer than the credentials hold by which it is made."""
        full = self._place.full(key)
        if method not in ("GET", "PUT"):
            raise StorageError(f"method is {method!r}; a URL can grant GET or PUT")
        if not 0 < expires <= WEEK:
            raise StorageError(
                f"expires is {expires!r}; a URL of S3 can grant access for more than 0 and at most {WEEK} seconds"
            )
        with self._explained(f"presign {key!r}"):
            return await self._client.presigned(full, method, math.ceil(expires))

    async def aclose(self) -> None:
        """Drop all connections. Idempotent."""
        await self._client.aclose()

    @contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        try:
            yield
        except (Refused, Lost, Unreadable) as error:
            raise explained(error, doing, self._place) from None

    async def _headed(self, full: str) -> Answer:
        """What is said of an object. Raises ``Refused``, with the server's word for why."""
        for _ in range(3):
            try:
                return await self._client.call(Request("HEAD", full))
            except Refused as error:
                if error.fault.code or error.fault.status == 412:
                    raise
            try:  # an answer to HEAD has no room for a word
                await self._client.call(Request("GET", full, headers={"range": "bytes=0-0"}))
            except Refused as error:
                if error.fault.status != 416:
                    raise
        raise StorageError(
            f"the server says of {full!r} in {self._place} that it is there, and that it isn't"
        )

    async def _put_at_once(self, put: _Put, content: bytes | memoryview) -> ObjectMeta:
        headers = {**put.conditions, **put.marks}
        try:
            answer = await self._client.call(Request("PUT", put.full, {}, headers, content))
        except Refused as error:
            return await self._lost_or_won(put, error, len(content))
        return ObjectMeta(put.key, len(content), unquoted(answer.headers.get("etag")))

    async def _put_in_parts(
        self, put: _Put, first: bytearray, rest: AsyncGenerator[bytearray, None]
    ) -> ObjectMeta:
        if put.conditions:
            await self._require(put)
        size = 0
        try:
            async with Upload(self._client, put.full, {TOKEN: put.token}) as upload:
                size = await upload_all(upload, first, rest)
                answer = await upload.complete(put.conditions)
        except Refused as error:
            return await self._lost_or_won(put, error, size)
        return ObjectMeta(put.key, size, unquoted(text_of(answer.body, "ETag")))

    async def _require(self, put: _Put) -> None:
        """Look before a long upload whether its condition holds; the server looks again in the end."""
        try:
            etag = unquoted((await self._headed(put.full)).headers.get("etag"))
        except Refused as error:
            if error.fault.code != "NoSuchKey":
                raise
            if put.create:
                return
            raise put.failed("there is none") from None
        if put.create or etag != put.if_match:
            raise put.failed(f"there is one with the etag {etag}")

    async def _lost_or_won(self, put: _Put, error: Refused, size: int) -> ObjectMeta:
        """What a refusal means: a condition that isn't met, unless it was this very put that broke it.

        A put whose answer was lost is made again, and then meets itself: its mark tells.
        """
        missing = error.fault.code in ("NoSuchUpload", "NoSuchKey")
        if error.uncertain and (error.fault.status in (409, 412) or missing):
            try:
                headers = (await self._headed(put.full)).headers
            except Refused as other:
                if other.fault.code != "NoSuchKey":
                    raise other from None
            else:
                if headers.get(TOKEN) == put.token:
                    return ObjectMeta(put.key, size, unquoted(headers.get("etag")))
        if error.fault.status == 412 or (put.if_match is not None and error.fault.code == "NoSuchKey"):
            raise put.failed("there is another, or none") from None
        raise error

    async def _deleted(self, full: str, etag: str | None) -> bool | None:
        """Remove the object that has an etag; False where it is another, or gone; None where a try whose answer
        was lost may have removed it."""
        headers = {"if-match": f'"{etag}"'} if etag is not None and self._deletes_by_etag else {}
        try:
            await self._client.call(Request("DELETE", full, {}, headers))
        except Refused as error:
            if error.fault.code == "NotImplemented" and headers:
                self._deletes_by_etag = False
                return await self._deleted(full, etag)
            if error.fault.status in (404, 409, 412):
                return None if error.uncertain else False
            raise
        return True

    async def _copied_in_parts(self, key: str, full: str, named: str, found: ObjectMeta) -> ObjectMeta:
        size = max(COPIED_AT_ONCE, math.ceil(found.size / 10_000))
        async with Upload(self._client, full, {}) as upload:
            for number, start in enumerate(range(0, found.size, size), 1):
                await upload.copy(number, named, found.etag, start, min(start + size, found.size))
            answer = await upload.complete({})
        return ObjectMeta(key, found.size, unquoted(text_of(answer.body, "ETag")))


class _Put:
    """What is to be put, and when."""

    def __init__(self, key: str, full: str, create: bool, if_match: str | None, token: str) -> None:
        self.key, self.full, self.create, self.if_match, self.token = key, full, create, if_match, token
        self.conditions: dict[str, str] = {}
        if create:
            self.conditions["if-none-match"] = "*"
        elif if_match is not None:
            self.conditions["if-match"] = f'"{if_match}"'
        self.marks = {TOKEN: token} if self.conditions else {}

    def failed(self, found: str) -> StorageError:
        """The error of a condition that isn't met."""
        if self.create:
            return ObjectExists(f"there is an object under {self.key!r} already")
        return PreconditionFailed(f"no object under {self.key!r} has the etag {self.if_match}: {found}")


def _described(key: str, headers: Mapping[str, str]) -> ObjectMeta:
    return ObjectMeta(
        key,
        int(headers.get("content-length", "0")),
        unquoted(headers.get("etag")),
        seconds_of(headers.get("last-modified")),
    )


async def _once(view: memoryview) -> AsyncGenerator[memoryview, None]:
    yield view
