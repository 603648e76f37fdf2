"""The reference of the errors holds the tree, and a true row for each class.

``python -m tests.docs.test_errors_page`` writes the tree anew.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from llmengine_core import errors

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "errors.md"
CLASSES = [each for name, each in vars(errors).items() if name in errors.__all__]


def page(text: str) -> str:
    """The page with the tree that the module draws."""
    tree = re.search(r"::\n\n((?: {4}.*\n)+)", errors.__doc__ or "")
    assert tree is not None
    before, start, rest = text.partition("```text\n")
    return f"{before}{start}{inspect.cleandoc(tree[1])}\n```{rest.partition('```')[2]}"


def test_the_tree_is_the_modules() -> None:
    text = PAGE.read_text()
    assert text == page(text), "python -m tests.docs.test_errors_page writes it anew"


def test_the_modules_tree_is_true() -> None:
    drawn = re.findall(r"^ {4}([│├└─ ]*)(\w+Error)\b", errors.__doc__ or "", re.MULTILINE)
    line: list[str] = []
    for indent, name in drawn:
        depth = len(indent) // 4
        line[depth:] = [name]
        parent = line[depth - 1] if depth else "Exception"
        assert parent in [each.__name__ for each in getattr(errors, name).__bases__], name
    assert {name for _, name in drawn} == set(errors.__all__)


def test_every_class_has_a_row_with_its_status() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (\S+) \|", PAGE.read_text(), re.MULTILINE))
    status = {each.__name__: each.default_status for each in CLASSES}
    del status["LLMEngineError"]
    assert rows == {name: {None: "–", 500: "5xx"}.get(each, str(each)) for name, each in status.items()}


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
