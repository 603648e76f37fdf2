"""The command line on a real engine."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.program import Program, terminal

pytestmark = pytest.mark.engine


def test_the_readmes_command_streams_a_real_completion(program: Program) -> None:
    done = program("complete", "The capital of France is", "--temperature", "0", "--max-new-tokens", "8")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b" Paris")


def test_c03_a_constraint_holds_on_a_real_engine(program: Program) -> None:
    done = program("complete", "The capital of France is", "--guided-choice", " Rome", "--json")
    assert json.loads(done.stdout)["output"]["text"] == " Rome"


def test_a_terminal_sees_the_model_load_and_then_only_text(program: Program) -> None:
    with (
        terminal() as (theirs, shown),
        program.running("complete", "One, two,", "--max-new-tokens", "4", stdout=theirs, stderr=theirs),
    ):
        seen = shown()
    assert "smollm2-135m-instruct: " in seen
    *_, last = seen.split("\r\x1b[K")
    assert re.fullmatch(r"[^\x1b\r]+\r\n", last), seen


def test_c10_ctrl_c_leaves_no_process_and_no_socket(program: Program) -> None:
    with program.running("complete", "Once upon a time", "--max-new-tokens", "4000") as process:
        assert process.stdout is not None
        assert process.stdout.read(1), "it has begun"
        started = {pid for pid, parent in processes() if parent == process.pid}
        family = started | {pid for pid, parent in processes() if parent in started}
        assert len(family) >= 2, "a supervisor and an engine"
        began = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(10) == 130
        assert time.monotonic() - began < 2
        assert not family & {pid for pid, _ in processes()}


def processes() -> Iterator[tuple[int, int]]:
    """Every process that runs, with its parent."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = status.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # it has ended meanwhile
            continue
        if state != "Z":
            yield int(status.parent.name), int(parent)
