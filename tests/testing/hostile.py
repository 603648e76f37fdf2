"""Code that breaks the process that runs it, and what is left of a process."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["BREAKS", "MEMORY", "processes_of"]

MEMORY = 300 << 20
"""Bytes; more than the kit takes."""
BREAKS = {
    "hangs": ("threading.Event().wait()", "it hung, for longer than"),
    "spins": ("while True: pass", "it hung, for longer than"),
    "exits": ("os._exit(0)", "it ended the process, with exit status 0"),
    "crashes": ("ctypes.string_at(0)", "it was killed by signal 11 (SIGSEGV)"),
    "kills_its_group": ("os.killpg(0, signal.SIGKILL)", "it was killed by signal 9 (SIGKILL)"),
    "closes_all": ("os.closerange(0, 256)", "it closed file descriptors that are not its own"),
    "eats": (
        "hoard = []\nwhile True: hoard.append(bytearray(1 << 24))",
        f"it took more than {MEMORY >> 20} MiB of memory",
    ),
}
"""By name, statements that end a process or hold it up, and how that is told."""
IMPORTS = "import ctypes, os, signal, threading, time\n"


def processes_of(folder: Path) -> list[int]:
    """Processes whose temporary folder it is."""
    wanted = f"TMPDIR={folder}\0".encode()
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            environment = (each / "environ").read_bytes()
        except OSError:
            continue
        if wanted in environment + b"\0" and int(each.name) != os.getpid():
            found.append(int(each.name))
    return found
