"""How far long work has come, on one line of the terminal."""

from __future__ import annotations

import os
import sys
import time

from llmengine_core.cli.output import size_text
from llmengine_core.types.progress import Progress

__all__ = ["ProgressLine"]

SECONDS_BETWEEN = 0.1
BAR = 24
ERASE = "\r\x1b[K"


class ProgressLine:
    """Shows the latest news on standard error, a terminal; ``clear`` before anything else is shown.

    May be told from any thread.
    """

    def __init__(self) -> None:
        self._shown_at = 0.0
        self._work: tuple[str, str] | None = None

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        work = progress.subject, progress.phase
        finished = progress.total is not None and progress.done >= progress.total
        if work == self._work and not finished and now - self._shown_at < SECONDS_BETWEEN:
            return
        self._shown_at, self._work = now, work
        self._put(ERASE + described(progress, _columns()))

    def clear(self) -> None:
        """Take the line away."""
        if self._work is not None:
            self._work = None
            self._put(ERASE)

    def _put(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


def described(progress: Progress, columns: int) -> str:
    """One line of at most ``columns`` characters."""
    unit, done, total = progress.unit, progress.done, progress.total
    known = total is not None and total > 0
    subject = "".join(each if each.isprintable() else "?" for each in progress.subject)
    parts = [f"{subject}: {progress.phase}"]
    if known:
        share = min(1.0, max(0.0, done / (total or 1)))
        full = int(share * BAR)
        parts.append(f"[{'#' * full}{'-' * (BAR - full)}] {share:4.0%}")
    if unit == "bytes":
        parts.append(f"{size_text(done)} of {size_text(total or 0)}" if known else size_text(done))
    elif unit:
        parts.append(f"{done:g} {unit}")
    return "  ".join(parts)[: max(1, columns - 1)]


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except OSError:
        return 80
