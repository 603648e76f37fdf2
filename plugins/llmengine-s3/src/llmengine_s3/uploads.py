"""Contents that are too large for one request: parts on their way at once, and none left where it breaks off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping
from contextlib import suppress
from typing import Self
from xml.sax.saxutils import escape

from llmengine_core.interfaces.storage import StorageError
from llmengine_s3.answers import Unreadable, text_of, unquoted
from llmengine_s3.client import Answer, Client, Lost, Refused, Request
from llmengine_s3.settled import settled

__all__ = ["LONG", "MAX_PARTS", "PART", "Upload", "part_size", "parts_of", "upload_all"]

MIB = 1 << 20
PART = 8 * MIB
"""Bytes of a part, as AWS's own clients have it; what is smaller goes out in one request."""
EQUAL_PARTS = 5_000
"""Parts of that size, 39 GiB: some servers want all to be equal. What is larger still doubles them."""
STEP = 500
"""Parts between two doublings: 10,000 parts, which is all that S3 takes, are more than any object may have."""
MAX_PARTS = 10_000
LARGEST = 5 << 30
"""Bytes that S3 takes in one part."""
UNDER_WAY = 4 * PART
"""Bytes of parts that are on their way at once; one part may be larger."""
LONG = 300.0
"""Seconds that a server may take to join parts, or to copy some."""
ABORTS = 5
"""Times that an upload is aborted: a part that was on its way may arrive after the first."""


def part_size(number: int) -> int:
    """Bytes of a part, the first of which is number 1."""
    return min(PART << max(0, (number - EQUAL_PARTS + STEP - 1) // STEP), LARGEST)


async def parts_of(content: AsyncIterable[bytes | memoryview]) -> AsyncGenerator[bytearray, None]:
    """Content in parts; the last may be smaller, and there is one at least."""
    number, part = 1, bytearray()
    async for piece in content:
        rest = memoryview(piece).cast("B")
        while rest:
            taken = rest[: part_size(number) - len(part)]
            part += taken
            rest = rest[len(taken) :]
            if len(part) == part_size(number) and rest:
                yield part
                number, part = number + 1, bytearray()
    yield part


class Upload:
    """A multipart upload. Whoever enters it completes it; else nothing of it is left."""

    def __init__(self, client: Client, key: str, headers: Mapping[str, str]) -> None:
        self._client = client
        self._key = key
        self._headers = headers
        self._id = ""
        self._etags: dict[int, str] = {}
        self._tasks: dict[asyncio.Task[None], int] = {}
        """Parts under way, and their bytes."""
        self._done = False

    async def __aenter__(self) -> Self:
        try:
            await settled(self._begin())
        except BaseException:
            await self._abort()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self._done:
            await self._abort()

    async def put(self, number: int, content: bytearray | memoryview | bytes) -> None:
        """Send a part, as soon as not too many are on their way."""
        await self._room(number, len(content))
        self._tasks[asyncio.ensure_future(self._send(number, memoryview(content)))] = len(content)

    async def copy(self, number: int, source: str, etag: str | None, start: int, stop: int) -> None:
        """Have the server copy bytes of an object as a part."""
        headers = {"x-amz-copy-source": source, "x-amz-copy-source-range": f"bytes={start}-{stop - 1}"}
        if etag is not None:
            headers["x-amz-copy-source-if-match"] = f'"{etag}"'
        await self._room(number, UNDER_WAY // 4)
        self._tasks[asyncio.ensure_future(self._copy(number, headers))] = UNDER_WAY // 4

    async def complete(self, conditions: Mapping[str, str]) -> Answer:
        """Make the parts an object; raises ``Refused`` where a condition isn't met."""
        while self._tasks:
            await self._one_done()
        parts = "".join(
            f'<Part><PartNumber>{number}</PartNumber><ETag>"{escape(self._etags[number])}"</ETag></Part>'
            for number in sorted(self._etags)
        )
        body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
        request = Request("POST", self._key, {"uploadId": self._id}, conditions, body, LONG)
        answer = await settled(self._client.call(request))
        self._done = True
        return answer

    async def _begin(self) -> None:
        request = Request("POST", self._key, {"uploads": ""}, self._headers)
        answer = await self._client.call(request)
        self._id = text_of(answer.body, "UploadId")
        if not self._id:
            raise Unreadable("the answer to a new upload names none")

    async def _room(self, number: int, size: int) -> None:
        if number > MAX_PARTS:
            raise StorageError(f"the content is larger than {MAX_PARTS} parts can hold; split it")
        while self._tasks and sum(self._tasks.values()) + size > UNDER_WAY:
            await self._one_done()

    async def _send(self, number: int, content: memoryview) -> None:
        query = {"partNumber": str(number), "uploadId": self._id}
        answer = await self._client.call(Request("PUT", self._key, query, {}, content))
        self._etags[number] = unquoted(answer.headers.get("etag")) or ""

    async def _copy(self, number: int, headers: Mapping[str, str]) -> None:
        query = {"partNumber": str(number), "uploadId": self._id}
        answer = await self._client.call(Request("PUT", self._key, query, headers, b"", LONG))
        self._etags[number] = unquoted(text_of(answer.body, "ETag")) or ""

    async def _one_done(self) -> None:
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for each in done:
            del self._tasks[each]
        failed = [
            error for each in done if (error := each.exception()) is not None
        ]  # all are asked for theirs
        if failed:
            raise failed[0]

    async def _abort(self) -> None:
        """Stop what is under way, and have the server forget it; what can't be told to it, a lifecycle rule ends."""
        self._done = True
        tasks, self._tasks = list(self._tasks), {}
        for each in tasks:
            each.cancel()
        if tasks:
            await settled(_ended(tasks))
        if self._id:
            with suppress(Refused, Lost, Unreadable, StorageError):
                await settled(self._forget())

    async def _forget(self) -> None:
        query = {"uploadId": self._id}
        for turn in range(ABORTS):
            await asyncio.sleep(0.1 * turn)
            try:
                await self._client.call(Request("DELETE", self._key, query))
                await self._client.call(Request("GET", self._key, {**query, "max-parts": "1"}))
            except Refused as error:
                if error.fault.code == "NoSuchUpload" or error.fault.status == 404:
                    return
                raise


async def _ended(tasks: list[asyncio.Task[None]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)


async def upload_all(upload: Upload, first: bytearray, rest: AsyncIterator[bytearray]) -> int:
    """Send all parts, the first of which was taken already; their bytes."""
    size, number = len(first), 1
    await upload.put(number, first)
    del first
    async for part in rest:
        number, size = number + 1, size + len(part)
        await upload.put(number, part)
        del part
    return size
