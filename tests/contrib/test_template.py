"""The template makes plugins that are green at once, and the sample plugin is what it makes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from copier import run_copy

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "contrib" / "template"
SAMPLE = ROOT / "contrib" / "llmengine-sample-plugin"
UV = os.environ.get("UV") or shutil.which("uv") or "uv"
PYTHON = (sys.executable, "-m")
SAMPLE_ANSWERS = {
    "description": "llmengine plugin: a small backend, storage and observer to learn from",
    "author": "The llmengine maintainers",
}
# With all kinds it makes the sample, whose laws are tried by `nox -s sample`, and its types by `nox -s types`.
ANSWERS: dict[str, dict[str, Any]] = {
    "backend": {"name": "my_backend", "kinds": ["backend"], "licence": "MIT", "author": "A. Üser"},
    "others": {
        "name": "a23456789_123456789_1234",  # the longest
        "kinds": ["storage", "observer"],
        "licence": "BSD-3-Clause",
        "description": "Storage 'n' observer, {{ not }} templates: 100 %",
    },
}


def render(target: Path, **answers: Any) -> Path:
    """A plugin that the template makes with these answers."""
    run_copy(str(TEMPLATE), target, data=answers, defaults=True, quiet=True)
    return target


def install(plugin: Path, site: Path) -> None:
    """Install a plugin into a folder; needs no index."""
    run(UV, "pip", "install", "--offline", "--no-deps", "--target", site, plugin, folder=plugin)


def run(*command: str | Path, folder: Path, **environment: str) -> str:
    """What a program printed that was run in a folder; show it if it fails."""
    done = subprocess.run(
        [*map(str, command)],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a plugin, save for what tools leave behind."""
    ignored = {".gitignore", *(line.strip("/") for line in (folder / ".gitignore").read_text().split())}
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not ignored & set(path.relative_to(folder).parts)
    }


def test_the_sample_plugin_is_what_the_template_makes(tmp_path: Path) -> None:
    made = render(tmp_path / "made", **SAMPLE_ANSWERS)
    assert contents(SAMPLE) == contents(made), "python -m tests.contrib.test_template makes it anew"
    assert (made / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


@pytest.mark.parametrize("name", ANSWERS)
def test_what_it_makes_is_in_order_and_keeps_every_law(name: str, tmp_path: Path) -> None:
    made = render(tmp_path / "made", **ANSWERS[name])
    run(*PYTHON, "ruff", "check", "--no-cache", ".", folder=made)
    run(*PYTHON, "ruff", "format", "--no-cache", "--check", ".", folder=made)
    install(made, tmp_path / "site")
    run(
        *(*PYTHON, "pytest", "-p", "no:cacheprovider"),
        *("-k", "not TestStorage"),  # half a minute of writing to disks; `nox -s sample` tries them
        folder=made,
        PYTHONPATH=str(tmp_path / "site"),
        LLMENGINE_HOME=str(tmp_path / "home"),
        LLMENGINE_CONFORMANCE_PROFILE="smoke",
    )


def test_a_model_that_it_makes_is_served_by_the_backend_that_it_makes(tmp_path: Path) -> None:
    made = render(tmp_path / "made", **ANSWERS["backend"])
    install(made, tmp_path / "site")
    program = (*PYTHON, "llmengine_core.cli", "complete", "--model", "my_backend", "abc")
    home = str(tmp_path / "home")
    assert run(*program, folder=made, PYTHONPATH=str(tmp_path / "site"), LLMENGINE_HOME=home) == "cba"


def test_what_it_makes_is_typed(tmp_path: Path) -> None:
    made = [render(tmp_path / name, **answers) for name, answers in ANSWERS.items()]
    sources = [each / "src" for each in made]
    run(*PYTHON, "mypy", f"--config-file={made[0] / 'pyproject.toml'}", *sources, folder=tmp_path)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("name", "9lives"),
        ("name", "Tape"),
        ("name", "my-tape"),
        ("name", "a" * 25),
        ("kinds", []),
        ("description", 'say "hello"'),
        ("description", ""),
        ("author", "back\\slash"),
        ("licence", "GPL"),
    ],
)
def test_an_answer_that_would_break_it_is_refused(question: str, answer: object, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{question}|Invalid choice"):
        render(tmp_path / "made", **{question: answer})


if __name__ == "__main__":
    shutil.rmtree(SAMPLE)
    render(SAMPLE, **SAMPLE_ANSWERS)
