"""The cache of the hub's own library, read without it: what lies there, and what of it has been checked.

The library keeps each file as a blob under its digest, and a folder of links for each commit. We add a folder to
each repository's, with the listings of commits, and stamps of the blobs whose digest was found right.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from llmengine_hub.environment import HubEnvironment
from llmengine_hub.repositories import COMMIT, File, Repository, is_key

__all__ = ["Cached"]

DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
BLOCK = 4 << 20
OURS = ".llmengine"
LARGEST_LISTING = 64 << 20


class Cached:
    """One repository's folder in the cache. All of it reads files: call it in threads."""

    def __init__(self, hub: HubEnvironment, repository: Repository) -> None:
        self.folder = hub.cache / repository.folder
        self._revision = repository.revision

    def commit(self) -> str | None:
        """The commit that the revision was when it was last fetched; None where it never was."""
        if COMMIT.fullmatch(self._revision):
            return self._revision if self.snapshot(self._revision).is_dir() else None
        with suppress(OSError, UnicodeError):
            commit = (self.folder / "refs" / self._revision).read_text(encoding="ascii").strip()
            return commit if COMMIT.fullmatch(commit) else None
        return None

    def snapshot(self, commit: str) -> Path:
        """The folder of a commit's files; not all of them need be there."""
        return self.folder / "snapshots" / commit

    def listing(self, commit: str) -> dict[str, File] | None:
        """All files of a commit, by a listing that was kept, ours or the library's; None where none was."""
        for path in (
            self.folder / OURS / "trees" / f"{commit}.json",
            self.folder / "trees" / f"{commit}.json",
        ):
            with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
                if path.stat().st_size <= LARGEST_LISTING:
                    listed = json.loads(path.read_bytes())["files"]
                    return {key: _listed(key, entry) for key, entry in listed.items() if is_key(key)}
        return None

    def files(self, commit: str) -> dict[str, File]:
        """The files of a commit: by a listing, else what lies there."""
        listed = self.listing(commit)
        return {file.key: file for file in self._lying(commit)} if listed is None else listed

    def keep(self, commit: str, revisions: Iterable[str], files: Iterable[File]) -> None:
        """Keep a commit's listing, and which revisions are this commit, for times without the hub."""
        entries = {
            file.key: {"size": file.size, "blob_id": file.oid}
            | ({} if file.sha256 is None else {"lfs_sha256": file.sha256, "lfs_size": file.size})
            for file in files
        }
        written = json.dumps({"format_version": 1, "files": entries}, indent=1)
        _write(self.folder / OURS / "trees" / f"{commit}.json", written)
        for revision in revisions:
            if not COMMIT.fullmatch(revision):
                _write(self.folder / "refs" / revision, commit)

    def path(self, commit: str, file: File) -> Path | None:
        """Where a file lies; None where it doesn't."""
        found = self.snapshot(commit) / file.key
        with suppress(OSError):
            if found.stat().st_size == file.size and found.is_file():
                return found
        return None

    def is_checked(self, path: Path, file: File) -> bool:
        """Whether the digest of what lies there was found right, and nothing has changed since."""
        with suppress(OSError, UnicodeError):
            return self._stamp(file).read_text(encoding="ascii") == _seen(path)
        return False

    def check(self, path: Path, file: File) -> bool:
        """Whether a file has its digest; remembered where it does. One that nobody knows the digest of is right."""
        before = _seen(path)
        if not _matches(path, file):
            return False
        with suppress(OSError):  # of a cache that is only for reading: checked again by the next process
            if _seen(path) == before:
                _write(self._stamp(file), before)
        return True

    def remove(self, path: Path) -> None:
        """Remove a file that is wrong, and the blob behind it."""
        blob = path.resolve()
        path.unlink(missing_ok=True)
        if blob.is_relative_to(self.folder.parent.resolve()):
            blob.unlink(missing_ok=True)

    def _stamp(self, file: File) -> Path:
        return self.folder / OURS / "checked" / file.digest

    def _lying(self, commit: str) -> Iterable[File]:
        root = self.snapshot(commit)
        for folder, _, names in os.walk(root):
            for name in names:
                path = Path(folder, name)
                key = path.relative_to(root).as_posix()
                with suppress(OSError):
                    size, blob = path.stat().st_size, path.resolve().name
                    if is_key(key):
                        known = blob if DIGEST.fullmatch(blob) else ""
                        yield File(key, size, known[:40], known if len(known) == 64 else None)


def _listed(key: str, entry: dict[str, Any]) -> File:
    sha256 = entry.get("lfs_sha256")
    size = entry["size"] if sha256 is None else entry["lfs_size"]
    digests = [entry["blob_id"], *([] if sha256 is None else [sha256])]
    if not (type(size) is int and size >= 0 and all(DIGEST.fullmatch(each) for each in digests)):
        raise ValueError(key)
    return File(key, size, entry["blob_id"], sha256)


def _matches(path: Path, file: File) -> bool:
    if file.sha256 is None and not file.oid:
        return True
    if path.stat().st_size != file.size:
        return False
    seen = hashlib.sha256() if file.sha256 else hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    with path.open("rb", buffering=0) as opened:
        while block := opened.read(BLOCK):
            seen.update(block)
    return seen.hexdigest() == file.digest


def _seen(path: Path) -> str:
    """What changes whenever a file does."""
    found = path.stat()
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ino}"


def _write(path: Path, text: str) -> None:
    with suppress(OSError, UnicodeError):
        if path.read_text(encoding="utf-8") == text:
            return
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
