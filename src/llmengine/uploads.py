"""What is given to ``File.upload``: an open file, read as bytes, piece by piece (L01)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

from llmengine_core.arguments.checks import shown
from llmengine_core.errors import BadRequestError

__all__ = ["Upload"]

ALLOWED = 'an open, readable file, such as open("training_dataset.csv", "rb")'
PIECE = 1 << 20
LONGEST_NAME = 255
OFFSET_BITS = 128
"""Above these, a text file's position says that bytes must be decoded again to get there."""


class Upload:
    """An open file's bytes from its current position on, and its name for display.

    A text file gives the raw bytes behind it; one that has none (``io.StringIO``) its text as UTF-8.
    Raises ``BadRequestError`` for what can't be read from.
    """

    def __init__(self, file: Any) -> None:
        self.filename = _filename(getattr(file, "name", None))
        if not callable(getattr(file, "read", None)):
            raise BadRequestError(f"file is {shown(file)}; it must be {ALLOWED}")
        try:
            self._read = _reader(file)
        except (OSError, ValueError) as error:
            raise BadRequestError(
                f"file {self.filename!r} can't be read: {error}; it must be {ALLOWED}"
            ) from error

    async def pieces(self) -> AsyncIterator[bytes]:
        """The bytes, about a megabyte at a time; reads in another thread."""
        while piece := await asyncio.to_thread(self._piece):
            yield piece

    def _piece(self) -> bytes:
        try:
            piece = self._read(PIECE)
            return piece.encode() if isinstance(piece, str) else memoryview(piece).tobytes()
        except Exception as error:  # the caller's own object may raise anything
            raise BadRequestError(
                f"file {self.filename!r} can't be read: {type(error).__name__}: {error}; it must be {ALLOWED}"
            ) from error


def _reader(file: Any) -> Callable[[int], Any]:
    """The file's ``read``, or that of the buffer behind a text file, put where the text file is."""
    if getattr(file, "closed", False):
        raise ValueError("it is closed")
    readable = getattr(file, "readable", None)
    if readable is not None and not readable():
        raise ValueError("it is open for writing only")
    source = getattr(file, "buffer", file)
    if source is not file and file.seekable():
        position = file.tell()
        if position >> OFFSET_BITS:
            raise ValueError("its position is inside a character")
        file.seek(position)
    read: Callable[[int], Any] = source.read
    return read


def _filename(name: object) -> str:
    """The last part of a path, without what can't be printed; "file" if none."""
    path = os.fsdecode(name) if isinstance(name, (str, bytes, os.PathLike)) else ""
    last = path.replace("\\", "/").rpartition("/")[2]
    shortened = "".join(each for each in last if each.isprintable())[:LONGEST_NAME].strip()
    return "file" if shortened in ("", ".", "..") else shortened
