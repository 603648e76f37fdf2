"""The tutorial's backend is as short as the page says."""

from __future__ import annotations

import re
from pathlib import Path

from tests.docs.test_snippets import files, snippets

PAGE = (Path(__file__).parents[2] / "docs" / "tutorials" / "your-first-backend.md").read_text()


def test_a_backend_and_its_tests_are_as_few_lines_as_it_says() -> None:
    made = files(snippets(PAGE))
    written = [line for name, code in made.items() if name.endswith(".py") for line in code.splitlines()]
    claimed = re.search(r"a backend in (\d+) lines, its tests included", PAGE)
    assert claimed is not None
    assert sum(bool(line.strip()) for line in written) == int(claimed[1]) <= 60
