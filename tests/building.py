"""Builds of small environments: from wheels in a folder, with no index, in this process and in others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.wheels import make_wheel

from llmengine_core.environments import environments_folder
from llmengine_core.installing import uv
from llmengine_core.recipes import Recipe

__all__ = ["BODY", "UV", "Building", "building", "gate", "left", "offline", "recipe"]

SECONDS = 60
UV = uv() or pytest.fail("these tests need uv: python -m pip install uv")
BODY = """
import os, sys
if gate := os.environ.get("MOTOR_GATE"):
    open(gate).read()  # until the test lets go
def main():
    import gears
    print(sys.prefix, gears.__name__)
"""
"""Of the module ``motor``: its import waits for the other end of a pipe, where the environment names one."""

PROGRAM = """
import asyncio, json, sys
from pathlib import Path
from llmengine_core.errors import LLMEngineError
from llmengine_core.installing import PIP, build, uv
from llmengine_core.recipes import Recipe

def say(**what):
    print(json.dumps(what), flush=True)

home, tool, given = sys.argv[1:]
fields = {name: tuple(value) if isinstance(value, list) else value for name, value in json.loads(given).items()}
work = build(Path(home), Recipe(**fields), tool={"uv": uv(), "pip": PIP}[tool],
             on_progress=lambda progress: say(phase=progress.phase))
try:
    say(folder=str(asyncio.run(work).folder))
except LLMEngineError as error:
    say(error=error.message)
"""


def recipe(**changes: Any) -> Recipe:
    """``motor`` 1.0 with ``gears`` 1.0."""
    fields: dict[str, Any] = {
        "engine": "motor",
        "version": "1.0",
        "accelerator": "cpu",
        "python": "3.11",
        "distributions": ("motor",),
        "modules": ("motor",),
        "requirements": ("motor==1.0",),
        "pins": {"motor": "1.0", "gears": "1.0"},
    }
    return Recipe(**{**fields, **changes})


def offline(folder: Path, **more: str) -> dict[str, str]:
    """Variables of installers that know only a folder of wheels, ``folder / "wheels"``, with ``motor`` in it."""
    wheels = folder / "wheels"
    make_wheel(wheels, "motor", requires=["gears>=1"], body=BODY, scripts=["motor-turn"])
    make_wheel(wheels, "gears", "1.0")
    make_wheel(wheels, "gears", "2.0")
    return {
        "PIP_FIND_LINKS": str(wheels),
        "PIP_NO_INDEX": "1",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_CACHE_DIR": str(folder / "cache"),
        "UV_CACHE_DIR": str(folder / "cache"),
        "UV_NO_CONFIG": "1",
        **more,
    }


@dataclass
class Building:
    """A build in a process of its own."""

    process: subprocess.Popen[str]

    def hear(self) -> dict[str, str]:
        """The next that it says."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        said: dict[str, str] = json.loads(line)
        return said

    def until(self, phase: str) -> None:
        """Wait until a phase begins."""
        while (said := self.hear()) != {"phase": phase}:
            assert "phase" in said, said

    def rest(self) -> list[dict[str, str]]:
        """All that it still says."""
        out, error = self.process.communicate(timeout=SECONDS)
        assert self.process.returncode == 0, error
        return [json.loads(line) for line in out.splitlines()]


@contextmanager
def building(
    home: Path,
    wanted: Recipe,
    environment: Mapping[str, str],
    *,
    tool: str = "uv",
    wrapper: Sequence[str] = (),
) -> Iterator[Building]:
    """Start a build; what is left of it in the end is killed."""
    fields = {name: getattr(wanted, name) for name in wanted.__slots__ if name != "digest"}
    with subprocess.Popen(
        [*wrapper, sys.executable, "-c", PROGRAM, str(home), tool, json.dumps(fields)],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Building(process)
        finally:
            process.kill()


def left(home: Path) -> list[str]:
    """All that lies among the environments."""
    folder = environments_folder(home)
    return sorted(os.listdir(folder)) if folder.exists() else []


@contextmanager
def gate(folder: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A pipe at which the import of ``motor`` waits, and what lets it go on."""
    path = folder / "gate"
    os.mkfifo(path)
    yield path, lambda: os.close(os.open(path, os.O_WRONLY))
