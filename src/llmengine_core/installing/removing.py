"""Removes an environment that nobody uses."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from llmengine_core.environments import Environment
from llmengine_core.errors import ServerError
from llmengine_core.installing.building import lock_of
from llmengine_core.locks import file_lock
from llmengine_core.processes import spawn

__all__ = ["User", "remove", "users"]


@dataclass(frozen=True, slots=True)
class User:
    """A process that runs in an environment."""

    pid: int
    command: str

    def __str__(self) -> str:
        """For messages."""
        return f"process {self.pid} ({self.command[:200]})"


async def remove(home: Path, environment: Environment) -> None:
    """Take an environment away: first out of sight, at once, then from the disk."""
    async with file_lock(lock_of(home, environment.folder.name)):
        gone = environment.folder.with_name(f".{environment.folder.name}.{secrets.token_hex(4)}")
        try:
            await asyncio.to_thread(os.rename, environment.folder, gone)
        except FileNotFoundError:
            return  # somebody else was first
        except OSError as error:
            raise ServerError(f"{environment.folder} can't be removed: {error.strerror or error}") from error
        await asyncio.to_thread(shutil.rmtree, gone, ignore_errors=True)


async def users(environment: Environment) -> list[User]:
    """The processes that run in an environment, as far as we may see them.

    Told by what they say that they run, and on Linux also by the files that they have mapped into their memory:
    libraries of an engine, however it was started.
    """
    if sys.platform == "linux":
        return await asyncio.to_thread(lambda: list(_linux_users(environment.folder)))
    lines: list[str] = []
    child = await spawn(["/bin/ps", "-axww", "-o", "pid=,command="], on_line=lines.append)
    try:
        await child.wait()
    finally:
        await child.aclose()
    found = (line.strip().partition(" ") for line in lines)
    return [
        User(int(pid), command) for pid, _, command in found if command.startswith(f"{environment.folder}/")
    ]


def _linux_users(folder: Path) -> Iterator[User]:
    named, mapped = os.fsencode(f"{folder}/"), os.fsencode(f"{folder.resolve()}/")
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with suppress(OSError):  # it ended meanwhile, or is somebody else's
                command = Path("/proc", name, "cmdline").read_bytes()
                if command.startswith((named, mapped)) or mapped in Path("/proc", name, "maps").read_bytes():
                    yield User(int(name), command.replace(b"\0", b" ").decode(errors="replace").strip())
