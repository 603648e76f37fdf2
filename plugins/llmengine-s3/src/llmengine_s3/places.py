"""URLs of buckets, and the keys in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from llmengine_core.interfaces.storage import StorageError

__all__ = ["MAX_KEY", "Place", "place_of"]

MAX_KEY = 1024
"""Bytes of UTF-8 that a key may have in S3, its folder included."""

_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters, and halves of surrogate pairs: what stands for bytes that are no UTF-8."""
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")
_ALLOWED = (
    "allowed is s3://bucket or s3://bucket/folder, with %XX for what a URL can't hold ('%', '?', '#', ...)"
)


@dataclass(frozen=True, slots=True)
class Place:
    """A bucket, and the folder in it that keys are relative to."""

    bucket: str
    folder: str
    """ "" or "some/folder/"."""

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.folder}".rstrip("/")

    def full(self, key: str) -> str:
        """The key in the bucket. Raises ``StorageError`` for text that is no key."""
        if fault := fault_of(key):
            raise StorageError(f"{key[:200]!r} is no key: {fault}")
        if len(full := self.folder + key) > MAX_KEY // 4 and len(full.encode()) > MAX_KEY:
            raise StorageError(
                f"{key[:40]!r}... has {len(full.encode())} bytes of UTF-8 with its folder; S3 takes {MAX_KEY}: "
                "shorten it"
            )
        return full

    def own(self, full: str) -> str | None:
        """The key here of one in the bucket; None where it is none, as what others put may be."""
        if not full.startswith(self.folder):
            return None
        key = full[len(self.folder) :]
        return None if fault_of(key) else key


def fault_of(key: str) -> str:
    """Why a text is no key; "" where it is one."""
    if found := _FORBIDDEN.search(key):
        return f"{found[0]!r} is a control character or half a character; allowed is any other Unicode"
    if key.startswith("/") or key.endswith("/") or "//" in key or not key:
        return 'it has the segment ""; segments are joined by one "/", and none is empty, "." or ".."'
    if "." in key:
        for name in key.split("/"):
            if name in (".", ".."):
                return f'it has the segment {name!r}; segments are joined by one "/", none empty, "." or ".."'
    return ""


def place_of(url: str) -> Place:
    """What a URL names. Raises ``StorageError``, which never holds what may be a secret."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise StorageError(f"the URL names no bucket; {_ALLOWED}") from None
    if "@" in parts.netloc or ":" in parts.netloc:  # of a secret with a "/" in it, the rest is in the path
        raise StorageError(
            "the URL of a bucket holds ':' or '@' before its folder, and so what may be a secret, which would end up "
            f"in logs; {_ALLOWED}; AWS_ENDPOINT_URL names a server, and AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or AWS_PROFILE, give credentials"
        )
    if parts.query or parts.fragment:
        raise StorageError(f"the URL of the bucket {parts.netloc!r} has a query or a fragment; {_ALLOWED}")
    if parts.scheme != "s3" or not _BUCKET.fullmatch(parts.netloc) or not url.isprintable():
        raise StorageError(f"{url!r} names no bucket; {_ALLOWED}")
    try:
        folder = unquote(parts.path, errors="strict").removeprefix("/").removesuffix("/")
    except ValueError as error:
        raise StorageError(f"{url!r} names no bucket: {error}; {_ALLOWED}") from None
    if folder and (fault := fault_of(folder)):
        raise StorageError(f"{url!r} names no folder of a bucket: {fault}")
    return Place(parts.netloc, f"{folder}/" if folder else "")
