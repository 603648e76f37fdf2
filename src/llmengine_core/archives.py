"""Archives: their content as a stream, and how they are unpacked.

Nothing leaves the folder that it is unpacked into, whoever packed the archive and whatever others do on this disk
meanwhile: folders are opened name by name and never through a link, files are made new, and all of it appears
under its name when it is whole.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import sys
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from llmengine_core.interfaces.storage import OnBytes
from llmengine_core.tar import BLOCK, BadArchive, Member, kind_of, members

__all__ = ["BadArchive", "Pieces", "Stopped", "extract", "opened_up", "top_of"]

STEP = 1 << 20
"""Bytes that are read, and most that are written, at a time."""
RATIO, RATIO_FROM = 100, 1 << 30
"""How many times its size an archive may become, once that is a gigabyte. Compressed weights come to 1.1 to 1.5
times, zeros to 1,030 times (gzip) and far more (zstd)."""
FED = 64 << 10
"""Bytes that a part's decompressor gets first: what it gives back, where the part ends before, is copied."""
PARTS_FROM, PART = 1000, 4 << 10
"""Compressed parts that any archive may have, and the bytes that each of more must become on average. Programs that
compress in parts make them of 64 KiB and more; parts of nothing take time, and no ratio shows them."""
WINDOW_LOG = 27
"""zstd may look back 128 MiB, which is the memory that it takes; only `zstd --long=28` and more, or --ultra -22 on
large files, write archives that need more."""
ROOM_LEFT = 16 << 20
"""Bytes of the disk that stay free."""
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Stopped(Exception):
    """Nobody waits for it any more."""


# -- streams -----------------------------------------------------------------------------------------------------


