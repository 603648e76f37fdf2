"""Programs that serve tests, and that end with whoever started them, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.e2e.procfs import until

__all__ = ["Kept"]

KEEPER = """
import os, shutil, signal, subprocess, sys, threading
folder, *command = sys.argv[1:]
child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=2, process_group=0)
print(child.pid, flush=True)
def until_let_go():
    told = os.read(0, 1)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    if folder and not told:
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)
keeping = threading.Thread(target=until_let_go, daemon=True)
keeping.start()
child.wait()
if child.returncode == -signal.SIGKILL:
    keeping.join(10)
os._exit(0)
"""
"""Runs a command until standard input says something, or ends as it does with the process that holds it."""


class Kept:
    """A program in a process group of its own, killed when this process ends at the latest.

    What it writes is appended to the file ``log``. Where this process ends without having called ``kill``, the
    folder ``remove`` goes with the program.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str] | None = None,
        remove: Path | None = None,
    ) -> None:
        with log.open("ab") as output:
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", KEEPER, str(remove or ""), *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env={**os.environ, **(environment or {})},
                start_new_session=True,  # the terminal's Ctrl-C is for pytest, which ends it
            )
        self._killed = False
        assert self._keeper.stdout is not None
        said = self._keeper.stdout.readline()
        if not said:
            self.kill()
            raise AssertionError(f"{command[0]} can't be run: {log.read_text(errors='replace')[-2000:]}")
        self.pid = int(said)
        """Of the program itself, and of its group."""

    def running(self) -> bool:
        """Whether it has neither ended by itself nor been killed."""
        return self._keeper.poll() is None

    def pause(self) -> None:
        """Stop it where it is: connections to it stay open, and nothing answers."""
        os.killpg(self.pid, signal.SIGSTOP)
        stat = Path(f"/proc/{self.pid}/stat")
        until(lambda: stat.read_bytes().rpartition(b")")[2].split()[0] == b"T", 10, "it has stopped")

    def resume(self) -> None:
        """Have it go on after ``pause``."""
        os.killpg(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it at once, as a crash would, and wait until it is gone. Idempotent."""
        if not self._killed:
            self._killed = True
            self._keeper.communicate(b"k")
