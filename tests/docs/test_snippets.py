"""The README's and the documentation's examples run as they are printed.

Every ``python`` block runs, a file's blocks one after the other in one fresh interpreter. A block right
under ``<!-- file: name.py -->`` is written to that file first, for the others to import; one right under
``<!-- not run: reason -->`` is listed and left alone.

A page's ``console`` blocks are run in their order, and its files are written as they come. Right under
``<!-- run -->`` each ``$`` line must succeed; what it prints is not compared. Under ``<!-- run: shows -->`` what is
printed must hold the lines that the block shows, and under ``<!-- run: fails -->`` it must fail besides. A ``diff``
block under ``<!-- patch: name.py -->`` changes a file that the page wrote.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import nullcontext
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
    (?P<indent>\ *)```(?P<language>python|console|toml|diff)[^\n]*\n
    (?P<code>.*?)
    ^(?P=indent)```$
    """,
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)
NOT_RUN = re.compile(r"<!-- not run: \S.* -->")
FILE = re.compile(r"<!-- file: (?P<name>[a-z_/]+\.(py|toml)) -->")
PATCH = re.compile(r"<!-- patch: (?P<name>[a-z_/]+\.py) -->")
SETTING = re.compile(r"(?P<name>[A-Z_]+)=(?P<value>\S*) ")
RUN = re.compile(r"<!-- run(: (?P<how>shows|fails))? -->")
PROGRAMS = {
    "llmengine": [sys.executable, "-m", "llmengine_core.cli"],
    "python": [sys.executable],
    "python -m pip install": [
        *(os.environ.get("UV") or shutil.which("uv") or "uv", "pip", "install", "--quiet", "--offline"),
        *("--no-deps", "--target", "installed"),
    ],
}
"""What stands for the first words of a command: nothing is ever installed into the environment of the tests."""


@dataclass(frozen=True)
class Snippet:
    """One fenced block: its language, its text, the comment above it and its first line's number."""

    language: str
    code: str
    mark: str | None
    line: int


def snippets(text: str) -> list[Snippet]:
    """The python, console, toml and diff blocks of a page, in order."""
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
    """The text of each file that a page shows, by its name, as it is in the end."""
    made: dict[str, str] = {}
    for snippet in found:
        change(made, snippet)
    return made


def write(made: dict[str, str], folder: Path) -> None:
    """Write a page's files."""
    for name, code in made.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(code)


def change(made: dict[str, str], snippet: Snippet) -> None:
    """Do to a page's files what a block says."""
    if file := FILE.fullmatch(snippet.mark or ""):
        made[file["name"]] = snippet.code
    elif patch := PATCH.fullmatch(snippet.mark or ""):
        lines = snippet.code.splitlines(keepends=True)
        before = "".join(line[1:] for line in lines if line[0] in " -")
        after = "".join(line[1:] for line in lines if line[0] in " +")
        assert made[patch["name"]].count(before) == 1, f"line {snippet.line}: not once in {patch['name']}"
        made[patch["name"]] = made[patch["name"]].replace(before, after)


def commands(snippet: Snippet) -> list[tuple[list[str], list[str]]]:
    """The commands of a console block that is marked to be run, each with the lines that are shown below it."""
    found: list[tuple[list[str], list[str]]] = []
    if snippet.language != "console" or not RUN.fullmatch(snippet.mark or ""):
        return found
    for line in snippet.code.splitlines():
        if line.startswith("$ "):
            words, given = line.removeprefix("$ "), []
            while setting := SETTING.match(words):
                given.append(setting[0].strip())
                words = words.removeprefix(setting[0])
            name = next(each for each in reversed(PROGRAMS) if words.startswith(each))
            command = [*PROGRAMS[name], *shlex.split(words.removeprefix(name))]
            found.append((["env", *given, *command] if given else command, []))
        elif line.strip().strip("."):
            found[-1][1].append(line.strip().removesuffix("..."))
    return found


