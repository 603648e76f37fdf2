"""What is in an archive, without unpacking it: as much as can be told by reading a bounded part of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from llmengine_core.archives import BadArchive, Pieces, opened_up, top_of
from llmengine_core.checkpoints import MoreNeeded, describe
from llmengine_core.tar import Member, members
from llmengine_core.types.plan import CheckpointFacts, Problem

__all__ = ["Bounds", "ReadAt", "describe_packed"]

ReadAt = Callable[[int, int], bytes]
"""The bytes of an archive from one place to before another, all of them."""
WINDOW = 64 << 10
"""Bytes that are read at once where a header is expected: what follows it tells a file's format."""
SNIFFED = 4 << 10
"""Bytes of each file that are kept of a plain archive, where they are met with."""
KEPT = 64 << 10
"""Bytes of each file that are kept when a compressed archive is gone through for the first time."""
KEPT_IN_ALL = 64 << 20
"""Bytes that are kept of all of them."""
MOST_PASSES = 4
"""How often a compressed archive is gone through: files that say how long their headers are need another time."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may be read to tell what is in an archive."""

    seconds: float
    reads: int
    bytes: int
    """Of the archive, in all."""
    unpacked: int
    """Bytes that they may become."""


class _TooMuch(Exception):
    """It can't be told within the bounds."""


@dataclass(slots=True)
class _Bounded:
    """Reads an archive as far as bounds allow."""

    read_at: ReadAt
    size: int
    bounds: Bounds
    reads: int = 0
    taken: int = 0
    until: float = field(init=False)

    def __post_init__(self) -> None:
        self.until = time.monotonic() + self.bounds.seconds

    def read(self, start: int, stop: int) -> bytes:
        stop = min(stop, self.size)
        if start >= stop:
            return b""
        self.reads += 1
        self.taken += stop - start
        if self.reads > self.bounds.reads or self.taken > self.bounds.bytes or time.monotonic() > self.until:
            raise _TooMuch
        return self.read_at(start, stop)


class _Windows:
    """A plain archive, of which what is asked for is read, and a little more."""

    def __init__(self, file: _Bounded) -> None:
        self._file = file
        self.at = 0
        self._start, self._window = 0, b""

    def read(self, count: int) -> bytes:
        found = self.between(self.at, self.at + count)
        self.at += len(found)
        return found

    def skip(self, count: int) -> None:
        self.at += count

    def between(self, start: int, stop: int) -> bytes:
        """The bytes of a place, from what is here if they are."""
        if not self._start <= start <= stop <= self._start + len(self._window):
            self._start, self._window = start, self._file.read(start, max(stop, start + WINDOW))
        return self.here(start, stop)

    def here(self, start: int, stop: int) -> bytes:
        """As many of them as are here."""
        return self._window[start - self._start : stop - self._start] if start >= self._start else b""


Path: TypeAlias = tuple[str, ...]


def describe_packed(url: str, kind: str, read_at: ReadAt, size: int, bounds: Bounds) -> CheckpointFacts:
    """Describe what is in an archive of ``size`` bytes.

    Where that can't be told within the bounds its format is None; what can't be used is a ``Problem``. Blocks.
    """
    file = _Bounded(read_at, size, bounds)
    try:
        seen = _describe_plain(url, file) if kind == "tar" else _describe_compressed(url, kind, file)
    except _TooMuch:
        seen = CheckpointFacts(url=url)
    except BadArchive as error:
        problem = Problem(f"the archive {url} can't be used: {error.reason}", error.mend)
        seen = CheckpointFacts(url=url, problem=problem)
    return replace(seen, archive=kind)


def _describe_plain(url: str, file: _Bounded) -> CheckpointFacts:
    """Headers are walked, and what else is needed is read from its place."""
    source = _Windows(file)
    places: dict[Path, int] = {}
    listing = _Listing()
    for member in members(source):
        places[member.path] = source.at
        listing.add(member, source.here(source.at, source.at + min(member.size or 0, listing.room(SNIFFED))))

    def read(wanted: Mapping[Path, int]) -> dict[Path, bytes]:
        return {path: source.between(places[path], places[path] + stop) for path, stop in wanted.items()}

    return listing.describe(url, read)


def _describe_compressed(url: str, kind: str, file: _Bounded) -> CheckpointFacts:
    """It is gone through as a whole, and once more up to what else is needed."""
    listing = _Listing()
    for member in members(_unpacked(kind, file)):
        listing.add(member, member.read(listing.room(KEPT)))
    passes = 1

    def read(wanted: Mapping[Path, int]) -> dict[Path, bytes]:
        nonlocal passes
        passes += 1
        if passes > MOST_PASSES:
            raise _TooMuch
        found: dict[Path, bytes] = {}
        for member in members(_unpacked(kind, file)):
            if member.path in wanted:
                found[member.path] = member.read(wanted[member.path])
                if len(found) == len(wanted):
                    break
        return found

    return listing.describe(url, read)


def _unpacked(kind: str, file: _Bounded) -> Pieces:
    """The tar archive inside, from its beginning."""
    at = 0

    def read(count: int) -> bytes:
        nonlocal at
        piece = file.read(at, at + count)
        at += len(piece)
        return piece

    def bounded() -> Iterator[bytes]:
        given = 0
        for piece in opened_up(kind, read):
            given += len(piece)
            if given > file.bounds.unpacked:
                raise _TooMuch
            yield piece

    return Pieces(bounded())


class _Listing:
    """The files of an archive, and as much of each as was met with."""

    def __init__(self) -> None:
        self._sizes: dict[Path, int] = {}
        self._heads: dict[Path, bytes] = {}
        self._folders: list[Path] = []
        self._kept = 0

    def room(self, most: int) -> int:
        """How many bytes of the next file are kept, at most."""
        return min(most, KEPT_IN_ALL - self._kept)

    def add(self, member: Member, head: bytes) -> None:
        if member.size is None:
            self._folders.append(member.path)
            return
        self._sizes[member.path], self._heads[member.path] = member.size, head
        self._kept += len(head)

    def describe(self, url: str, read: Callable[[Mapping[Path, int]], dict[Path, bytes]]) -> CheckpointFacts:
        """Describe them as a folder; ``read`` gives the first bytes of those that are needed besides."""
        if not self._sizes:
            raise BadArchive("it holds no files")
        top = top_of(self._sizes, self._folders)
        paths = {"/".join(path[len(top) :]): path for path in self._sizes}
        sizes = {name: self._sizes[path] for name, path in paths.items()}
        heads = {name: self._heads[path] for name, path in paths.items()}
        while True:
            try:
                return describe(url, sizes, heads, folder=True).facts
            except MoreNeeded as more:
                heads |= {name: b"" for name in more.wanted if name not in paths}
                found = read({paths[name]: stop for name, stop in more.wanted.items() if name in paths})
                heads |= {name: found[paths[name]] for name in more.wanted if name in paths}
