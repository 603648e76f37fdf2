"""The messages that the troubleshooting page quotes are those of the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "troubleshoot.md").read_text()
QUOTED = [
    quoted
    for row in re.findall(r"^\| (`.*?`) \|", PAGE, re.MULTILINE)
    for quoted in re.findall(r"`(.*?)`", row)
]


def texts() -> Iterator[str]:
    """Every text in the sources, "…" for what is filled in."""
    for path in [*ROOT.glob("src/**/*.py"), *ROOT.glob("plugins/*/src/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = (str(each.value) if isinstance(each, ast.Constant) else "…" for each in node.values)
                yield "".join(parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


TEXTS = "\n".join(texts())


def test_messages_are_quoted() -> None:
    assert len(QUOTED) > 10


@pytest.mark.parametrize("message", QUOTED)
def test_the_source_says_what_is_quoted(message: str) -> None:
    assert all(part.strip() in TEXTS for part in message.split("…"))
