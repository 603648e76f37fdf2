"""Server-sent events out of bytes."""

from __future__ import annotations

from collections.abc import Iterator

from llmengine_core.http.errors import InvalidAnswer

__all__ = ["EventSplitter"]

MAX_EVENT = 8 * 1024 * 1024
"""Bytes that one event may have."""


class EventSplitter:
    """Finds the events in the bytes of an event stream, however those are cut into pieces."""

    def __init__(self) -> None:
        self._rest = b""
        self._after_cr = False
        self._at_start = True

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The data of each event that is complete now. Take all before feeding more."""
        if not piece:
            return
        after_cr, self._after_cr = self._after_cr, piece.endswith(b"\r")
        if after_cr:
            piece = piece.removeprefix(b"\n")
        if b"\r" in piece:
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *blocks, self._rest = (self._rest + piece).split(b"\n\n")
        if len(self._rest) > MAX_EVENT:
            raise InvalidAnswer(f"an event has more than {MAX_EVENT} bytes")
        for block in blocks:
            if self._at_start:
                self._at_start = False
                block = block.removeprefix(b"\xef\xbb\xbf")
            if block.startswith(b"data: ") and b"\n" not in block:
                yield block[6:]
            elif (data := _data_of(block)) is not None:
                yield data


def _data_of(block: bytes) -> bytes | None:
    """The data lines of one event, joined; None where it has none. Other fields are left alone."""
    lines = []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        if field == b"data":
            lines.append(value.removeprefix(b" "))
    return b"\n".join(lines) if lines else None
