"""A child's end of the line to those who watch it: its own, so that what the plugin prints isn't taken for news.

Standard output, where the news went when the process began, becomes a copy of standard error: a file that
those who watch can read at any time.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
from typing import Any

__all__ = ["LOST", "Channel"]

LOST = 86
"""The exit status of a child that can't tell anything any more, since its line was closed."""


class Channel:
    """Tells news, one JSON object each."""

    def __init__(self) -> None:
        """Take over the process: its streams, and the order that it was given. Call it once, before all else."""
        self.order: dict[str, Any] = json.loads(_first_line())
        self._process = os.getpid()
        self._line = os.dup(1)
        self._is = _identity(self._line)
        output = os.open(self.order["output"], os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(nothing)
        self._output = output
        self._stdout, self._stderr = sys.stdout, sys.stderr
        self._begun = 0
        sys.path[:] = self.order["path"]
        faulthandler.enable(file=output)

    def tell(self, **news: Any) -> None:
        """Send news; ends the process where it can't be done, and where this is but a copy of the process."""
        if os.getpid() != self._process:
            os._exit(0)
        line = json.dumps(news, default=repr).encode() + b"\n"
        while line:
            try:
                if _identity(self._line) != self._is:
                    os._exit(LOST)
                line = line[os.write(self._line, line) :]
            except OSError:
                os._exit(LOST)

    def begin(self, what: str, seconds: float, **news: Any) -> None:
        """Say what is done next; the process ends with a trace where it takes longer than that."""
        self.tell(begun=what, seconds=seconds, **news)
        self._begun = self._size()
        faulthandler.dump_traceback_later(seconds, exit=True, file=self._output)

    def printed(self) -> str:
        """What was printed since ``begin``, as far as it is worth telling."""
        faulthandler.cancel_dump_traceback_later()
        for stream in (self._stdout, self._stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                continue
        try:
            return os.pread(self._output, 2000, self._begun).decode(errors="replace")
        except OSError:
            return ""

    def close(self) -> None:
        """End the process now, whatever else runs in it."""
        self.tell(done=True)
        os._exit(0)

    def _size(self) -> int:
        try:
            return os.fstat(self._output).st_size
        except OSError:
            return 0


def _first_line() -> bytes:
    text = b""
    while not text.endswith(b"\n"):
        more = os.read(0, 65536)
        if not more:
            os._exit(0)
        text += more
    return text


def _identity(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino
