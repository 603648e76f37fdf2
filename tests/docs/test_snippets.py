"""The README's and the documentation's examples run as they are printed.

Every ``python`` block runs, a file's blocks one after the other in one fresh interpreter. A block right
under ``<!-- file: name.py -->`` is written to that file first, for the others to import; one right under
``<!-- not run: reason -->`` is listed and left alone. A ``console`` block right under ``<!-- run -->`` has its
``$ llmengine`` lines run; what they print is not compared.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [ROOT / "README.md", *(page for page in ROOT.glob("docs/**/*.md") if "_build" not in page.parts)],
)
BLOCK = re.compile(
    r"""
    ^(?:(?P<mark><!--[^\n]*-->)\n\n?)?
    (?P<indent>\ *)```(?P<language>python|console)[^\n]*\n
    (?P<code>.*?)
    ^(?P=indent)```$
    """,
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)
NOT_RUN = re.compile(r"<!-- not run: \S.* -->")
FILE = re.compile(r"<!-- file: (?P<name>[a-z_]+\.py) -->")
RUN = "<!-- run -->"


@dataclass(frozen=True)
class Snippet:
    """One fenced block: its language, its text, the comment above it and its first line's number."""

    language: str
    code: str
    mark: str | None
    line: int


def snippets(text: str) -> list[Snippet]:
    """The python and console blocks of a page, in order."""
    return [
        Snippet(
            language=match["language"],
            code=re.sub(f"^{match['indent']}", "", match["code"], flags=re.MULTILINE),
            mark=match["mark"],
            line=text.count("\n", 0, match.start("code")) + 1,
        )
        for match in BLOCK.finditer(text)
    ]


def program(found: list[Snippet]) -> str:
    """A page's python blocks as one program whose line numbers are the page's."""
    lines: list[str] = []
    for snippet in found:
        if snippet.language == "python" and not snippet.mark:
            lines += [""] * (snippet.line - 1 - len(lines))
            lines += snippet.code.splitlines()
    return "\n".join(lines)


def files(found: list[Snippet]) -> dict[str, str]:
    """The text of each file that a page shows, by its name."""
    marked = [(FILE.fullmatch(snippet.mark or ""), snippet.code) for snippet in found]
    return {mark["name"]: code for mark, code in marked if mark}


def commands(found: list[Snippet]) -> list[list[str]]:
    """The arguments of every `llmengine` command in console blocks that are marked to be run."""
    return [
        shlex.split(line.removeprefix("$ llmengine "))
        for snippet in found
        if snippet.language == "console" and snippet.mark == RUN
        for line in snippet.code.splitlines()
        if line.startswith("$ llmengine ")
    ]


def run(arguments: list[str], home: Path) -> None:
    """Run the interpreter with these arguments in a home of its own; show what it printed if it fails."""
    environment = os.environ | {"LLMENGINE_HOME": str(home), "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=home, env=environment, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_mark_is_known_and_reasoned(page: Path) -> None:
    for snippet in snippets(page.read_text()):
        allowed = snippet.mark is None or (
            snippet.mark == RUN
            if snippet.language == "console"
            else NOT_RUN.fullmatch(snippet.mark) or FILE.fullmatch(snippet.mark)
        )
        assert allowed, f"{page}:{snippet.line}: {snippet.mark} above a {snippet.language} block"
    other_names = re.findall(r"^ *```(py|py3|python3|pycon|Python)\b", page.read_text(), re.MULTILINE)
    assert not other_names, f"{page}: only blocks that are called 'python' are run"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_blocks_run(page: Path, tmp_path: Path) -> None:
    found = snippets(page.read_text())
    for name, code in files(found).items():
        (tmp_path / name).write_text(code)
    source = tmp_path / "snippets.py"
    source.write_text(program(found))
    run([str(source)], tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_console_blocks_run(page: Path, tmp_path: Path) -> None:
    for arguments in commands(snippets(page.read_text())):
        run(["-m", "llmengine_core.cli", *arguments], tmp_path)


def test_snippets_are_found_with_their_marks_and_lines() -> None:
    page = (
        "# Title\n\n```python\na = 1\n```\n\n<!-- not run: needs a GPU -->\n```python\nb = 2\n```\n"
        "<!-- run -->\n```console\n$ llmengine complete 'a b'\n...\n```\n  ```python\n  c = a\n  ```\n"
        "<!-- file: other.py -->\n```python\nd = 4\n```\n"
    )
    found = snippets(page)
    assert [(each.language, each.mark, each.line) for each in found] == [
        ("python", None, 4),
        ("python", "<!-- not run: needs a GPU -->", 9),
        ("console", "<!-- run -->", 13),
        ("python", None, 17),
        ("python", "<!-- file: other.py -->", 21),
    ]
    assert program(found).splitlines() == [*[""] * 3, "a = 1", *[""] * 12, "c = a"]
    assert commands(found) == [["complete", "a b"]]
    assert files(found) == {"other.py": "d = 4\n"}
