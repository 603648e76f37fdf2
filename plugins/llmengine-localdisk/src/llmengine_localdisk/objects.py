"""Objects: whole files under keys. Every call here blocks."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from llmengine_core.interfaces.storage import ObjectExists, ObjectMissing, PreconditionFailed, StorageError
from llmengine_core.types.objects import ObjectMeta
from llmengine_localdisk.drafts import Draft
from llmengine_localdisk.folders import NotAFolder, folder, locked, prune, remove_empty
from llmengine_localdisk.keys import segments

__all__ = ["Reader", "describe", "head", "publish", "remove", "require"]

_ATTEMPTS = 100


def describe(key: str, found: os.stat_result) -> ObjectMeta:
    """An object's description, from its file's."""
    etag = f"{found.st_mtime_ns:x}-{found.st_size:x}-{found.st_ino:x}"
    return ObjectMeta(key=key, size=found.st_size, etag=etag, modified_at=found.st_mtime)


def head(root: Path, key: str) -> ObjectMeta:
    """Describe an object. Raises ``ObjectMissing``."""
    with _object(root, key) as (_, _, found):
        return describe(key, found)


class Reader:
    """An object that is being read: the one that was there when it was opened, whatever happens to its key."""

    def __init__(self) -> None:
        self._file = -1

    def open(self, root: Path, key: str) -> int:
        """Open an object; its size. Raises ``ObjectMissing``."""
        with _object(root, key) as (opened, name, _):
            self._file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=opened)
        return os.fstat(self._file).st_size

    def read(self, position: int, most: int) -> bytes:
        """At most ``most`` bytes from ``position`` on; none at the end."""
        return os.pread(self._file, most, position)

    def append_to(self, draft: Draft, position: int, most: int) -> int:
        """Copy at most ``most`` bytes from ``position`` on to a draft, inside the kernel; how many."""
        return draft.copy_from(self._file, position, most)

    def close(self) -> None:
        """Let go. Idempotent."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1


def require(root: Path, key: str, mode: Literal["overwrite", "create"], if_match: str | None) -> None:
    """Raise what publishing under ``key`` would raise now, so that nothing is streamed in vain."""
    *folders, name = segments(key)
    try:
        with folder(root, folders) as opened:
            _previous(opened, name, key, mode, if_match)
    except FileNotFoundError:
        _require_none(key, if_match)
    except NotAFolder as error:
        raise _blocked(key, error) from None


def publish(
    draft: Draft, root: Path, key: str, mode: Literal["overwrite", "create"], if_match: str | None
) -> ObjectMeta:
    """Make a sealed draft the object under ``key``.

    The look at what is there and the rename happen under the folder's lock, so of several writers each sees
    what the one before it left.
    """
    *folders, name = segments(key)
    for _ in range(_ATTEMPTS):
        try:
            with folder(root, folders, create=if_match is None) as opened:
                with locked(opened):
                    found = draft.publish(opened, name, _previous(opened, name, key, mode, if_match))
                os.fsync(opened)
            return describe(key, found)
        except FileNotFoundError:  # a folder went in between: somebody removed the last object in it
            _require_none(key, if_match)
        except NotAFolder as error:
            raise _blocked(key, error) from None
        except BaseException:
            prune(root, folders)
            raise
    raise StorageError(f"others keep removing the folder of {key!r}; stop them")


def remove(root: Path, key: str) -> bool:
    """Remove an object, durably, and the folders that it leaves empty; whether there was one."""
    *folders, name = segments(key)
    try:
        with folder(root, folders) as opened:
            with locked(opened):
                if not stat.S_ISREG(os.stat(name, dir_fd=opened, follow_symlinks=False).st_mode):
                    return False
                os.unlink(name, dir_fd=opened)
            os.fsync(opened)
    except (FileNotFoundError, NotAFolder):
        return False
    prune(root, folders)
    return True


@contextmanager
def _object(root: Path, key: str) -> Iterator[tuple[int, str, os.stat_result]]:
    """An object's open folder, its name there, and what is known of it. Raises ``ObjectMissing``."""
    *folders, name = segments(key)
    missing = f"there is no object under {key!r} in {root}"
    try:
        with folder(root, folders) as opened:
            found = os.stat(name, dir_fd=opened, follow_symlinks=False)
            if not stat.S_ISREG(found.st_mode):
                raise ObjectMissing(f"{missing}: there is {_kind(found)}")
            yield opened, name, found
    except FileNotFoundError:
        raise ObjectMissing(missing) from None
    except NotAFolder as error:
        raise ObjectMissing(f"{missing}: {error}") from None


def _previous(
    opened: int, name: str, key: str, mode: Literal["overwrite", "create"], if_match: str | None
) -> os.stat_result | None:
    """What lies under a name where an object may be put; raises where none may."""
    try:
        found = os.stat(name, dir_fd=opened, follow_symlinks=False)
    except FileNotFoundError:
        _require_none(key, if_match)
        return None
    if stat.S_ISDIR(found.st_mode):
        _require_none(key, if_match)
        if not remove_empty(opened, name):
            raise StorageError(
                f"can't put {key!r}: it is the folder of other objects; "
                f"choose another key, or delete those under {key + '/'!r} first"
            )
        return None
    if not stat.S_ISREG(found.st_mode):
        raise StorageError(f"can't put {key!r}: there is {_kind(found)}; remove it, or choose another key")
    if mode == "create":
        raise ObjectExists(f"there is an object under {key!r} already")
    if if_match not in {None, (etag := describe(key, found).etag)}:
        raise PreconditionFailed(f"the object under {key!r} is another: its etag is {etag}, not {if_match}")
    return found


def _require_none(key: str, if_match: str | None) -> None:
    if if_match is not None:
        raise PreconditionFailed(f"there is no object under {key!r}, and so none with the etag {if_match}")


def _blocked(key: str, error: NotAFolder) -> StorageError:
    return StorageError(f"can't put {key!r}: {error}; choose another key, or remove what is in the way")


def _kind(found: os.stat_result) -> str:
    if stat.S_ISDIR(found.st_mode):
        return "a folder"
    return "a symbolic link, which is not followed" if stat.S_ISLNK(found.st_mode) else "no ordinary file"
