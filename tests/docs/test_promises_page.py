"""The page of promises names every rule, and files that really test it.

``python -m tests.docs.test_promises_page`` writes anew which files those are.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "promises.md"
RULES = [
    *(f"C{number:02}" for number in range(1, 15)),
    *(f"M{number:02}" for number in range(1, 13)),
    "L01",
]
NONE = "No test of that name yet."
HELD = re.compile(r"^(?:Held by (?P<files>`[^\n]*`)\.|No test of that name yet\.)$", re.MULTILINE)


def files_by_rule() -> dict[str, list[str]]:
    """The files that test each rule, by the names of their tests."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted([*ROOT.glob("tests/**/*.py"), *ROOT.glob("plugins/*/tests/**/*.py")]):
        for rule in dict.fromkeys(re.findall(r"def test_([cml]\d\d)_", path.read_text())):
            found[rule.upper()].append(path.relative_to(ROOT).as_posix())
    return found


def sections(text: str) -> dict[str, str]:
    """What is said of each rule."""
    parts = re.split(r"^#{2,3} (.*)$", text, flags=re.MULTILINE)
    return {
        name: said
        for name, said in zip(parts[1::2], parts[2::2], strict=True)
        if re.fullmatch(r"\w\d\d", name)
    }


def page(text: str) -> str:
    """The page with the files as they are now."""
    for rule, said in sections(text).items():
        files = ", ".join(f"`{each}`" for each in files_by_rule()[rule])
        line = f"Held by {files}." if files else NONE
        text = text.replace(f"### {rule}{said}", f"### {rule}{HELD.sub('', said).rstrip()}\n\n{line}\n\n")
    return text


SECTIONS = sections(PAGE.read_text())


def test_every_rule_is_there() -> None:
    assert list(SECTIONS) == RULES


@pytest.mark.parametrize("rule", SECTIONS)
def test_the_files_that_are_named_test_the_rule(rule: str) -> None:
    found = HELD.search(SECTIONS[rule])
    assert found is not None
    named = re.findall(r"`([^`]+)`", found["files"] or "")
    there = files_by_rule()[rule]
    assert set(named) <= set(there)
    assert bool(named) == bool(there), "python -m tests.docs.test_promises_page writes the files anew"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
