"""What the cache holds, what it takes of the disk, and what goes when there must be room."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from llmengine_core.cache.entries import away
from llmengine_core.cache.layout import FORMER, Layout, remove
from llmengine_core.cache.records import read_record
from llmengine_core.cache.stamps import Stamps
from llmengine_core.locks import held, tried

__all__ = ["Inventory", "Item", "take_stock"]

STALE_SECONDS = 7 * 86400.0
"""After which what was begun and never finished goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing in the cache that can go as a whole."""

    key: str
    kind: str
    """"fetched", "unpacked", "derived"; "partial" for what is not whole yet."""
    name: str
    source: str
    size: int
    """Bytes, those that it shares with others included."""
    used_at: float
    """Seconds since the epoch: when it was last prepared for use, or written."""
    made_at: float | None
    in_use: bool
    own: int = field(repr=False)
    """Bytes that nothing else shares and that are no blob's."""
    blobs: frozenset[str] = field(repr=False)
    path: Path = field(repr=False)


@dataclass(frozen=True, slots=True)
class Inventory:
    """All that there was at one time."""

    items: tuple[Item, ...]
    """Those that were used longest ago first."""
    blobs: Mapping[str, int]
    """Bytes by SHA-256; also of those that nothing links to."""

    @property
    def size(self) -> int:
        """Bytes in all; what is shared counts once."""
        return sum(item.own for item in self.items) + sum(self.blobs.values())

    @property
    def unused(self) -> int:
        """Bytes that would be free if all went that nobody uses."""
        kept = [item for item in self.items if item.in_use]
        blobs = {blob for item in kept for blob in item.blobs}
        return self.size - sum(item.own for item in kept) - sum(self.blobs.get(each, 0) for each in blobs)


def take_stock(layout: Layout) -> Inventory:
    """Look at everything; reads small files only."""
    items = [*_entries(layout), *_making(layout), *_partial(layout)]
    blobs = {path.name: status.st_size for path, status in _children(layout.blobs)}
    return Inventory(tuple(sorted(items, key=lambda item: item.used_at)), blobs)


def make_room(
    layout: Layout,
    *,
    keep: int | None,
    since: float,
    older_than: float | None = None,
    spare: Collection[str] = (),
    only: str | None = None,
    dry_run: bool = False,
) -> tuple[list[Item], Inventory]:
    """Remove what was used longest ago until ``keep`` bytes are left, and leftovers; what went, and what is left.

    With ``keep`` None nothing goes for its size. The item ``only`` goes in any case, and what was used before the
    time ``older_than``.
    What is in use stays, and what was used at ``since`` or later, and the names in ``spare``.
    """
    if not layout.root.is_dir():
        return [], Inventory((), {})
    went: list[Item] = []
    trash: list[Path] = []
    with held(layout.index):
        found = take_stock(layout)
        left = Counter(blob for item in found.items for blob in item.blobs)
        orphans = found.blobs.keys() - left.keys()
        size = found.size - sum(found.blobs[each] for each in orphans)
        for item in found.items:
            due = _is_leftover(item) or item.key == only or item.used_at < (older_than or 0.0)
            if not due and (keep is None or size <= keep):
                continue
            if item.in_use or item.key in spare or item.used_at >= since:
                continue
            if not (dry_run or _take(layout, item, trash)):
                continue
            went.append(item)
            left.subtract(item.blobs)
            size -= item.own + sum(found.blobs.get(each, 0) for each in item.blobs if not left[each])
        blobs = {each: found.blobs[each] for each in found.blobs if left[each] > 0}
        if not dry_run:
            for each in found.blobs.keys() - blobs.keys():
                with suppress(FileNotFoundError):
                    layout.blob(each).unlink()
            trash += _swept(layout)
    for path in trash:
        remove(path)
    if not dry_run and (went or trash):
        Stamps(layout.stamps).sweep()
    names = {item.key for item in went}
    return went, replace(
        found, items=tuple(each for each in found.items if each.key not in names), blobs=blobs
    )


def _is_leftover(item: Item) -> bool:
    """Whether it was begun, and nobody goes on with it any more."""
    if item.kind != "partial":
        return False
    return item.used_at < time.time() - STALE_SECONDS or (item.path.is_dir() and not item.blobs)


