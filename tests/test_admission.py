"""Threads of a machine, taken by real processes."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmengine_core.admission import Threads

CORES = range(4)

# Takes threads, says how many, and keeps them until it is told otherwise; a forked copy of it may live on.
HOLDER = """
import os, signal, sys
from pathlib import Path
from llmengine_core.admission import Threads
threads = Threads(Path(sys.argv[1]), int(sys.argv[2]), subject="other", cores=range(4))
hear, say = os.pipe()
copy = os.fork() if sys.argv[3] == "fork" else 1
if copy == 0:
    threads.release()  # not its own to give back
    os.write(say, b"!")
    signal.pause()
if sys.argv[3] == "fork":
    os.read(hear, 1)
print(threads.granted, copy, flush=True)
sys.stdin.readline()
"""


@contextmanager
def holder(folder: Path, wanted: int, how: str = "plain") -> Iterator[tuple[subprocess.Popen[str], int, int]]:
    """Another process with so many threads; gives it, what it was granted, and its forked copy."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), str(wanted), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process:
        granted, copy = map(int, process.stdout.readline().split())
        try:
            yield process, granted, copy
        finally:
            process.kill()
            if how == "fork":
                os.kill(copy, signal.SIGKILL)


def take(folder: Path, wanted: int) -> Threads:
    return Threads(folder, wanted, subject="tiny", cores=CORES)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.integers(1, 5))
def test_no_more_are_granted_than_there_are_but_one_always(wanted: list[int], cores: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        left, taken = cores, []
        for each in wanted:
            taken.append(Threads(Path(folder), each, subject="tiny", cores=range(cores)))
            assert taken[-1].granted == max(1, min(each, left))
            left -= min(each, left)
        for threads in taken:
            threads.release()
            threads.release()
        again = Threads(Path(folder), cores, subject="tiny", cores=range(cores))
        assert again.granted == cores
        again.release()


def test_two_processes_share_the_threads(tmp_path: Path) -> None:
    with holder(tmp_path, 3) as (other, granted, _):
        assert granted == 3
        assert take(tmp_path, 3).granted == 1
        assert other.poll() is None


def test_a_process_that_is_killed_gives_its_threads_back(tmp_path: Path) -> None:
    with holder(tmp_path, 4) as (other, _, _):
        assert take(tmp_path, 4).granted == 1
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert take(tmp_path, 4).granted == 4


def test_a_forked_copy_neither_keeps_threads_nor_gives_them_back(tmp_path: Path) -> None:
    with holder(tmp_path, 4, "fork") as (other, granted, copy):
        assert granted == 4
        assert take(tmp_path, 4).granted == 1
        other.send_signal(signal.SIGKILL)
        other.wait()
        os.kill(copy, 0)
        assert take(tmp_path, 4).granted == 4


def test_a_core_that_is_shared_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "llmengine_core.admission")
    first, second, third = take(tmp_path, 3), take(tmp_path, 3), take(tmp_path, 3)
    assert caplog.messages == [
        "tiny computes on 1 threads, not 3: no more cores are free",
        "tiny computes on a core that is taken: other replicas have all 4",
    ]
    for threads in (first, second, third):
        threads.release()


def test_a_folder_that_can_hold_no_files_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        take(tmp_path / "missing", 1)


def test_files_for_cores_are_private(tmp_path: Path) -> None:
    take(tmp_path, 1).release()
    assert [(path.name, path.stat().st_mode & 0o777) for path in tmp_path.iterdir()] == [("core-0", 0o600)]
