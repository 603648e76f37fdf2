"""Archives by their first bytes, and the members of a tar archive, one after the other, as a stream gives them.

Whoever packed it isn't trusted: of what the format can hold only files and folders are let through, whose names
stay where they are put and come once. All that is read is bounded before it is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

__all__ = ["BLOCK", "KINDS", "BadArchive", "Member", "Source", "is_header", "kind_of", "members"]

KINDS = ("tar", "tar.gz", "tar.zst")
BLOCK = 512
"""Bytes; all of a tar archive comes in blocks."""
MOST_MEMBERS = 10_000
"""As many as a folder may hold that is taken for a checkpoint."""
HEADER_LIMIT = 1 << 20
"""Bytes of an extended header, which holds long names, and attributes that aren't looked at."""
MOST_HEADERS = 4
"""Extended headers of one member; programs write one for its name, one for the name of a link, one for the rest."""
NAME_LIMIT, PATH_LIMIT, DEPTH_LIMIT = 255, 1024, 16
"""Bytes of a name and of a path, folders in folders. Disks take names of 255 bytes."""
PADDING_LIMIT = 16 << 20
"""Bytes of zeros behind the last member; tar writes 10,240 unless told otherwise."""
STEP = 1 << 20
"""Bytes that are read at a time where nobody wants them."""
FORBIDDEN = re.compile("[\x00-\x1f\x7f\ud800-\udfff\\\\]")
REPACK = "pack it again with `tar --dereference --hard-dereference -cf`"
REFUSED = {
    "1": ("a hard link", REPACK),
    "2": ("a symbolic link", REPACK),
    "3": ("a device", None),
    "4": ("a device", None),
    "6": ("a pipe", None),
    "S": ("a sparse file", "pack it again without --sparse"),
    "M": ("a part of a file that goes on in another volume", "pack it again as one volume"),
    "D": ("a list of a folder from an incremental backup", "pack it again without --incremental"),
}
"""What else may be in an archive, by its type, and what mends it."""
GZIP, ZSTD, SKIPPABLE = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\x2a\x4d\x18"
STRANGERS = {
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"Rar!": "RAR",
    b"\x04\x22\x4d\x18": "lz4",
}
"""What other programs' archives begin with."""
FILE, FOLDER, LONG_NAME, LONG_LINK, EXTENDED, SHARED, LABEL = "0\x007", "5", "L", "K", "xX", "g", "V"


class BadArchive(ValueError):
    """An archive that can't be unpacked, or must not be; says why, and what mends it where something does."""

    def __init__(self, reason: str, mend: str | None = None) -> None:
        super().__init__(reason)
        self.reason, self.mend = reason, mend


class Source(Protocol):
    """The bytes of an archive, from its first to its last."""

    def read(self, count: int) -> bytes:
        """The next bytes; fewer only at the end."""

    def skip(self, count: int) -> None:
        """Pass over bytes; behind the end, ``read`` gives none."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file or folder."""

    path: tuple[str, ...]
    """The names of its folders and, last, its own."""
    size: int | None
    """Bytes; None for a folder."""
    read: Callable[[int], bytes]
    """The next bytes of its content, at most so many; none at its end. Only until the next member is asked for."""


def kind_of(head: bytes) -> str | None:
    """The kind of an archive by its first 512 bytes; None where it is none. Raises ``BadArchive`` for other kinds."""
    if is_header(head[:BLOCK]):
        return "tar"
    if head.startswith(GZIP):
        return "tar.gz"
    if head.startswith(ZSTD) or (head[1:4] == SKIPPABLE and head[0] >> 4 == 5):
        return "tar.zst"
    for magic, name in STRANGERS.items():
        if head.startswith(magic):
            raise BadArchive(
                f"it is packed with {name}; archives that are taken are .tar, .tar.gz and .tar.zst",
                "pack it as one of these, or unpack it and name the folder",
            )
    return None


