"""Whole checkpoints in the cache: found, held while they are used, put there, taken away."""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from llmengine_core.cache.layout import Layout, remove, sync
from llmengine_core.cache.records import Record, StoredFile, read_record, write_record
from llmengine_core.cache.stamps import Stamps
from llmengine_core.locks import held as index_held

__all__ = ["Entries", "Entry", "away", "files_in"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A whole checkpoint."""

    key: str
    record: Record
    content: Path

    @property
    def path(self) -> Path:
        """What is loaded: a file, or the folder."""
        return self.content / self.record.main if self.record.main else self.content

    def stamped(self, file: StoredFile, layout: Layout) -> Path:
        """The file that a file of it really is."""
        return layout.blob(file.sha256) if self.record.kind == "fetched" else self.content / file.name


class Entries:
    """The entries of one cache, and which of them this holder keeps from being removed. Blocking calls.

    Whoever uses an entry holds a shared lock on its record, which ends with the process. Whoever removes one
    takes that lock alone first, and moves it away as a whole.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._held: dict[str, int] = {}
        self._asked_at: dict[str, float] = {}
        """When each was asked for last, on the clock of ``time.monotonic()``."""
        self._turn = threading.Lock()

    def hold(self, key: str, *, touch: bool = True) -> Entry | None:
        """An entry, which stays until ``close``; None where there is none. ``touch`` notes that it is used now."""
        path = self._layout.record(key)
        with self._turn:
            self._asked_at[key] = time.monotonic()
            held = self._held.get(key)
            if held is None or not _is_at(held, path):
                self._let_go(key)
                try:
                    held = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                except (FileNotFoundError, NotADirectoryError):
                    return None
                fcntl.flock(held, fcntl.LOCK_SH)  # whoever removes entries has it for a moment only
                if not _is_at(held, path):
                    os.close(held)
                    return None
                self._held[key] = held
            record = read_record(path)
            if record is None:
                self._let_go(key)
                return None
        if touch:
            with suppress(OSError):
                os.utime(path)
        return Entry(key, record, self._layout.content(key))

    def publish(self, key: str, record: Record) -> Entry:
        """Make what lies in ``making`` the entry, all of it at once, and hold it."""
        layout = self._layout
        making = layout.making / key
        write_record(making / "record.json", record)
        for folder in {making, *(path.parent for path in (making / "content").rglob("*"))}:
            sync(folder)
        held = os.open(making / "record.json", os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(held, fcntl.LOCK_SH)
            self.discard(key)
            layout.entries.mkdir(parents=True, exist_ok=True)
            with index_held(
                layout.index
            ):  # who looks for blobs that nothing links to sees its links here or there
                os.rename(making, layout.entries / key)
            sync(layout.entries)
        except BaseException:
            os.close(held)
            raise
        with self._turn:
            self._let_go(key)
            self._held[key] = held
            self._asked_at[key] = time.monotonic()
        return Entry(key, record, layout.content(key))

    def discard(self, key: str) -> None:
        """Take an entry away, also from under those who use it."""
        with self._turn:
            self._let_go(key)
        gone = away(self._layout, self._layout.entries / key)
        if gone is not None:
            remove(gone)

    def let_go(self, key: str) -> None:
        """Hold an entry no more."""
        with self._turn:
            self._let_go(key)

    def let_go_idle(self, paths: Collection[str], seconds: float) -> None:
        """Hold no more what nobody asked for since that long, and what none of these paths leads into."""
        with self._turn:
            for key in list(self._held):
                content = self._layout.content(key)
                needed = any(Path(path).is_relative_to(content) for path in paths)
                if not needed and time.monotonic() - self._asked_at[key] > seconds:
                    self._let_go(key)

    def close(self) -> None:
        """Hold nothing any more. Idempotent."""
        with self._turn:
            for key in list(self._held):
                self._let_go(key)

    def _let_go(self, key: str) -> None:
        held = self._held.pop(key, None)
        if held is not None:
            os.close(held)

    def wrong(
        self,
        entry: Entry,
        stamps: Stamps,
        told: Callable[[int], object],
        stop: threading.Event,
        *,
        afresh: bool = False,
    ) -> list[StoredFile]:
        """The files of an entry that are missing, or hold something else; ``afresh`` reads all of them again."""
        return [
            file for file in entry.record.files if not self._is_whole(entry, file, stamps, told, stop, afresh)
        ]

    def _is_whole(
        self,
        entry: Entry,
        file: StoredFile,
        stamps: Stamps,
        told: Callable[[int], object],
        stop: threading.Event,
        afresh: bool,
    ) -> bool:
        path, stamped = entry.content / file.name, entry.stamped(file, self._layout)
        if afresh:
            stamps.forget(stamped)
        try:
            if path.stat().st_size != file.size:
                return False
            return stamps.digest_of(path, stamped=stamped, told=told, stop=stop) == file.sha256
        except OSError:
            return False


def away(layout: Layout, path: Path) -> Path | None:
    """Move something out of sight at once, to be removed there; what nobody removes is swept later."""
    layout.gone.mkdir(parents=True, exist_ok=True)
    gone = layout.gone / f"{path.name}-{secrets.token_hex(4)}"
    try:
        os.rename(path, gone)
    except FileNotFoundError:
        return None
    return gone


def files_in(content: Path) -> Mapping[str, Path]:
    """The regular files below a folder, by their names there."""
    return {
        path.relative_to(content).as_posix(): path
        for path in _walk(content)
        if stat.S_ISREG(path.lstat().st_mode)
    }


def _walk(folder: Path) -> Iterator[Path]:
    for root, _, names in os.walk(folder):
        yield from (Path(root, name) for name in names)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False
