"""Listings are in order of UTF-8 bytes, whatever order the server has: as AWS lists, and as servers with folders do.

The real server of the tests is of the second kind; what AWS answers is written down here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote_plus, unquote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmengine_core.interfaces.storage import StorageError
from llmengine_core.testing.contracts.storages.ground import listed
from llmengine_s3 import listing
from llmengine_s3.answers import Unreadable, page_of
from llmengine_s3.client import Answer, Client, Request
from llmengine_s3.listing import Listing
from llmengine_s3.places import Place, fault_of, place_of
from llmengine_s3.storage import S3Storage

if TYPE_CHECKING:
    from tests.servers.seaweed import S3Server

FOLDER = "some %+/folder/"


class Server(Client):
    """Answers as a server with these keys does: in order of bytes, or one folder after the other."""

    def __init__(self, keys: set[str], *, by_folder: bool = False, name: str = "AmazonS3") -> None:
        super().__init__(Place("bucket", FOLDER), {})
        split = "/" if by_folder else "\0"

        def order(key: str) -> list[bytes]:
            return [each.encode() for each in key.split(split)]

        self.keys = sorted(keys, key=order)
        self.order = order
        self.name = name
        self.asked = 0

    async def call(self, request: Request, *, most: int = 0) -> Answer:
        self.asked += 1
        query = request.query
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        names: dict[str, bool] = {}
        for key in self.keys:
            if key.startswith(prefix):
                head, sign, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
                names[prefix + head + sign if delimiter else key] = bool(sign)
        found = list(names)
        number, _, after = query.get("continuation-token", f"0 {query.get('start-after', '')}").partition(" ")
        start = int(number)
        if after := unquote_plus(after) if "continuation-token" in query else after:
            found = [key for key in found if self.order(key) > self.order(after)]
        page = found[start : start + int(query["max-keys"])]
        more = start + len(page) < len(found)
        parts = [
            f"<CommonPrefixes><Prefix>{quote_plus(key)}</Prefix></CommonPrefixes>"
            if names[key]
            else f"<Contents><Key>{quote_plus(key)}</Key><Size>{len(key)}</Size><ETag>&quot;e&quot;</ETag>"
            "<LastModified>2026-01-02T03:04:05.000Z</LastModified></Contents>"
            for key in page
        ]
        token = (
            f"<NextContinuationToken>{start + len(page)} {quote_plus(after)}</NextContinuationToken>"
            if more
            else ""
        )
        body = (
            "<?xml version='1.0'?><ListBucketResult xmlns='http://s3.amazonaws.com/doc/2006-03-01/'>"
            f"<EncodingType>url</EncodingType><IsTruncated>{str(more).lower()}</IsTruncated>{token}{''.join(parts)}"
            "</ListBucketResult>"
        )
        return Answer(200, {"server": self.name}, body.encode(), False)


names = st.text(st.sampled_from("a b-./0\uffffé\U00010000"), max_size=5) | st.sampled_from(
    ["a", "a/b", "a/b/c", "a b", "a-b/c", "a/", "a//b", "", "a0", "A"]
)


@given(
    keys=st.sets(names, max_size=12),
    prefix=names,
    after=st.none() | names,
    page=st.integers(1, 4),
    server=st.sampled_from([(False, "AmazonS3"), (True, "SeaweedFS 4"), (False, "SeaweedFS 4")]),
)
async def test_listings_are_in_order_of_bytes(
    keys: set[str], prefix: str, after: str | None, page: int, server: tuple[bool, str]
) -> None:
    place = Place("bucket", FOLDER)
    ours = Server({FOLDER + key for key in keys} | {"some", "some z"}, by_folder=server[0], name=server[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listing, "PAGE", page)
        found = [each.key async for each in Listing(ours, place).objects(prefix, after)]
    wanted = (
        each for each in keys if not fault_of(each) and each.startswith(prefix) and each > (after or "")
    )
    assert found == sorted(
        (each for each in wanted if each.encode() > (after or "").encode()), key=str.encode
    )


@given(keys=st.sets(names, max_size=12), page=st.integers(1, 20))
async def test_a_server_that_lists_by_folder_unannounced_is_noticed_or_refused(
    keys: set[str], page: int
) -> None:
    """Nothing is left out and nothing is out of order; where that was too late to see, the next listing knows."""
    place = Place("bucket", FOLDER)
    ours = Listing(Server({FOLDER + key for key in keys}, by_folder=True, name="another"), place)
    due = sorted((each for each in keys if not fault_of(each)), key=str.encode)
    found: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listing, "PAGE", page)
        try:
            found.extend([each.key async for each in ours.objects("", None)])
        except StorageError as error:
            refused = str(error)
            assert "doesn't list in order" in refused
            assert page < len(keys)
            found = [each.key async for each in ours.objects("", None)]
    assert found == due


async def test_pages_are_asked_for_as_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "PAGE", 10)
    ours = Server({f"{FOLDER}{number:03}" for number in range(100)})
    found = Listing(ours, Place("bucket", FOLDER)).objects("", None)
    for _ in range(10):
        await anext(found)
    assert ours.asked == 1
    await anext(found)
    assert ours.asked == 2
    await found.aclose()


def test_what_is_no_listing_is_told() -> None:
    cut = b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>"
    for body in (
        b"",
        b"<html/>",
        b"{}",
        b"<!DOCTYPE x><ListBucketResult/>",
        b"<ListBucketResult/>",
        cut,
        cut[:9],
    ):
        with pytest.raises(Unreadable):
            page_of(body)


async def test_what_others_put_is_listed_where_it_has_a_key(only_server: S3Server) -> None:
    bucket = only_server.bucket()
    client = only_server.client()
    for key in (
        "folder/k",
        "folder/a b+c%2F?#&=é\u2028",
        "folder/empty/",
        "folderless",
        "folder/\U0001f600/x",
    ):
        client.put_object(Bucket=bucket, Key=key, Body=b"content")
    storage = S3Storage(f"s3://{bucket}/folder")
    found = [each.key for each in await listed(storage)]
    assert found == ["a b+c%2F?#&=é\u2028", "k", "\U0001f600/x"]
    for key in found:
        assert b"".join([piece async for piece in storage.get(key)]) == b"content"
        await storage.put(key, key.encode())
        assert client.get_object(Bucket=bucket, Key=f"folder/{key}")["Body"].read() == key.encode()
    await storage.aclose()


@given(st.text(max_size=12))
def test_only_keys_are_keys(text: str) -> None:
    fault = fault_of(text)
    control = any(ord(each) < 32 or 127 <= ord(each) < 160 or 0xD800 <= ord(each) < 0xE000 for each in text)
    assert bool(fault) == (control or any(each in ("", ".", "..") for each in text.split("/")))
    if not fault and "%" not in text and "?" not in text and "#" not in text:
        assert place_of("s3://bucket/folder").full(text) == f"folder/{text}"
        assert place_of("s3://bucket/folder").own(f"folder/{text}") == text
