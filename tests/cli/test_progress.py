"""The line that shows how far work has come."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from tests.cli.program import Program, terminal

from llmengine_core.cli.progress import described
from llmengine_core.types.progress import Progress

numbers = st.floats(min_value=0, allow_nan=False, allow_infinity=False)
news = st.builds(
    Progress,
    subject=st.text(),
    phase=st.sampled_from(["fetch", "verify", "load"]),
    done=numbers,
    total=st.none() | numbers,
    unit=st.sampled_from(["", "bytes", "layers"]),
)


@given(news, st.integers(min_value=2, max_value=300))
def test_any_news_fits_on_one_line(progress: Progress, columns: int) -> None:
    line = described(progress, columns)
    assert len(line) < columns
    assert line.isprintable()


def test_a_known_total_gives_a_bar_and_a_share() -> None:
    assert described(Progress("m", "load", 0.5, 1.0), 80) == f"m: load  [{'#' * 12}{'-' * 12}]  50%"


def test_bytes_are_shown_with_and_without_a_total() -> None:
    assert described(Progress("f", "fetch", 2e6, None, "bytes"), 80) == "f: fetch  2.0 MB"
    assert described(Progress("f", "fetch", 2e6, 4e6, "bytes"), 80).endswith(" 50%  2.0 MB of 4.0 MB")


def on_terminal(program: Program, *arguments: str) -> tuple[str, str]:
    """What a command prints, and what it shows on a terminal that is its standard error."""
    with terminal() as (theirs, shown), program.running(*arguments, stderr=theirs) as process:
        seen = shown()
        printed, _ = process.communicate(timeout=30)
    assert process.returncode == 0, seen
    return printed.decode(), seen


def upload(tmp_path: Path) -> str:
    content = tmp_path / "content.bin"
    content.write_bytes(b"x" * 3_000_000)
    return str(content)


def test_a_terminal_sees_a_bar_come_and_go(program: Program, tmp_path: Path) -> None:
    printed, shown = on_terminal(program, "files", "upload", upload(tmp_path))
    assert re.fullmatch(r"file-\w+\n", printed)
    lines = shown.split("\r\x1b[K")
    assert "content.bin: upload" in shown
    assert "100%  3.0 MB of 3.0 MB" in lines[-2]
    assert lines[-1] == "", "the line is taken away in the end"


def test_quiet_shows_a_terminal_nothing(program: Program, tmp_path: Path) -> None:
    _, shown = on_terminal(program, "files", "upload", "--quiet", upload(tmp_path))
    assert shown == ""


def test_without_a_terminal_there_is_no_bar(program: Program, tmp_path: Path) -> None:
    done = program("files", "upload", upload(tmp_path))
    assert (done.returncode, done.stderr) == (0, b"")
