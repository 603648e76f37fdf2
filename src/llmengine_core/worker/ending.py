"""How a worker ends by its own fault: its reason on standard error, then at once, whatever its threads do."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from contextlib import suppress
from types import TracebackType
from typing import NoReturn

__all__ = ["LOG_MARK", "die", "end", "essence", "frames_of"]

LOG_MARK = "| "
"""Begins each line that is logged for the record; the reason of an end has none."""
LONGEST = 2000
"""Characters of a message that are told."""
OURS = os.path.dirname(__file__) + os.sep

_last_words = threading.Lock()


def die(doing: str, error: BaseException) -> NoReturn:
    """End because of an error that nobody expected: the whole traceback for the record, then what it comes to."""
    _last_words.acquire()  # for good: whoever comes second has nothing to add
    try:
        traceback.clear_frames(error.__traceback__)  # what they held may be needed to say why
        record = "".join(traceback.format_exception(error))
        lines = [LOG_MARK + line for line in record.splitlines()]
        _say("\n".join([*lines, f"{doing}: {essence(error)}"]))
    except MemoryError:
        _say(f"{doing}: MemoryError")
    finally:
        os._exit(1)


def end(reason: str) -> NoReturn:
    """End for a reason that is known."""
    _last_words.acquire()
    try:
        _say(reason)
    finally:
        os._exit(1)


def essence(error: BaseException) -> str:
    """What was raised, and where outside of our own modules, in one or two lines."""
    if isinstance(error, SystemExit):
        return f"it called sys.exit({error.code!r}){_place(error.__traceback__)}"
    message = " ".join(str(error).split())[:LONGEST]
    return f"{type(error).__name__}{': ' if message else ''}{message}{_place(error.__traceback__)}"


def frames_of(thread: int, most: int = 12) -> list[str]:
    """Where a thread is, the innermost call first, our own modules left out."""
    frame = sys._current_frames().get(thread)
    stack = traceback.extract_stack(frame) if frame is not None else []
    return [
        f"{each.filename}:{each.lineno} in {each.name}"
        for each in reversed(stack)
        if not each.filename.startswith(OURS)
    ][:most]


def _place(trace: TracebackType | None) -> str:
    places = [each for each in traceback.extract_tb(trace) if not each.filename.startswith(OURS)]
    return f"\n  at {places[-1].filename}:{places[-1].lineno} in {places[-1].name}" if places else ""


def _say(text: str) -> None:
    with suppress(Exception):  # an engine may have put something else in its place
        sys.stdout.flush()
    os.write(2, text.encode(errors="backslashreplace") + b"\n")
