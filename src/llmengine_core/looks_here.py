"""Looks at checkpoints on this machine: paths, file:// URLs, and files inside of installed packages."""

from __future__ import annotations

import importlib.util
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from llmengine_core.checkpoints import Description, MoreNeeded, describe
from llmengine_core.gguf import BadHeader
from llmengine_core.locations import Absent
from llmengine_core.packed import Bounds, describe_packed
from llmengine_core.pickles import check_pickles
from llmengine_core.types.plan import CheckpointFacts, Problem

__all__ = ["LOOKS", "MOST_FILES", "look_at_path", "look_here"]

MOST_FILES = 10_000
"""A folder with more files isn't taken for a checkpoint."""
BOUNDS = Bounds(seconds=10, reads=100_000, bytes=2 << 30, unpacked=2 << 30)
"""What may be read of an archive to tell what is in it; a walk over a plain one takes far less."""
KEPT = 64
"""Looks that are remembered, as long as what was looked at stays the same."""


class Looks:
    """Descriptions by what was looked at: its place, and name, size and etag or time of each file."""

    def __init__(self) -> None:
        self._kept: dict[object, Description] = {}

    def get(self, stamp: object) -> Description | None:
        return self._kept.get(stamp)

    def keep(self, stamp: object, found: Description) -> None:
        while len(self._kept) >= KEPT:
            self._kept.pop(next(iter(self._kept)), None)
        self._kept[stamp] = found


LOOKS = Looks()


def look_here(location: str, scheme: str | None) -> CheckpointFacts:
    """What is at a path or URL of this machine. Raises ``Absent``. Blocks."""
    if scheme == "package":
        path = _package_path(location)
    elif scheme is not None:
        parts = urlsplit(location)
        if parts.netloc not in ("", "localhost"):
            raise Absent(
                f"{location} is on the host {parts.netloc!r}; a file:// URL has none: file:///folder/file"
            )
        path = Path(unquote(parts.path))
    else:
        path = Path(location).expanduser().absolute()
    return look_at_path(location, path)


def _package_path(url: str) -> Path:
    """Where a file of an installed package lies; the package is looked for, not imported."""
    parts = urlsplit(url)
    package, inner = parts.netloc, PurePosixPath(unquote(parts.path).lstrip("/"))
    if not package.isidentifier() or ".." in inner.parts:
        raise Absent(f"{url} is no package://import_name/path")
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        raise Absent(f"the package {package} is not installed")
    paths = [Path(folder) / inner for folder in folders]
    return next((path for path in paths if path.exists()), paths[0])


def look_at_path(location: str, path: Path) -> CheckpointFacts:
    """What is at a path that a location stands for. Raises ``Absent``. Blocks."""
    try:
        status = path.stat()
    except FileNotFoundError:
        mend = "correct the path, or put the weights there"
        if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", location):
            mend += f"; a repository of the Hugging Face hub is checkpoint_path='hf://{location}'"
        raise Absent(f"there is no {path}", mend) from None
    if stat.S_ISDIR(status.st_mode):
        entries: dict[str, os.stat_result] = {}
        with os.scandir(path) as found:
            for entry in found:
                if len(entries) == MOST_FILES:
                    raise Absent(f"{path} holds more than {MOST_FILES:,} files; it is no checkpoint")
                if entry.is_file():
                    entries[entry.name] = entry.stat()
        return _describe_path(location, path, entries, folder=True)
    if not stat.S_ISREG(status.st_mode):
        raise Absent(f"{path} is neither a file nor a folder")
    return _describe_path(location, path, {path.name: status}, folder=False)


def _describe_path(
    location: str, path: Path, files: Mapping[str, os.stat_result], *, folder: bool
) -> CheckpointFacts:
    """Describe files; as long as their names, sizes, times and numbers stay, so does the answer."""
    entries = sorted((name, seen.st_size, seen.st_mtime_ns, seen.st_ino) for name, seen in files.items())
    stamp = (location, path, folder, tuple(entries))
    found = LOOKS.get(stamp)
    if found is None:
        sizes, heads = {name: seen.st_size for name, seen in files.items()}, dict[str, bytes]()
        found = _read(location, path if folder else path.parent, sizes, heads, folder=folder)
        if found.facts.archive is not None:
            found = replace(found, facts=_look_into(location, path, found.facts.archive))
        elif found.facts.problem is None:
            found = _checked(found, location, path if folder else path.parent)
        told = found.facts.format is not None or found.facts.problem is not None
        if told and not any("/" in name for name in (*sizes, *heads)):  # those in folders below have no stamp
            LOOKS.keep(stamp, found)
    return replace(found.facts, path=str(path / found.file if found.file else path))


def _read(
    location: str, parent: Path, sizes: dict[str, int], heads: dict[str, bytes], *, folder: bool
) -> Description:
    while True:
        try:
            return describe(location, sizes, heads, folder=folder)
        except MoreNeeded as more:
            for name, stop in more.wanted.items():
                path = parent / name
                if name not in sizes and path.is_file():
                    sizes[name] = path.stat().st_size
                elif name not in sizes:
                    heads[name] = b""
                else:
                    with path.open("rb") as file:
                        heads[name] = file.read(stop)
                    if len(heads[name]) < stop:
                        raise Absent(f"{path} became shorter while it was read") from None


def _checked(found: Description, location: str, parent: Path) -> Description:
    """The same, with a problem where there is one in files that only can be seen as a whole."""
    try:
        for name in found.needed:
            check_pickles(parent / name)
    except BadHeader as error:
        problem = Problem(f"the checkpoint {location} can't be used: {error.reason}", error.mend)
        return replace(found, facts=replace(found.facts, problem=problem))
    return found


def _look_into(location: str, path: Path, kind: str) -> CheckpointFacts:
    """What is in an archive on this machine."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size

        def read_at(start: int, stop: int) -> bytes:
            found = os.pread(file.fileno(), stop - start, start)
            if len(found) < stop - start:
                raise Absent(f"{path} became shorter while it was read")
            return found

        return describe_packed(location, kind, read_at, size, BOUNDS)
