"""Every example in a docstring of the facade runs as it is printed, with a real model."""

from __future__ import annotations

import ast
import doctest
import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import llmengine

FOLDER = Path(llmengine.__file__).parent
MARK = "Example::\n"
# A model that is still being made ready can't be changed; a completion waits for it.
SETTLE = """
from llmengine import Completion, Model
for each in Model.list().model_endpoints:
    if not each.name.startswith("smollm2"):
        Completion.create(each.name, "Hello", max_new_tokens=1)
"""


def docstrings() -> Iterator[str]:
    """Of every module, class and function of the package, in the order of the sources."""
    for path in sorted(FOLDER.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                yield ast.get_docstring(node) or ""


def examples() -> list[str]:
    """What follows each mark, up to where its indent ends."""
    found = []
    for text in docstrings():
        for after in text.split(MARK)[1:]:
            lines = []
            for line in after.lstrip("\n").splitlines():
                if line and not line.startswith("    "):
                    break
                lines.append(line)
            found.append(inspect.cleandoc("\n".join(lines)))
    return found


def prompts() -> list[str]:
    return [each for each in examples() if each.startswith(">>>")]


def programs() -> list[str]:
    return [each for each in examples() if not each.startswith(">>>")]


def test_every_method_has_an_example_that_is_found() -> None:
    assert len(programs()) >= 15
    assert len(prompts()) >= 2


@pytest.mark.parametrize("example", prompts(), ids=lambda example: example.splitlines()[-1][:40])
def test_examples_at_the_prompt_print_what_they_say(example: str) -> None:
    test = doctest.DocTestParser().get_doctest(example, {}, "example", None, None)
    assert doctest.DocTestRunner().run(test).failed == 0


@pytest.mark.engine
def test_examples_run_in_the_order_they_are_written_in(tmp_path: Path) -> None:
    blocks = [
        f"exec(compile({block!r}, 'example', 'exec'), {{}})"
        for each in programs()
        for block in (SETTLE, each)
    ]
    script = tmp_path / "examples.py"
    script.write_text("\n".join(blocks))
    environment = os.environ | {"LLMENGINE_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    assert '"endpoint_creation_task_id"' in done.stdout
    assert '"deleted": true' in done.stdout