class Pieces:
    """A stream that comes in pieces, to be read in others."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces, self._rest = iter(pieces), b""

    def read(self, count: int) -> bytes:
        """The next bytes; fewer only at the end."""
        found = [self._rest[:count]]
        self._rest = self._rest[count:]
        count -= len(found[0])
        while count and (piece := next(self._pieces, None)) is not None:
            found.append(piece[:count])
            self._rest = piece[count:]
            count -= len(found[-1])
        return b"".join(found)

    def skip(self, count: int) -> None:
        """Pass over bytes."""
        while count and (piece := self.read(min(count, STEP))):
            count -= len(piece)


def opened_up(kind: str, read: Callable[[int], bytes]) -> Iterator[bytes]:
    """The tar archive in what ``read`` gives, in pieces of at most 1 MiB.

    Raises ``BadArchive`` where it is damaged, truncated, or becomes improbably large.
    """
    if kind == "tar":
        yield from iter(lambda: read(STEP), b"")
        return
    taken = given = parts = 0

    def more() -> memoryview:
        nonlocal taken
        piece = read(STEP)
        taken += len(piece)
        return memoryview(piece)

    rest = more()
    while rest:
        parts += 1
        if parts > PARTS_FROM + given // PART:
            raise BadArchive(
                f"it is compressed in {parts:,} parts, which hold next to nothing", "pack it again"
            )
        part, window, at = _gzip() if kind == "tar.gz" else _zstd(), rest, 0
        while not part.eof:
            start = at
            if part.needs_input:
                if at == len(window):
                    window, start = more(), 0
                    if not window:
                        raise BadArchive("it is truncated: it ends within its compressed data")
                at = min(start + (STEP if start or window is not rest else FED), len(window))
            piece = _decompressed(part, window[start:at])
            given += len(piece)
            if given > max(RATIO_FROM, RATIO * taken):
                raise BadArchive(
                    f"{taken:,} bytes of it became more than {given:,}, and still more; at most {RATIO} times its size "
                    "is believed"
                )
            yield piece
        rest = window[at - len(part.unused_data) :] or more()
        while rest and not rest[0] and not bytes(rest).strip(b"\0"):
            rest = more()


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: memoryview, /, max_length: int) -> bytes: ...


class _gzip:  # noqa: N801 - stands where the other kind's class does
    def __init__(self) -> None:
        self._stream, self.needs_input = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS), True

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def decompress(self, data: memoryview, /, max_length: int) -> bytes:
        found = self._stream.decompress(self._stream.unconsumed_tail + data, max_length)
        self.needs_input = len(found) < max_length
        return found


def _zstd() -> _Decompressor:
    zstd = _zstd_module()
    decompressor: _Decompressor = zstd.ZstdDecompressor(
        options={zstd.DecompressionParameter.window_log_max: WINDOW_LOG}
    )
    return decompressor


def _zstd_module() -> Any:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


def _decompressed(part: _Decompressor, data: memoryview) -> bytes:
    try:
        return part.decompress(data, STEP)
    except zlib.error as error:
        raise BadArchive(f"it is damaged: {error}") from None
    except Exception as error:  # the other library's own
        if type(error).__name__ != "ZstdError":
            raise
        mend = "pack it again without --long" if "memory" in str(error) else None
        raise BadArchive(f"it can't be decompressed: {error}", mend) from None


# -- unpacking ---------------------------------------------------------------------------------------------------


def extract(
    archive: Path,
    target: Path,
    *,
    on_bytes: OnBytes = lambda done, total: None,
    stop: threading.Event | None = None,
) -> None:
    """Unpack an archive into the folder ``target``, which appears when it is whole and must not be there before.

    Where all that it holds lies in one folder, that one is ``target``. Of its files only names and content are
    taken, no rights, owners or times. ``on_bytes`` is told how much of the archive was read.

    Blocks: call it in a thread. Raises ``BadArchive`` where it can't or must not be unpacked, ``Stopped`` once
    ``stop`` is set, ``OSError`` where the disk fails or is too small; then nothing is left.
    """
    with archive.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        kind = kind_of(file.read(BLOCK))
        if kind is None:
            raise BadArchive("it is no archive")
        file.seek(0)
        done = 0

        def read(count: int) -> bytes:
            nonlocal done
            if stop is not None and stop.is_set():
                raise Stopped
            piece = file.read(count)
            done += len(piece)
            on_bytes(done, size)
            return piece

        try:
            _extract(Pieces(opened_up(kind, read)), target)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(target)) from error


def _extract(pieces: Pieces, target: Path) -> None:
    folders: list[tuple[str, ...]] = []
    files: list[tuple[str, ...]] = []
    total = 0
    with _folder_beside(target) as (parent, name, root):
        free = shutil.disk_usage(root).free - ROOM_LEFT
        for member in members(pieces):
            if member.size is None:
                os.close(_open_folder(root, member.path))
                folders.append(member.path)
                continue
            total += member.size
            if total > free:
                why = f"{os.strerror(errno.ENOSPC)}, {total:,} bytes or more are needed and {max(free, 0):,} are free"
                raise OSError(errno.ENOSPC, why)
            _write(root, member)
            files.append(member.path)
        if not files:
            raise BadArchive("it holds no files")
        for path in files:  # here, not where they are written: what is refused need not last
            _sync(root, path)
        *inner, last = name, *top_of(files, folders)
        above = _open_folder(parent, inner)
        try:
            os.rename(last, target.name, src_dir_fd=above, dst_dir_fd=parent)
        finally:
            os.close(above)
        os.fsync(parent)


def top_of(files: Iterable[tuple[str, ...]], folders: Iterable[tuple[str, ...]] = ()) -> tuple[str, ...]:
    """The names of the innermost folder that all of an archive lies in; none where that is its own top."""
    known = set(files)
    paths = known.union(folders)
    top: tuple[str, ...] = ()
    while len(inner := {path[: len(top) + 1] for path in paths if len(path) > len(top)}) == 1:
        (only,) = inner
        if only in known:
            break
        top = only
    return top


@contextmanager
def _folder_beside(target: Path) -> Iterator[tuple[int, str, int]]:
    """The open folder of ``target``, and the name and open folder of a new one beside it that is removed at the end."""
    parent = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    name = f".unpacking-{secrets.token_hex(8)}"
    try:
        os.mkdir(name, dir_fd=parent)
        root = os.open(name, FOLDER, dir_fd=parent)
        try:
            yield parent, name, root
        finally:
            os.close(root)
            shutil.rmtree(name, ignore_errors=True, dir_fd=parent)  # it may have become the target
    finally:
        os.close(parent)


def _open_folder(root: int, names: Iterable[str]) -> int:
    """A descriptor of a folder below an open one, made where it is missing; never through a link."""
    opened = os.dup(root)
    try:
        for name in names:
            with suppress(FileExistsError):
                os.mkdir(name, dir_fd=opened)
            inner = os.open(name, FOLDER, dir_fd=opened)
            os.close(opened)
            opened = inner
    except BaseException:
        os.close(opened)
        raise
    return opened


def _write(root: int, member: Member) -> None:
    """Write a file that isn't there yet."""
    *above, name = member.path
    folder = _open_folder(root, above)
    try:
        opened = os.open(name, NEW_FILE, 0o666, dir_fd=folder)
    except FileExistsError:
        both = "/".join(member.path)
        raise BadArchive(f"it holds {both!r} and another name that is the same on this disk") from None
    finally:
        os.close(folder)
    try:
        while piece := member.read(STEP):
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(opened, rest) :]
    finally:
        os.close(opened)


def _sync(root: int, path: tuple[str, ...]) -> None:
    """See that a file is on the disk."""
    folder = _open_folder(root, path[:-1])
    try:
        opened = os.open(path[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
        os.fsync(folder)
    finally:
        os.close(folder)
