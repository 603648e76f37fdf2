"""This machine and this environment: packages, folders, sockets, the clock."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path

import llmengine_core
from llmengine_core.cli.checks.finding import ROOM_WANTED, Finding
from llmengine_core.registry import Registry
from llmengine_core.rundir import RuntimeFolder
from llmengine_core.settings import Settings

__all__ = ["clock", "home", "packages", "sockets"]

DAY = 86_400


def packages(settings: Settings, registry: Registry) -> Iterator[Finding]:
    """Nobody else may install a package of our name: the files of whoever came last would win."""
    shadows = []
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        record = f"\n{distribution.read_text('RECORD') or ''}"
        if name != "llmengine-core" and "\nllmengine/__init__.py," in record:
            shadows.append(name)
            again = "python -m pip install --force-reinstall --no-deps llmengine-core"
            yield Finding(
                "broken",
                f"{name} {distribution.version} installs a package 'llmengine' too, over or beside this one",
                f"python -m pip uninstall {name} && {again}",
            )
    ours = Path(llmengine_core.__file__).parents[1]
    found = util.find_spec("llmengine")
    if found is None or found.origin is None or Path(found.origin).parents[1] != ours:
        where = found.origin if found else "nothing"
        yield Finding("broken", f"'import llmengine' finds {where}, not the package in {ours}")
    elif not shadows:
        yield Finding("ok", f"llmengine-core {metadata.version('llmengine-core')} in {ours}")


def home(settings: Settings, registry: Registry) -> Iterator[Finding]:
    """The state folder takes files, and has room for them."""
    mend = "set LLMENGINE_HOME to a folder that you may write to"
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=settings.home) as file:
            file.write(b"\0" * 4096)
    except OSError as error:
        yield Finding("broken", f"{settings.home} can't be written to: {error.strerror or error}", mend)
        return
    free = shutil.disk_usage(settings.home).free
    if free < ROOM_WANTED:
        yield Finding("advice", f"{settings.home} has only {free >> 20} MiB free", f"free some, or {mend}")
    else:
        yield Finding("ok", f"{settings.home}, {free >> 30} GiB free")


def sockets(settings: Settings, registry: Registry) -> Iterator[Finding]:
    """Engines that run here can be spoken to."""
    try:
        with RuntimeFolder() as folder:
            yield Finding("ok", str(folder.root))
    except OSError as error:
        yield Finding("broken", str(error))


def clock(settings: Settings, registry: Registry) -> Iterator[Finding]:
    """The time is not before these very files were written."""
    written = Path(__file__).stat().st_mtime
    now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    if time.time() < written - DAY:
        yield Finding("broken", f"the clock says {now}, which is long past", "set this machine's clock")
    else:
        yield Finding("ok", now)
