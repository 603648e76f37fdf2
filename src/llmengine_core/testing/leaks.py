"""What this process holds: tasks, threads, children, open files and sockets, folders; and what it holds too much.

On Linux all of it is read from ``/proc``; elsewhere children aren't known, and files by their numbers only.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import re
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Hashable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Holdings", "cpu_seconds", "descendants", "grown", "holdings", "own_folder"]

PROC = Path("/proc")
POLL = 0.02
"""Seconds between two looks."""
LASTING = re.compile(r"asyncio_\d+|contract-\d+|pydevd.*|Dummy-\d+")
"""Names of threads that others keep for good: the loop's own pool, a portal, a debugger."""
TRACKER = "resource_tracker"
"""A child that ``multiprocessing`` starts once and keeps."""
FOLDERS = ("TMPDIR", "TMP", "TEMP", "XDG_RUNTIME_DIR")


@dataclass(frozen=True, slots=True)
class Holdings:
    """What was held at one moment: what makes each thing itself, and what it is called."""

    kinds: Mapping[str, Mapping[Hashable, str]]

    def beyond(self, before: Holdings) -> list[str]:
        """What is here and was not there, each by kind and name."""
        return [
            f"the {kind} {name}"
            for kind, held in self.kinds.items()
            for each, name in held.items()
            if each not in before.kinds[kind]
        ]


async def holdings(folder: Path | None = None) -> Holdings:
    """What is held now; tasks are those of the running loop. ``folder`` is looked through for files and folders."""
    ours = asyncio.current_task()
    tasks: dict[Hashable, str] = {
        task: _called(task) for task in asyncio.all_tasks() if task is not ours and not task.done()
    }
    found = await asyncio.to_thread(_outside_the_loop, folder)
    return Holdings({"task": tasks, **found})


async def grown(before: Holdings, *, seconds: float, folder: Path | None = None) -> list[str]:
    """What is held more than ``before``, once nothing is, or ``seconds`` are over."""
    end = time.monotonic() + seconds
    while True:
        more = (await holdings(folder)).beyond(before)
        if not more or time.monotonic() > end:
            return more
        await asyncio.to_thread(gc.collect)
        await asyncio.sleep(POLL)


@asynccontextmanager
async def own_folder() -> AsyncIterator[Path]:
    """Have everything that is started meanwhile put its temporary files and sockets into one new folder."""
    # The name is short: a socket's whole path must be.
    made = await asyncio.to_thread(tempfile.TemporaryDirectory, prefix="k", ignore_cleanup_errors=True)
    before = {name: os.environ.get(name) for name in FOLDERS}
    usual = tempfile.tempdir
    tempfile.tempdir = made.name
    os.environ.update(dict.fromkeys(FOLDERS, made.name))
    try:
        yield Path(made.name)
    finally:
        tempfile.tempdir = usual
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        await asyncio.to_thread(made.cleanup)


def descendants(of: int | None = None) -> dict[int, int]:
    """The processes that a process, by default this one, started, and those that these did: id and parent's id.

    Empty where there is no ``/proc``.
    """
    children: dict[int, list[int]] = {}
    for pid, parent in _parents():
        children.setdefault(parent, []).append(pid)
    found: dict[int, int] = {}
    left = [os.getpid() if of is None else of]
    while left:
        parent = left.pop()
        for pid in children.get(parent, ()):
            found[pid] = parent
            left.append(pid)
    return found


def cpu_seconds() -> float:
    """CPU time that this process and those that it started have used so far."""
    used = time.process_time()
    for pid in descendants():
        if (fields := _stat(pid)) is not None:
            used += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return used


def _outside_the_loop(folder: Path | None) -> dict[str, dict[Hashable, str]]:
    mine = threading.current_thread()
    return {
        "thread": {
            each: each.name
            for each in threading.enumerate()
            if each is not mine and not LASTING.fullmatch(each.name)
        },
        "process": dict(_processes()),
        "open file": dict(_files()),
        "file or folder": {} if folder is None else dict(_under(folder)),
    }


def _called(task: asyncio.Task[object]) -> str:
    coroutine = task.get_coro()
    return f"{task.get_name()} of {getattr(coroutine, '__qualname__', coroutine)}"


def _stat(pid: int) -> list[str] | None:
    """What the system says of a process behind its name, which may hold anything."""
    try:
        return (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:  # it is gone
        return None


def _parents() -> Iterator[tuple[int, int]]:
    with contextlib.suppress(OSError):
        for name in os.listdir(PROC):
            if name.isdigit() and (fields := _stat(int(name))) is not None:
                yield int(name), int(fields[1])


def _processes() -> Iterator[tuple[Hashable, str]]:
    for pid in descendants():
        fields = _stat(pid)
        if fields is None:
            continue
        try:
            line = (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if TRACKER not in line:
            state = " (ended, and not waited for)" if fields[0] == "Z" else ""
            yield (pid, fields[19]), f"{pid}{state}: {line[:200].strip()}"


def _files() -> Iterator[tuple[Hashable, str]]:
    for root in ("/proc/self/fd", "/dev/fd"):
        try:
            numbers = os.listdir(root)
        except OSError:
            continue
        for number in numbers:
            target = ""
            with contextlib.suppress(OSError):
                target = os.readlink(f"{root}/{number}")
            try:
                os.fstat(int(number))  # not the one that listed them
            except OSError:
                continue
            yield (number, target), f"{number} {target}".strip()
        return


def _under(folder: Path) -> Iterator[tuple[Hashable, str]]:
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.relpath(os.path.join(root, name), folder)
            yield path, path
