"""Why an installer failed, in its own words, and what mends it."""

from __future__ import annotations

import os
import platform
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

__all__ = ["explained", "os_reason"]

MOST_LINES = 10
CHATTER = re.compile(
    r"\s*$|(uv|pip) ended with status|\s*(Using Python|Resolved|Prepared|Downloading|Downloaded|Building|Built"
    r"|Looking in|Processing|Collecting|Using cached|Requirement already|Installing collected|Obtaining|Attempting"
    r"|INFO:|WARNING: Retrying|\[notice\]|warning: Failed to hard|If the cache and|If this is intentional)"
)
NO_ROOM = re.compile(
    r"No space left on device|os error 28\b|Errno 28\b|Disk quota exceeded|os error 122\b|Errno 122\b"
)
TOO_LARGE = re.compile(r"SIGXFSZ|File too large|os error 27\b|Errno 27\b")
NO_NETWORK = re.compile(
    r"error sending request|client error \(Connect\)|dns error|NewConnectionError|Failed to establish a new connection"
    r"|ConnectTimeoutError|ReadTimeoutError|ProxyError|network was disabled|Connection refused|operation timed out"
)
NO_WHEEL = re.compile(
    r"no wheels? with a matching|no wheels are available|Requires-Python|does not satisfy Python"
)
NOT_THERE = re.compile(
    r"was not found in|were not found in|there (?:is|are) no versions? of|No matching distribution"
    r"|\(constraint\) \S+\+cpu"
)
CONFLICT = re.compile(r"No solution found|ResolutionImpossible|conflicting dependencies")
NO_PIP = re.compile(r"ensurepip")


def explained(lines: Sequence[str], folder: Path) -> str:
    """What went wrong and the mend, followed by the last that the installer said.

    ``folder`` is where the environment was to be.
    """
    said = "\n".join(lines)
    last = [line for line in lines if not CHATTER.match(line)][-MOST_LINES:]
    return "\n".join([_judged(said, folder), *(f"    {line}" for line in last)])


def os_reason(error: OSError, folder: Path) -> str:
    """What the system refused us, and the mend."""
    if NO_ROOM.search(str(error)) or TOO_LARGE.search(str(error)):
        return _judged(str(error), folder)
    place, why = error.filename or folder, error.strerror or error
    return f"{place}: {why}. Mend: give the user rights there, or set LLMENGINE_HOME"


def _disk_full(folder: Path) -> str:
    """That there is no room, on which disk, and how much is left there."""
    places = {"LLMENGINE_HOME": folder, "XDG_CACHE_HOME": _cache(), "TMPDIR": Path(tempfile.gettempdir())}
    variable, fullest = min(places.items(), key=lambda place: _free(place[1]))
    return (
        f"no room is left on a disk; {fullest} has {_free(fullest) / 1e6:,.0f} MB left. Mend: free space there, or set "
        f"{variable} to a folder on another disk"
    )


def _judged(said: str, folder: Path) -> str:
    here = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    again = "then run the same command again: what was downloaded is kept"
    if NO_ROOM.search(said):
        return _disk_full(folder)
    if TOO_LARGE.search(said):
        return "a file is larger than this user may write. Mend: raise the limit of file sizes (ulimit -f)"
    if NO_NETWORK.search(said):
        return (
            "no package index can be reached. Mend: restore the network, or set PIP_INDEX_URL to a mirror, or "
            f"PIP_FIND_LINKS to a folder of wheels and PIP_NO_INDEX=1; {again}"
        )
    if NO_WHEEL.search(said):
        return f"there is no wheel for {here}. Mend: run llmengine with another Python, or name another --version"
    if NOT_THERE.search(said):
        return (
            f"no index here has what is asked for, for {here}. Mend: set PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS to what "
            "has it; for torch of a version with '+cpu', PyTorch's own index (uv looks there by itself: "
            "python -m pip install uv)"
        )
    if CONFLICT.search(said):
        return (
            "what is asked for excludes each other. Mend: upgrade the plugins that ask for it, name another "
            "--version, or leave --quantize out"
        )
    if NO_PIP.search(said):
        return "this Python comes without pip. Mend: python -m pip install uv, or install the package python3-venv"
    return "the installer failed"


def _cache() -> Path:
    """Where installers keep what they download."""
    given = os.environ.get("UV_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME")
    return Path(given) if given else Path.home() / ".cache"


def _free(folder: Path) -> int:
    """Bytes left for us on the disk of a folder, or of the nearest one above it that exists."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free
