"""What a server of objects says in XML, read into values."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from urllib.parse import unquote_plus

__all__ = [
    "Fault",
    "Listed",
    "Page",
    "Unreadable",
    "fault_of",
    "page_of",
    "seconds_of",
    "text_of",
    "unquoted",
]

_MAX_TEXT = 300


class Unreadable(Exception):
    """The answer is not what S3 says."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a server refused."""

    status: int
    code: str
    """S3's own word for it: "NoSuchKey"; "" where the server gave none."""
    message: str
    """The server's, shortened; it has no secrets of ours, but is its own."""
    region: str = ""
    """Where the bucket is, if the server said."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One object of a listing, or, where ``size`` is -1, all that start with ``key``."""

    key: str
    """In the bucket."""
    size: int
    etag: str | None
    modified_at: float | None


@dataclass(frozen=True, slots=True)
class Page:
    """Some objects, and where those begin that follow."""

    found: list[Listed]
    next: str | None


def fault_of(status: int, headers: dict[str, str], body: bytes) -> Fault:
    """What an answer that is no success says."""
    region = headers.get("x-amz-bucket-region", "")
    try:
        root = _parsed(body)
    except Unreadable:
        return Fault(status, "", "", region)
    if _name(root) != "Error":
        root = next((each for each in root.iter() if _name(each) == "Error"), root)
    told = {_name(each): (each.text or "").strip() for each in root}
    message = told.get("Message", "")
    shown = "".join(each if each.isprintable() else " " for each in message)[:_MAX_TEXT]
    return Fault(status, told.get("Code", "")[:80], shown, region or told.get("Region", "")[:40])


def page_of(body: bytes) -> Page:
    """A page of a listing."""
    root = _parsed(body)
    if _name(root) != "ListBucketResult":
        raise Unreadable(f"a listing was asked for, and the answer is {_name(root)[:40]!r}")
    told = {_name(each): each.text or "" for each in root}
    quoted = told.get("EncodingType") == "url"
    more = told.get("NextContinuationToken") if told.get("IsTruncated") == "true" else None
    if told.get("IsTruncated") not in ("true", "false") or (told["IsTruncated"] == "true" and not more):
        raise Unreadable("a listing doesn't say how it goes on")
    return Page(list(_found(root, quoted)), more)


def _found(root: ET.Element, quoted: bool) -> Iterator[Listed]:
    for each in root:
        kind = _name(each)
        if kind == "Contents":
            told = {_name(part): part.text or "" for part in each}
            key = unquote_plus(told["Key"]) if quoted else told["Key"]
            yield Listed(
                key, int(told["Size"]), unquoted(told.get("ETag")), seconds_of(told.get("LastModified"))
            )
        elif kind == "CommonPrefixes":
            key = "".join(part.text or "" for part in each if _name(part) == "Prefix")
            yield Listed(unquote_plus(key) if quoted else key, -1, None, None)


def text_of(body: bytes, name: str) -> str:
    """The text of the first element of a name; "" where there is none."""
    return next((each.text or "" for each in _parsed(body).iter() if _name(each) == name), "")


def unquoted(etag: str | None) -> str | None:
    """An etag without the quotes that some answers put around it."""
    return etag.strip('"') or None if etag else None


def seconds_of(text: str | None) -> float | None:
    """Seconds since the epoch, of a time as headers or listings have it."""
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text) if text[:1].isdigit() else parsedate_to_datetime(text)
    except ValueError:
        return None
    return found.timestamp()


def _name(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def _parsed(body: bytes) -> ET.Element:
    if b"<!DOCTYPE" in body or b"<!ENTITY" in body:  # S3 has none, and entities can grow without bound
        raise Unreadable("the answer declares entities, which S3's never do")
    try:
        return ET.fromstring(body)
    except ET.ParseError as error:
        raise Unreadable(f"the answer is no XML ({error})") from None
