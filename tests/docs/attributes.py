"""The fields of a class with the docstrings that stand below them in its source, as rows of a page."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

PIPE = r"\|"
"""A pipe inside of a table's cell."""


@dataclass(frozen=True)
class Attribute:
    """One annotated field."""

    name: str
    type: str
    default: str
    """As the source has it; "" where there is none."""
    text: str
    """Its docstring on one line, as Markdown."""


def attributes(kind: type) -> Iterator[Attribute]:
    """The fields that a class adds to those of its bases."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    for node, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            text = ""
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                text = str(after.value.value)
            default = "" if node.value is None else ast.unparse(node.value)
            yield Attribute(node.target.id, ast.unparse(node.annotation), default, one_line(text))


def table(kind: type) -> str:
    """The fields of a class as a table."""
    rows = [f"| `{kind.__name__}` | type | default | |\n|---|---|---|---|\n"]
    for each in attributes(kind):
        default = f"`{each.default}`" if each.default else "required"
        cells = f"`{each.name}`", f"`{each.type}`", default
        rows.append(f"| {' | '.join(cell.replace('|', PIPE) for cell in cells)} | {each.text} |\n")
    return "".join(rows)


def one_line(text: str) -> str:
    """A docstring as one line of Markdown."""
    return markdown(" ".join(text.split())).replace("|", PIPE)


def markdown(text: str) -> str:
    """reStructuredText's literals as Markdown's."""
    return re.sub(r"``(.+?)``", r"`\1`", text)
