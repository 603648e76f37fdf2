"""Listing: the keys of a folder in order of their UTF-8 bytes, whatever the server's own order is.

S3 lists in that order. Some servers that keep folders list one folder after the other, so that "a/b" comes before
"a b": of those each folder is listed by itself, and what lies in it when its turn has come.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import AsyncGenerator

from llmengine_core.interfaces.storage import StorageError
from llmengine_core.types.objects import ObjectMeta
from llmengine_s3.answers import Listed, Page, page_of
from llmengine_s3.client import Client, Request
from llmengine_s3.places import MAX_KEY, Place

__all__ = ["Listing"]

PAGE = 1000
"""Objects that are asked for at once; S3 gives no more."""
MOST = 16 << 20
"""Bytes that a page may have."""
_ODD = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class Listing:
    """The objects of one bucket."""

    def __init__(self, client: Client, place: Place) -> None:
        self._client = client
        self._place = place
        self._by_folder = False
        """Whether the server was seen to list folder by folder."""

    async def objects(self, prefix: str, after: str | None) -> AsyncGenerator[ObjectMeta, None]:
        """Those whose keys start with ``prefix``, from behind ``after`` on. Raises ``Refused`` and ``Lost``."""
        start = self._place.folder + prefix
        if _ODD.search(prefix) or len(start.encode()) > MAX_KEY:  # no key starts like that
            return
        behind = _bytes(self._place.folder + after) if after else b""
        last = behind
        if not self._by_folder:
            async for each in self._flat(start, behind):
                if each is None:
                    break
                last = each.key.encode()
                if each.key.startswith(start) and (meta := self._meta(each)) is not None:
                    yield meta
            else:
                return
        async for each in self._folders(start, last):
            if each.key.startswith(start) and (meta := self._meta(each)) is not None:
                yield meta

    def _meta(self, found: Listed) -> ObjectMeta | None:
        """None for what others have put under keys that are none here, as markers of folders."""
        key = self._place.own(found.key)
        return None if key is None else ObjectMeta(key, found.size, found.etag, found.modified_at)

    async def _flat(self, start: str, behind: bytes) -> AsyncGenerator[Listed | None, None]:
        """All pages as the server has them; None, as the last, where they turn out not to be in order."""
        last, token = behind, None
        while True:
            page = await self._page(start, token, after=_text(behind))
            keys = [each.key.encode() for each in page.found]
            keys = [each for each in keys if each > behind]
            if self._by_folder or any(one >= other for one, other in zip([last, *keys], keys, strict=False)):
                self._by_folder = True
                if token is not None and keys and min(keys) < last:
                    raise StorageError(
                        "the server doesn't list in order, as S3 does; nothing was missed until now: list again"
                    )
                yield None
                return
            for each in page.found:
                if each.key.encode() > behind:
                    yield each
            last = keys[-1] if keys else last
            if page.next is None or (token := page.next) is None:
                return

    async def _folders(self, start: str, behind: bytes) -> AsyncGenerator[Listed, None]:
        """One folder after the other, each in its turn."""
        waiting: list[tuple[bytes, Listed]] = []
        token, more = None, True
        while more:
            page = await self._page(start, token, delimiter="/")
            more, token = page.next is not None, page.next
            # The server's order is that of names, in which a folder's ends before its "/".
            for each in sorted(page.found, key=lambda each: each.key.removesuffix("/").encode()):
                name = each.key.removesuffix("/").encode()
                while waiting and waiting[0][0] <= name:
                    async for found in self._in_turn(heapq.heappop(waiting)[1], start, behind):
                        yield found
                heapq.heappush(waiting, (each.key.encode(), each))
        while waiting:
            async for found in self._in_turn(heapq.heappop(waiting)[1], start, behind):
                yield found

    async def _in_turn(self, found: Listed, start: str, behind: bytes) -> AsyncGenerator[Listed, None]:
        """An object, or all in a folder, behind a key. A folder that is said to be in itself has been listed."""
        key = found.key.encode()
        if found.size >= 0:
            if key > behind:
                yield found
        elif found.key != start and (key > behind or behind.startswith(key)):
            async for each in self._folders(found.key, behind):
                yield each

    async def _page(self, start: str, token: str | None, *, after: str = "", delimiter: str = "") -> Page:
        query = {"list-type": "2", "encoding-type": "url", "max-keys": str(PAGE)}
        wanted = {"prefix": start, "delimiter": delimiter, "continuation-token": token}
        wanted["start-after"] = after if token is None else None
        query |= {name: value for name, value in wanted.items() if value}
        answer = await self._client.call(Request("GET", None, query), most=MOST)
        if answer.headers.get("server", "").startswith("SeaweedFS"):
            self._by_folder = True
        return page_of(answer.body)


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _text(behind: bytes) -> str:
    """The longest beginning of a key that can be sent; what comes behind that and isn't wanted is left out here."""
    text = behind.decode(errors="ignore")
    if found := _ODD.search(text):
        text = text[: found.start()]
    return text.encode()[:MAX_KEY].decode(errors="ignore")
