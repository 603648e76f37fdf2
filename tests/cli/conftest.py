"""The command line as tests drive it: in this process, and as a program of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.cli.program import ECHO, Installed, Program, Run

from llmengine_core.cli.root import CommandLine, cli


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home, which doesn't exist yet, and none of the machine's settings."""
    for name in list(os.environ):
        if name.startswith("LLMENGINE_"):
            monkeypatch.delenv(name)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("LLMENGINE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installed:
    """Plugins beside those of the workspace; the echo backend is one."""
    found = Installed(tmp_path / "site")
    found.path.mkdir()
    found.add("echo", ECHO)
    monkeypatch.syspath_prepend(found.path)
    return found


@pytest.fixture
def obedient(installed: Installed) -> None:
    """The model ``obedient``."""
    source = Path(__file__).with_name("obedient_backend.py").read_text()
    installed.add("obedient", "obedient_backend", source)


@pytest.fixture
def program(home: Path, installed: Installed, tmp_path: Path) -> Program:
    """The program, with warnings as errors."""
    environment = os.environ | {"PYTHONPATH": str(installed.path), "PYTHONWARNINGS": "error"}
    return Program(environment, tmp_path / "here")


@pytest.fixture
def run(home: Path, installed: Installed) -> Run:
    """Run a command in this process, as if it were the first."""

    def invoke(*arguments: str, stdin: bytes | None = None) -> Result:
        fresh = CommandLine(name=cli.name, params=cli.params, callback=cli.callback, epilog=cli.epilog)
        return CliRunner().invoke(fresh, arguments, input=stdin)

    return invoke
