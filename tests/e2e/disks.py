"""Disks with little room, and folders that can't be written to, as real as this machine permits."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

__all__ = ["MIB", "can_mount", "on_small_disk", "read_only"]

MIB = 1 << 20


def on_small_disk(folder: Path, size: int) -> Sequence[str]:
    """A command before another: for it alone, ``folder`` is an empty disk of ``size`` bytes."""
    return [
        *_apart(),
        'mount -t tmpfs -o size="$1" llmengine "$0" && shift && exec "$@"',
        str(folder),
        str(size),
    ]


def read_only(folder: Path, how: str) -> Sequence[str]:
    """A command before another, for which nothing in ``folder`` can be written.

    ``how`` is "mount", or "rights": then the folder's rights must forbid it, and root, whom they don't bind,
    gives up the power to pass over them.
    """
    if how == "mount":
        command = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
        return [*_apart(), command, str(folder)]
    if os.geteuid() != 0:
        return []
    return [sys.executable, "-c", HUMBLE]


HUMBLE = """
import ctypes, os, sys
PR_CAPBSET_READ, PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 23, 24, 1
prctl = ctypes.CDLL(None, use_errno=True).prctl
if prctl(PR_CAPBSET_READ, CAP_DAC_OVERRIDE, 0, 0, 0) and prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0):
    raise OSError(ctypes.get_errno(), "the power to pass over rights can't be given up")
os.execv(sys.argv[1], sys.argv[1:])
"""


def _apart() -> list[str]:
    """A shell whose mounts nobody else sees, and which end with it."""
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", "--mount", *as_root, "sh", "-c"]


@cache
def can_mount() -> bool:
    """Whether this machine lets us mount at all; containers often don't."""
    try:
        command = [*_apart(), 'mount -t tmpfs llmengine "$0"', tempfile.gettempdir()]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
