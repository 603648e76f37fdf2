"""Programs that use llmengine, each in a process and a home of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["PRELUDE", "Program", "Running", "environment", "install"]

SECONDS = 90
"""How long a program may take before it is given up."""

PRELUDE = """
import json, os, sys, threading, time
from llmengine import Completion, File, Model, errors
MODEL = "smollm2-135m-instruct"
def say(*values):
    print(json.dumps(values), flush=True)
def heard():
    return sys.stdin.readline()
def ask(prompt="The capital of France is", model=MODEL, **options):
    return Completion.create(model, prompt, **({"max_new_tokens": 3, "temperature": 0} | options))
def stream(prompt="Once upon a time", model=MODEL, **options):
    return ask(prompt, model, **({"max_new_tokens": 2000, "stream": True} | options))
"""
"""What every program begins with: ``ask`` and ``stream`` complete, ``say`` and ``heard`` talk to the test."""


def environment(home: Path, **more: str) -> dict[str, str]:
    """Ours, with none of the machine's settings but ``home``."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LLMENGINE_", "LLM_ENGINE_"))
    }
    return clean | {"LLMENGINE_HOME": str(home)} | more


def install(site: Path, name: str, *, module: str, source: str | None = None) -> None:
    """Put a plugin into a folder, for the module search path, as if it were installed: ``name`` 1.0.

    ``source`` is its module's text, where there is no such module yet.
    """
    metadata = site / f"{name}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[llmengine]\n{name} = {module}\n")
    if source is not None:
        (site / f"{module}.py").write_text(source)


@dataclass
class Running:
    """A program that runs."""

    process: subprocess.Popen[str]
    _stderr: Any = field(repr=False)

    @property
    def pid(self) -> int:
        """Its process id; that of the wrapper, where it was started in one."""
        return self.process.pid

    def hear(self) -> list[Any]:
        """The values of its next ``say``."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the program ended with {self.process.wait()}: {self.stderr()}"
        values: list[Any] = json.loads(line)
        return values

    def tell(self, line: str = "") -> None:
        """A line for its ``heard``."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def interrupt(self) -> None:
        """Ctrl-C: the terminal signals the whole group."""
        os.killpg(self.pid, signal.SIGINT)

    def end(self) -> int:
        """Wait until it has ended; its exit status."""
        return self.process.wait(SECONDS)

    def stderr(self) -> str:
        """What it has written on standard error, of the program itself."""
        self._stderr.seek(0)
        written: str = self._stderr.read()
        return written


@dataclass(frozen=True)
class Program:
    """Python code after ``PRELUDE``, in a process with a home."""

    home: Path
    more: dict[str, str] = field(default_factory=dict)
    """Further environment variables."""

    def _command(self, code: str, arguments: Sequence[str], wrapper: Sequence[str]) -> list[str]:
        self.home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=self.home.parent, suffix=".py", delete=False) as file:
            file.write(code)
        return [*wrapper, sys.executable, file.name, *arguments]

    @contextmanager
    def start(
        self, code: str, *arguments: str, before: str = "", wrapper: Sequence[str] = ()
    ) -> Iterator[Running]:
        """Start it, and end it at the end of the block.

        ``before`` runs before llmengine is imported. ``wrapper`` is a command that takes another as its arguments.
        """
        with tempfile.TemporaryFile("w+") as stderr:
            process = subprocess.Popen(
                self._command(before + PRELUDE + code, arguments, wrapper),
                env=environment(self.home, **self.more),
                cwd=self.home.parent,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                process_group=0,
            )
            with process:
                try:
                    yield Running(process, stderr)
                finally:
                    process.kill()

    def run(self, code: str, *arguments: str, wrapper: Sequence[str] = ()) -> list[list[Any]]:
        """Run it to its end; all that it said. It must exit with 0 and leave standard error empty."""
        done = subprocess.run(
            self._command(PRELUDE + code, arguments, wrapper),
            env=environment(self.home, **self.more),
            cwd=self.home.parent,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), done
        return [json.loads(line) for line in done.stdout.splitlines()]
