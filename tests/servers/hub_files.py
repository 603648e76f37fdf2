"""What the hub on this machine holds: repositories, their commits and files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TypeAlias

__all__ = ["Content", "File", "Repo", "entries"]

Content: TypeAlias = bytes | Path
STORED = frozenset({".safetensors", ".gguf", ".bin"})
"""Ends of names of files that lie in the store at any size."""


def sha1(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


@dataclass
class File:
    """One file of a commit."""

    content: Content
    size: int
    oid: str
    """Of git: the SHA-1 of the blob, or of the pointer to it."""
    sha256: str | None
    """Where the store has it."""

    @classmethod
    def of(cls, name: str, content: Content, store_from: int) -> File:
        """``store_from`` is the size from which on a file lies in the store."""
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        if size < store_from and PurePosixPath(name).suffix not in STORED:
            content = content if isinstance(content, bytes) else content.read_bytes()
            return cls(content, size, sha1(b"blob %d\0" % size + content), None)
        if isinstance(content, bytes):
            digest = hashlib.sha256(content).hexdigest()
        else:
            with content.open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()
        return cls(content, size, sha1(digest.encode()), digest)


@dataclass
class Repo:
    """One repository."""

    commits: dict[str, dict[str, File]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    private: bool = False
    gated: bool = False


def entries(files: Mapping[str, File], *, recursive: bool, xet: bool) -> list[dict[str, object]]:
    """A tree, as the hub lists it."""
    found: dict[str, dict[str, object]] = {}
    for name, file in sorted(files.items()):
        for folder in reversed(PurePosixPath(name).parents[:-1]):
            oid = sha1(str(folder).encode())
            found[str(folder)] = {"type": "directory", "oid": oid, "size": 0, "path": str(folder)}
        entry: dict[str, object] = {"type": "file", "oid": file.oid, "size": file.size, "path": name}
        if file.sha256 is not None:
            entry["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": 130}
            if xet:
                entry["xetHash"] = file.sha256
        found[name] = entry
    if not recursive:
        return [entry for path, entry in found.items() if "/" not in path]
    return list(found.values())