def is_header(block: bytes) -> bool:
    """Whether a block begins a member: whether its checksum is right."""
    if len(block) != BLOCK:
        return False
    try:
        said = _number(block[148:156])
    except BadArchive:
        return False
    if not block.strip(b"\0"):
        return False
    rest = block[:148] + b" " * 8 + block[156:]
    return said == sum(rest) or said == sum(rest) - 256 * sum(
        each > 127 for each in rest
    )  # old programs' signed bytes


def members(source: Source) -> Iterator[Member]:
    """The files and folders of an archive, in its order. Raises ``BadArchive`` when it comes to what is wrong.

    Its own top, ``./``, is no member, and neither are the files beside files that macOS writes (``._name``).
    """
    files: set[tuple[str, ...]] = set()
    folders: set[tuple[str, ...]] = set()
    count = 0
    while (header := _next(source)) is not None:
        count += 1
        if count > MOST_MEMBERS:
            raise BadArchive(f"it holds more than {MOST_MEMBERS:,} files and folders; it is no checkpoint")
        path = _path(header.name)
        content = _Content(source, header)
        if path and not path[-1].startswith("._"):
            _take(path, files, folders, folder=header.folder)
            yield Member(path, None if header.folder else header.size, content.read)
        content.finish()
    _finish(source)


def _take(
    path: tuple[str, ...], files: set[tuple[str, ...]], folders: set[tuple[str, ...]], *, folder: bool
) -> None:
    """Note a member; every name is of one thing, and of one file once."""
    above = {path[:depth] for depth in range(1, len(path))}
    clash = path in files or (not folder and path in folders) or not files.isdisjoint(above)
    if clash:
        raise BadArchive(
            f"it holds {'/'.join(path)!r} more than once, or as a file and a folder", "pack it again"
        )
    folders |= above
    (folders if folder else files).add(path)


@dataclass(frozen=True, slots=True)
class _Header:
    name: str
    size: int
    folder: bool


class _Content:
    """The bytes of a member; what isn't read is passed over."""

    def __init__(self, source: Source, header: _Header) -> None:
        self._source, self._header = source, header
        self._left = header.size

    def read(self, count: int) -> bytes:
        wanted = min(count, self._left)
        found = self._source.read(wanted) if wanted else b""
        if len(found) < wanted:
            raise BadArchive(f"it is truncated: it ends within {self._header.name[:PATH_LIMIT]!r}")
        self._left -= len(found)
        return found

    def finish(self) -> None:
        self._source.skip(self._left + -self._header.size % BLOCK)
        self._left = 0


def _next(source: Source) -> _Header | None:
    """The next header of a file or folder, with what extends it; None at the end."""
    extended = _Extended()
    for _ in range(MOST_HEADERS + 1):
        block = source.read(BLOCK)
        if len(block) < BLOCK:
            raise BadArchive("it is truncated: it has no end mark")
        if not block.strip(b"\0"):
            return None
        if not is_header(block):
            raise BadArchive("it is damaged: a header's checksum is wrong")
        kind, length = chr(block[156]), _number(block[124:136])
        if kind in FILE or kind == FOLDER:
            name = _plain_name(block) if extended.name is None else extended.name
            length = length if extended.size is None else extended.size
            folder = kind == FOLDER or name.endswith("/")
            return _Header(name, 0 if folder else length, folder)
        if kind in REFUSED:
            what, mend = REFUSED[kind]
            raise BadArchive(f"it holds {what}: {(extended.name or _plain_name(block))[:100]!r}", mend)
        if length > HEADER_LIMIT:
            raise BadArchive(f"a header of it claims {length:,} bytes; at most {HEADER_LIMIT:,} are read")
        extended.take(kind, _padded(source, length))
    raise BadArchive(f"it has more than {MOST_HEADERS} headers for one file")