def _take(layout: Layout, item: Item, trash: list[Path]) -> bool:
    """Put an item out of sight, unless somebody began to use it."""
    try:
        with _alone(layout, item) as free:
            gone = away(layout, item.path) if free else None
    except OSError:
        return False
    if gone is not None:
        trash.append(gone)
    return gone is not None


@contextmanager
def _alone(layout: Layout, item: Item) -> Iterator[bool]:
    """Keep others from it, if nobody uses it; whether that is so."""
    if item.kind == "partial":
        with tried(layout.lock(item.key)) as free:
            yield free
        return
    with suppress(FileNotFoundError), (item.path / "record.json").open("rb+") as record:
        yield _lock_alone(record.fileno())
        return
    yield False


def _lock_alone(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # somebody else has it, or nobody can tell
        return False
    return True


def _swept(layout: Layout) -> list[Path]:
    """What is of no use to anybody: former folders, entries without a record, and what others left to be removed."""
    trash = [path for path, _ in _children(layout.gone)]
    nameless = [path for path, _ in _children(layout.entries) if read_record(path / "record.json") is None]
    for path in (*(layout.root / name for name in FORMER), *nameless):
        with suppress(OSError):
            gone = away(layout, path)
            trash += [gone] if gone is not None else []
    return trash


def _entries(layout: Layout) -> Iterator[Item]:
    for path, _ in _children(layout.entries):
        record = read_record(path / "record.json")
        if record is None:
            continue
        fetched = record.kind == "fetched"
        try:
            status = (path / "record.json").stat()
            in_use = _is_used(path / "record.json")
        except OSError:
            continue  # it went meanwhile
        yield Item(
            key=path.name,
            kind=record.kind,
            name=record.name,
            source=record.source,
            size=record.size,
            used_at=status.st_mtime,
            made_at=record.made_at,
            in_use=in_use,
            own=0 if fetched else record.size,
            blobs=frozenset(file.sha256 for file in record.files) if fetched else frozenset(),
            path=path,
        )


def _is_used(record: Path) -> bool:
    with _opened(record) as file:
        return not _lock_alone(file.fileno())


def _opened(path: Path) -> BinaryIO:
    """A file to be locked: network file systems want it open for writing, which a disk for reading only refuses."""
    try:
        return path.open("rb+")
    except PermissionError:
        return path.open("rb")
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        return path.open("rb")


def _making(layout: Layout) -> Iterator[Item]:
    for path, status in _children(layout.making):
        own, newest, blobs = 0, status.st_mtime, set()
        for root, _, names in os.walk(path):
            for name in names:
                with suppress(OSError):
                    inner = Path(root, name)
                    seen = inner.lstat()
                    newest = max(newest, seen.st_mtime)
                    if inner.is_symlink():
                        blobs.add(Path(os.readlink(inner)).name)
                    else:
                        own += seen.st_size
        yield _unfinished(layout, path, "what is there of a checkpoint", own, newest, frozenset(blobs))


def _partial(layout: Layout) -> Iterator[Item]:
    for path, status in _children(layout.partial):
        yield _unfinished(layout, path, "part of a file", status.st_size, status.st_mtime, frozenset())


def _unfinished(
    layout: Layout, path: Path, name: str, own: int, used_at: float, blobs: frozenset[str]
) -> Item:
    sizes: Callable[[str], int] = lambda blob: _size(layout.blob(blob))  # noqa: E731
    return Item(
        key=path.name,
        kind="partial",
        name=name,
        source="",
        size=own + sum(map(sizes, blobs)),
        used_at=used_at,
        made_at=None,
        in_use=_is_locked(layout.lock(path.name)),
        own=own,
        blobs=blobs,
        path=path,
    )


def _is_locked(lock: Path) -> bool:
    with suppress(FileNotFoundError), _opened(lock) as file:
        return not _lock_alone(file.fileno())
    return False


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _children(folder: Path) -> list[tuple[Path, os.stat_result]]:
    """What lies in a folder, hidden files aside."""
    found = []
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                with suppress(OSError):
                    found.append((Path(entry.path), entry.stat(follow_symlinks=False)))
    return found
