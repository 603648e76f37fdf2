"""Training files by reference (F01): fetched whole, checked row by row, and kept as rows before anything is trained."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import threading
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from llmengine_core.errors import BadRequestError, ServerError
from llmengine_core.fetching import Broken, FetchError, Limits, Refused, fetch
from llmengine_core.locks import in_thread
from llmengine_core.services.files import Files
from llmengine_core.training_rows import RowError, RowReader, TrainingRow
from llmengine_core.urls import UrlPolicy, shown_url

__all__ = ["TrainingFile", "TrainingFiles"]

MOST_BYTES = 1 << 30
FETCH_SECONDS = 900.0
TRIES = 3
"""Fetches of one URL that may break off."""


@dataclass(frozen=True, slots=True)
class TrainingFile:
    """A training file that was found sound."""

    path: Path
    """Its rows on this machine, a line of JSON each: ``{"prompt": "...", "response": "..."}``."""
    rows: int
    sha256: str
    """Hex digest of the CSV file's content."""


class TrainingFiles:
    """Takes training files in: those that callers have uploaded, and those that lie on web servers."""

    def __init__(self, files: Files, policy: UrlPolicy) -> None:
        self._files = files
        self._policy = policy
        self._limits = Limits(size=MOST_BYTES, seconds=FETCH_SECONDS)

    async def take(
        self, reference: str, target: Path, *, field: str = "training_file", caller: str = "root"
    ) -> TrainingFile:
        """Read the CSV file of a ``file-…`` id or an http or https URL, and write its rows to ``target``.

        Memory is bounded; ``target`` is there whole or not at all, its owner's only. Raises ``BadRequestError`` that
        names ``field`` for what is no such file, may not be fetched, or is wrong, with the row's number;
        ``NotFoundError`` for an id that isn't the caller's; ``ServerError`` where it can't be read or kept now.
        """
        uploaded = reference.startswith("file-")
        shown = f"{field}={reference if uploaded else shown_url(reference)!r}"
        if not uploaded:
            self._policy.check(reference, field=field)
        tries = 0
        while True:
            pieces = (
                self._files.read(reference, caller=caller) if uploaded else self._fetched(reference, field)
            )
            try:
                async with aclosing(pieces):
                    return await _kept(pieces, target)
            except RowError as error:
                raise BadRequestError(f"{shown}: {error}") from error
            except Broken as error:
                tries += 1
                if tries == TRIES:
                    raise ServerError(
                        f"{shown} can't be read: {error} ({TRIES} times in a row); try again later, or upload the file",
                        status_code=502,
                    ) from error
            except FetchError as error:
                mend = "; it must be public" if isinstance(error, Refused) else ""
                raise BadRequestError(f"{shown} can't be read: {error}{mend}") from error
            except OSError as error:
                raise ServerError(
                    f"the rows of {shown} can't be kept in {target.parent}: {error.strerror or error}; free space or "
                    "rights there"
                ) from error

    async def _fetched(self, url: str, field: str) -> AsyncGenerator[bytes, None]:
        async with fetch(url, self._policy, self._limits, field=field) as answer:
            async for piece in answer.pieces:
                yield piece


async def _kept(pieces: AsyncGenerator[bytes, None], target: Path) -> TrainingFile:
    """Write the rows in some pieces to a file."""
    draft = _Draft(target)
    try:
        await in_thread(draft.begin)
        async for piece in pieces:
            await in_thread(lambda stop, piece=piece: draft.take(piece, stop))  # type: ignore[misc]
        return await in_thread(draft.end)
    finally:
        await in_thread(draft.drop)


class _Draft:
    """Rows on their way to a file; all of it blocks."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._path = target.with_name(f".{target.name}-{secrets.token_hex(8)}")
        self._reader = RowReader()
        self._digest = hashlib.sha256()
        self._size = 0
        self._file: TextIO | None = None

    def begin(self, _: threading.Event) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._file = os.fdopen(os.open(self._path, flags, 0o600), "w", encoding="utf-8")

    def take(self, piece: bytes, stop: threading.Event) -> None:
        self._digest.update(piece)
        self._size += len(piece)
        if self._size > MOST_BYTES:
            raise RowError(f"it has more than {MOST_BYTES:,} bytes, which is the most that is taken")
        self._write(self._reader.feed(piece), stop)

    def end(self, stop: threading.Event) -> TrainingFile:
        self._write(self._reader.end(), stop)
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        os.replace(self._path, self._target)
        return TrainingFile(self._target, self._reader.count, self._digest.hexdigest())

    def drop(self, _: threading.Event) -> None:
        if self._file is not None:
            with suppress(OSError):  # what can't be flushed is no longer wanted
                self._file.close()
            self._path.unlink(missing_ok=True)

    def _write(self, rows: Iterable[TrainingRow], stop: threading.Event) -> None:
        assert self._file is not None
        for row in rows:
            self._file.write(json.dumps({"prompt": row.prompt, "response": row.response}) + "\n")
            if stop.is_set():
                return