class _Extended:
    """What headers before a file's own say of it."""

    name: str | None = None
    size: int | None = None

    def take(self, kind: str, content: bytes) -> None:
        if kind == LONG_NAME:
            self.name = _text(content.partition(b"\0")[0])
        elif kind in EXTENDED:
            records = _records(content)
            if b"path" in records:
                self.name = _text(records[b"path"])
            if b"size" in records:
                self.size = _decimal(records[b"size"])
        elif kind == SHARED:
            if {b"path", b"size"} & _records(content).keys():
                raise BadArchive("a header of it gives one name or size to all files")
        elif kind not in (LONG_LINK, LABEL):
            raise BadArchive(f"it holds something of the unknown type {kind!r}")


def _padded(source: Source, length: int) -> bytes:
    content = source.read(length)
    if len(content) < length:
        raise BadArchive("it is truncated: it ends within a header")
    source.skip(-length % BLOCK)
    return content


def _finish(source: Source) -> None:
    """Read on behind the end mark: there are zeros, and a compressed stream tells whether it was whole."""
    done = 0
    while piece := source.read(STEP):
        done += len(piece)
        if piece.strip(b"\0"):
            raise BadArchive("it goes on behind its end mark", "pack it again as one archive")
        if done > PADDING_LIMIT:
            raise BadArchive(f"more than {PADDING_LIMIT:,} bytes of zeros follow its end mark")


def _path(name: str) -> tuple[str, ...]:
    """The parts of a member's name; none where it is the archive's own top."""
    shown = name if len(name) <= 100 else f"{name[:100]}…"
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if name.startswith("/") or ".." in parts:
        raise BadArchive(f"it holds {shown!r}, which would land outside its folder")
    if FORBIDDEN.search(name):
        raise BadArchive(f"it holds {shown!r}, a name with a backslash or a control character")
    lengths = [len(part.encode()) for part in parts]
    if any(length > NAME_LIMIT for length in lengths) or sum(lengths) + len(lengths) > PATH_LIMIT:
        raise BadArchive(
            f"it holds {shown!r}; names have at most {NAME_LIMIT} bytes, and {PATH_LIMIT:,} with those of their folders"
        )
    if len(parts) > DEPTH_LIMIT:
        raise BadArchive(f"it holds {shown!r}; folders lie at most {DEPTH_LIMIT} deep")
    return parts


def _plain_name(block: bytes) -> str:
    """The name in a header itself; only POSIX's form has a second part."""
    name, prefix = (part.partition(b"\0")[0] for part in (block[:100], block[345:500]))
    posix = block[257:263] == b"ustar\0"
    return _text(prefix + b"/" + name if posix and prefix else name)


def _records(content: bytes) -> dict[bytes, bytes]:
    """The records of an extended header: "22 path=some/where.bin\\n"."""
    records: dict[bytes, bytes] = {}
    at = 0
    while at < len(content) and content[at : at + 1] != b"\0":
        written = content[at : at + 8].partition(b" ")[0]
        length = _decimal(written)
        key, mark, value = content[at + len(written) + 1 : at + length - 1].partition(b"=")
        if not mark or content[at + length - 1 : at + length] != b"\n":
            raise BadArchive("it is damaged: an extended header can't be read")
        if key.startswith(b"GNU.sparse."):
            what, mend = REFUSED["S"]
            raise BadArchive(f"it holds {what}", mend)
        records[key] = value
        at += length
    return records


def _decimal(written: bytes) -> int:
    if not written.isdigit() or len(written) > 19:
        raise BadArchive(f"it is damaged: {written[:20]!r} is no size")
    return int(written)


def _number(field: bytes) -> int:
    """A number of a header: in octal digits, or, where it is too large for them, in binary."""
    if field[0] & 0x80:
        found = int.from_bytes(field, "big") - (0x80 << 8 * (len(field) - 1))
        if found >= 1 << 63:
            raise BadArchive(f"it is damaged: {field!r} is no size")
        return found
    written = field.partition(b"\0")[0].strip(b" ")
    if not re.fullmatch(b"[0-7]*", written):
        raise BadArchive(f"it is damaged: {field!r} is no size")
    return int(written or b"0", 8)


def _text(written: bytes) -> str:
    try:
        return written.decode()
    except UnicodeDecodeError:
        raise BadArchive(f"it holds {written[:100]!r}, a name that is no UTF-8") from None
