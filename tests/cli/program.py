"""The command line as a program, and plugins as if they were installed."""

from __future__ import annotations

import importlib
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from click.testing import Result

__all__ = ["ECHO", "Installed", "Program", "Run", "terminal"]

Run = Callable[..., Result]
ECHO = "llmengine_core.testing.echo"
SECONDS = 60


def metadata(distribution: str) -> str:
    """The least that a distribution says of itself."""
    return f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n"


@dataclass(frozen=True)
class Installed:
    """A folder on the module search path, where plugins can be put as if they were installed."""

    path: Path

    def add(self, name: str, module: str, source: str | None = None) -> None:
        """A plugin: its entry point, and its module where there is none yet."""
        if source is not None:
            (self.path / f"{module}.py").write_text(source)
            sys.modules.pop(module, None)  # another test's of the same name
            importlib.invalidate_caches()
        files = {
            "METADATA": f"{metadata(f'llmengine-{name}')}Requires-Dist: llmengine-core>=0.1,<1\n",
            "entry_points.txt": f"[llmengine]\n{name} = {module}\n",
        }
        self.add_files(f"llmengine-{name}", files)

    def add_files(self, distribution: str, files: dict[str, str]) -> None:
        """A distribution with these files in its metadata."""
        info = self.path / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        files = {"METADATA": metadata(distribution)} | files
        for name, text in files.items():
            (info / name).write_text(text)


@dataclass(frozen=True)
class Program:
    """``llmengine`` as a process, in a home of its own."""

    environment: dict[str, str]
    folder: Path

    def __call__(self, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run it to its end."""
        return subprocess.run(
            [sys.executable, "-m", "llmengine_core.cli", *arguments],
            env=self.environment,
            cwd=self.folder,
            input=stdin,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )

    @contextmanager
    def running(
        self,
        *arguments: str,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Start it, the first of a process group of its own; what is left of it in the end is killed."""
        with subprocess.Popen(
            [sys.executable, "-m", "llmengine_core.cli", *arguments],
            env=self.environment,
            cwd=self.folder,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            process_group=0,
        ) as process:
            try:
                yield process
            finally:
                process.kill()


@contextmanager
def terminal() -> Iterator[tuple[int, Callable[[], str]]]:
    """A terminal's end for a program, which it is to be handed to first, and what the program shows on it."""
    ours, theirs = pty.openpty()

    def shown() -> str:
        os.close(theirs)
        found = b""
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # the program closed its end
                piece = b""
            if not piece:
                return found.decode()
            found += piece

    try:
        yield theirs, shown
    finally:
        os.close(ours)
