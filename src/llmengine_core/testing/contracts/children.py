"""Processes of our own beside the one that laws run in: let off together, killed, and never waited for without end."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import IO

__all__ = ["Racer", "racers", "reports"]

PATIENCE = 50.0
"""Seconds that processes get for a task of about one, on a slow storage and a busy machine."""


class Racer:
    """One child at one task; see ``racer``."""

    def __init__(self, command: Sequence[str], log: IO[bytes]) -> None:
        self._log = log
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=_environment(), bufsize=0
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._told, self._said = self._process.stdin, self._process.stdout

    def line(self) -> str:
        """The next line that it says; an ``AssertionError`` with its errors where it ends before."""
        line = self._said.readline()
        if not line.endswith(b"\n"):
            raise AssertionError(self._ended())
        return line.decode().strip()

    def go(self) -> None:
        """Let it begin, or go on."""
        self._told.write(b"\n")

    def kill(self) -> list[str]:
        """End it as nothing can be prevented from being ended; the whole lines that it had still said."""
        self._process.kill()
        rest = self._said.read()
        self._process.wait()
        return [line.decode().strip() for line in rest.splitlines(keepends=True) if line.endswith(b"\n")]

    def report(self) -> list[str]:
        """All words that it says until its end."""
        words = self._said.read().decode().split()
        if self._process.wait():
            raise AssertionError(self._ended())
        return words

    def end(self) -> None:
        """End it, whatever it does."""
        self._process.kill()

    def close(self) -> None:
        """End it, and let go."""
        self.end()
        self._process.wait()
        self._told.close()
        self._said.close()

    def _ended(self) -> str:
        code = self._process.wait()
        self._log.seek(0)
        said = self._log.read().decode(errors="replace").strip()
        how = f"was killed after {PATIENCE:g} s" if code < 0 else f"failed with status {code}"
        return f"a process that used it {how}:\n{said[-3000:]}"


@contextmanager
def racers(
    program: ModuleType | str, factory: str, url: str, task: str, arguments: Sequence[float]
) -> Iterator[list[Racer]]:
    """Children at the same task, let off together."""
    name = program if isinstance(program, str) else program.__name__
    command = [sys.executable, "-m", name, factory, url, task]
    children: list[Racer] = []
    with tempfile.TemporaryFile() as log:
        watch = threading.Timer(PATIENCE, _end, [children])
        watch.daemon = True
        watch.start()
        try:
            children += [Racer([*command, str(each)], log) for each in arguments]
            for child in children:
                said = child.line()
                assert said == "ready", f"a process was to say that it is ready, and said {said!r}"
            for child in children:
                child.go()
            yield children
        finally:
            watch.cancel()
            for child in children:
                child.close()


def _end(children: list[Racer]) -> None:
    for child in list(children):
        child.end()


def reports(
    program: ModuleType | str, factory: str, url: str, task: str, arguments: Sequence[float]
) -> list[list[str]]:
    """What children say of the same task, each at its end."""
    with racers(program, factory, url, task, arguments) as children:
        return [child.report() for child in children]


def _environment() -> dict[str, str]:
    """Ours, and the folders that we import from: what is judged may be a module of tests."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}
