"""What is asked of the cache: the files of a checkpoint that lies elsewhere, and the name that they go by here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Self

from llmengine_core.cache.layout import digest
from llmengine_core.errors import BadRequestError
from llmengine_core.looks import shown, split_location
from llmengine_core.types.plan import CheckpointFacts, CheckpointFile
from llmengine_core.weights import Located, locate

__all__ = ["Asked"]

CONTROL = re.compile("[\x00-\x1f\x7f]")
LONGEST = 255
"""Bytes of one segment of a name; disks take no more."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Files at a URL, each as it was when it was looked at."""

    url: str
    files: tuple[CheckpointFile, ...]
    """None where they were taken at a card's word: then they must be looked at before they are fetched."""
    located: Located
    keys: Mapping[str, str]
    """Each file's key in the storage at ``located.url``, by its name."""
    key: str
    """The name that all of it has here: changes with what was asked for; 32 hex digits."""

    @classmethod
    def of(cls, checkpoint: CheckpointFacts) -> Self:
        """What a checkpoint's facts ask for. Raises ``BadRequestError`` for files that can't be stored."""
        files = checkpoint.files
        if len(files) == 1 and files[0].sha256 is None and checkpoint.sha256 is not None:
            files = (replace(files[0], sha256=checkpoint.sha256),)
        for file in files:
            _require_name(file.name, checkpoint.url)
        seen = [
            [file.name, file.size, file.etag, file.sha256] for file in sorted(files, key=lambda f: f.name)
        ]
        key = digest("fetched", checkpoint.url, seen or [checkpoint.size, checkpoint.sha256])
        located = locate(replace(checkpoint, files=files))
        keys = {file.name: found for file, found in zip(files, located.keys, strict=True)}
        return cls(checkpoint.url, files, located, keys, key)

    def seen(self, checkpoint: CheckpointFacts) -> Self:
        """The same, by the same name in the cache, with the files that were seen when it was looked at."""
        found = type(self).of(checkpoint)
        return replace(found, key=self.key)

    @property
    def source(self) -> str:
        """The URL as it may be written down."""
        return shown(self.url)

    @property
    def name(self) -> str:
        """What it is called, for people: the last segment of its URL."""
        return PurePosixPath(split_location(self.url)[1].partition("?")[0]).name or self.source

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def identity(self, file: CheckpointFile) -> str:
        """The name of a file while it is fetched: changes with what it is."""
        return file.sha256 or digest("partial", self.url, file.name, file.size, file.etag)


def _require_name(name: str, url: str) -> None:
    """Raise ``BadRequestError`` for what is no name below a folder."""
    parts = name.split("/")
    if (
        CONTROL.search(name)
        or any(part in ("", ".", "..") for part in parts)
        or any(len(part.encode(errors="surrogateescape")) > LONGEST for part in parts)
    ):
        raise BadRequestError(
            f"{shown(url)} has a file {name[:LONGEST]!r}, which can't be stored; allowed are relative names without "
            f'"..", control characters and segments of more than {LONGEST} bytes'
        )