def run(command: list[str], home: Path, how: str | None = None, shown: Sequence[str] = ()) -> None:
    """Run a command in a home of its own, which is where it installs to, too. Show what it printed if that is wrong."""
    environment = os.environ | {
        "LLMENGINE_HOME": str(home),
        "LLMENGINE_CONFORMANCE_PROFILE": "smoke",
        "PYTHONPATH": str(home / "installed"),
        "PYTHONWARNINGS": "error",
    }
    done = subprocess.run(
        command,
        cwd=home,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if how else subprocess.PIPE,
        text=True,
        timeout=110,
    )
    told = f"{command}\n{done.stdout}\n{done.stderr}"
    assert (done.returncode != 0) == (how == "fails"), told
    if how is not None:
        rest = done.stdout
        for line in shown:
            assert line in rest, f"{line!r} is not there, or not in this order: {told}"
            rest = rest.partition(line)[2]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_mark_is_known_and_reasoned(page: Path) -> None:
    marks = {"python": (NOT_RUN, FILE), "console": (RUN,), "toml": (FILE,), "diff": (PATCH,)}
    for snippet in snippets(page.read_text()):
        allowed = snippet.mark is None or any(
            mark.fullmatch(snippet.mark) for mark in marks[snippet.language]
        )
        assert allowed, f"{page}:{snippet.line}: {snippet.mark} above a {snippet.language} block"
    other_names = re.findall(r"^ *```(py|py3|python3|pycon|Python)\b", page.read_text(), re.MULTILINE)
    assert not other_names, f"{page}: only blocks that are called 'python' are run"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_blocks_run(page: Path, tmp_path: Path) -> None:
    found = snippets(page.read_text())
    write(files(found), tmp_path)
    source = tmp_path / "snippets.py"
    source.write_text(program(found))
    run([sys.executable, str(source)], tmp_path)


@pytest.mark.timeout(300)  # a tutorial is many programs
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_console_blocks_run(page: Path, tmp_path: Path) -> None:
    made: dict[str, str] = {}
    for snippet in snippets(page.read_text()):
        change(made, snippet)
        for command, shown in commands(snippet):
            write(made, tmp_path)
            mark = RUN.fullmatch(snippet.mark or "")
            run(command, tmp_path, mark and mark["how"], shown)


def test_snippets_are_found_with_their_marks_and_lines() -> None:
    page = (
        "# Title\n\n```python\na = 1\n```\n\n<!-- not run: needs a GPU -->\n```python\nb = 2\n```\n"
        "<!-- run -->\n```console\n$ llmengine complete 'a b'\n...\n```\n  ```python\n  c = a\n  ```\n"
        "<!-- file: other.py -->\n```python\nd = 4\ne = 5\n```\n"
        "<!-- patch: other.py -->\n```diff\n d = 4\n-e = 5\n+e = 6\n+f = 7\n```\n"
        "<!-- run: fails -->\n```console\n$ A=1 B= python -m pytest other.py\n...\nno tests ran...\n```\n"
    )
    found = snippets(page)
    assert [(each.language, each.mark, each.line) for each in found] == [
        ("python", None, 4),
        ("python", "<!-- not run: needs a GPU -->", 9),
        ("console", "<!-- run -->", 13),
        ("python", None, 17),
        ("python", "<!-- file: other.py -->", 21),
        ("diff", "<!-- patch: other.py -->", 26),
        ("console", "<!-- run: fails -->", 33),
    ]
    assert program(found).splitlines() == [*[""] * 3, "a = 1", *[""] * 12, "c = a"]
    assert [each for snippet in found for each in commands(snippet)] == [
        ([*PROGRAMS["llmengine"], "complete", "a b"], []),
        (["env", "A=1", "B=", sys.executable, "-m", "pytest", "other.py"], ["no tests ran"]),
    ]
    assert files(found[:5]) == {"other.py": "d = 4\ne = 5\n"}
    assert files(found) == {"other.py": "d = 4\ne = 6\nf = 7\n"}


@pytest.mark.parametrize(
    ("how", "code", "shown", "passes"),
    [
        ("shows", "print('a b c')", ["a", "c"], True),
        ("shows", "print('a b c')", ["c", "a"], False),
        ("shows", "exit('a')", ["a"], False),
        ("fails", "exit('a')", ["a"], True),
        ("fails", "print('a')", ["a"], False),
        (None, "exit(1)", [], False),
    ],
)
def test_what_a_command_does_is_compared(
    how: str | None, code: str, shown: list[str], passes: bool, tmp_path: Path
) -> None:
    with nullcontext() if passes else pytest.raises(AssertionError):
        run([sys.executable, "-c", code], tmp_path, how, shown)
