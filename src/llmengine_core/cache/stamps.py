"""What files were found to hash to: they are read again once they look different, and not before."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from llmengine_core.cache.layout import digest

__all__ = ["Stamps", "hash_file"]

BLOCK = 4 << 20
"""Bytes hashed at a time."""
LIMIT = 64 << 10
"""Bytes; a stamp with more isn't one of ours."""


class Stamps:
    """A folder with a small file for each file that was hashed. Blocking calls; safe among processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def known(self, path: Path, status: os.stat_result) -> str | None:
        """The SHA-256 of the file at ``path``, if it looks as it did when it was hashed."""
        found = _read(self._stamp(path))
        return str(found["sha256"]) if found is not None and found["looks"] == _looks(status) else None

    def note(self, path: Path, status: os.stat_result, sha256: str) -> None:
        """Note what a file hashes to that looks like this. Where that can't be written, it is hashed again."""
        stamp = self._stamp(path)
        written = stamp.with_name(f".{stamp.name}-{os.getpid()}-{threading.get_ident()}")
        with suppress(OSError):
            stamp.parent.mkdir(parents=True, exist_ok=True)
            try:
                written.write_text(json.dumps({"path": str(path), "looks": _looks(status), "sha256": sha256}))
                os.replace(written, stamp)
            finally:
                written.unlink(missing_ok=True)

    def forget(self, path: Path) -> None:
        """Have a file hashed again."""
        with suppress(OSError):
            self._stamp(path).unlink(missing_ok=True)

    def digest_of(
        self, path: Path, *, stamped: Path, told: Callable[[int], object], stop: threading.Event
    ) -> str:
        """What the file at ``path`` hashes to; its stamp is that of ``stamped``, by which it is known.

        ``told`` hears of bytes that are hashed, from this thread; of none that were before. Raises ``OSError``.
        """
        status = path.stat()
        found = self.known(stamped, status)
        if found is None:
            found = hash_file(path, told, stop)
            after = path.stat()
            if _looks(after) == _looks(status) and not stop.is_set():
                self.note(stamped, after, found)
        return found

    def sweep(self) -> None:
        """Remove the stamps of files that are gone."""
        with suppress(OSError):
            for stamp in list(self._folder.iterdir()):
                found = _read(stamp)
                if found is None or not os.path.lexists(str(found["path"])):
                    with suppress(OSError):
                        stamp.unlink(missing_ok=True)

    def _stamp(self, path: Path) -> Path:
        return self._folder / digest(str(path))


def hash_file(path: Path, told: Callable[[int], object], stop: threading.Event) -> str:
    """The SHA-256 of a file, in hex; of a part of it where ``stop`` is set meanwhile."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while (block := file.read(BLOCK)) and not stop.is_set():
            found.update(block)
            told(len(block))
    return found.hexdigest()


def _looks(status: os.stat_result) -> list[int]:
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _read(stamp: Path) -> dict[str, object] | None:
    try:
        with stamp.open(encoding="utf-8") as file:
            found = json.loads(file.read(LIMIT))
        return found if isinstance(found, dict) and {"path", "looks", "sha256"} <= found.keys() else None
    except (OSError, ValueError):
        return None
