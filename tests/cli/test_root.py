"""The program itself: its commands, those of plugins, help, completion, what it imports."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata

import pytest
from tests.cli.program import Installed, Program, Run

from llmengine_core.cli.exits import EXIT_CODES
from llmengine_core.cli.root import COMMANDS

COMMAND = """
import click
from llmengine_core.hookspecs import hookimpl

CONTRACT = 1

@hookimpl
def register_commands(cli):
    @cli.command({name!r})
    def tell():
        "Tell what it was told."
        click.echo("told")
"""
RAISING = """
from llmengine_core.hookspecs import hookimpl

CONTRACT = 1

@hookimpl
def register_commands(cli):
    raise RuntimeError("not today")
"""


def test_help_lists_every_command_and_exit_code(run: Run) -> None:
    done = run("--help")
    assert done.exit_code == 0
    section = done.stdout.partition("Commands:\n")[2].partition("\n\n")[0]
    listed = [line.split()[0] for line in section.splitlines()]
    assert listed == sorted(COMMANDS)
    for each in EXIT_CODES:
        assert f"{each.code:3}  {each.meaning}" in done.stdout


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_help(run: Run, command: str) -> None:
    done = run(command, "--help")
    assert done.exit_code == 0
    assert re.match(rf"Usage: \S+ {command} ", done.stdout)


def test_a_plugin_adds_a_command(run: Run, installed: Installed) -> None:
    installed.add("tape", "tape_plugin", COMMAND.format(name="tape"))
    assert (run("tape").stdout, run("tape").stderr) == ("told\n", "")
    assert "tape         Tell what it was told." in run("--help").stdout


@pytest.mark.parametrize(
    ("name", "source", "reason"),
    [
        ("models", COMMAND.format(name="models"), "adds the command 'models', which there is already"),
        ("tape", COMMAND.format(name="doctor"), "adds the command 'doctor'"),
        ("tape", RAISING, "RuntimeError: not today"),
    ],
    ids=["collides", "another's name", "raises"],
)
def test_a_plugin_that_fails_harms_nobody_else(
    run: Run, installed: Installed, name: str, source: str, reason: str
) -> None:
    installed.add(name, "tape_plugin", source)
    helped = run("--help")
    assert helped.exit_code == 0
    assert f"Warning: the plugin {name!r}" in helped.stderr
    assert reason in helped.stderr
    assert run("version").stderr == ""
    assert run("models", "list").exit_code == 0


def test_a_command_whose_plugin_failed_says_so(run: Run, installed: Installed) -> None:
    installed.add("tape", "tape_plugin", "import a_module_that_is_missing")
    done = run("tape")
    assert done.exit_code == 2
    assert "the plugin 'tape' failed to load" in done.stderr
    assert "Mend: " in done.stderr


def test_a_misspelt_command_ends_in_2_with_what_was_meant(run: Run) -> None:
    done = run("modles")
    assert done.exit_code == 2
    assert "Did you mean 'models'?" in done.stderr


def test_settings_that_are_wrong_leave_help(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMENGINE_QUEUE_SIZE", "many")
    helped = run("--help")
    assert helped.exit_code == 0
    assert "queue_size" in helped.stderr
    refused = run("models", "list")
    assert refused.exit_code == 2
    assert "queue_size" in refused.stderr


def test_version_names_what_is_installed(run: Run) -> None:
    found = json.loads(run("version", "--json").stdout)
    assert found["llmengine-core"] == metadata.version("llmengine-core")
    assert found["llmengine-echo"] == "1.0"
    assert f"llmengine-core {found['llmengine-core']}" in run("version").stdout.splitlines()
    assert found["llmengine-core"] in run("--version").stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(run: Run, shell: str) -> None:
    done = run("completion", shell)
    assert done.exit_code == 0
    assert "_LLMENGINE_COMPLETE" in done.stdout


def test_bash_completes_commands(program: Program) -> None:
    environment = program.environment | {
        "_LLMENGINE_COMPLETE": "bash_complete",
        "COMP_WORDS": "llmengine mod",
        "COMP_CWORD": "1",
    }
    script = shutil.which("llmengine", path=os.path.dirname(sys.executable))
    assert script is not None
    done = subprocess.run([script], env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("plain,models\n", "", 0)


HEAVY = ["asyncio", "pydantic", "llmengine_core.engine", "llmengine_core.registry", "multiprocessing", "http"]


@pytest.mark.parametrize(
    "arguments", [["version"], ["complete", "--help"], ["models", "--help"]], ids=" ".join
)
def test_what_one_command_needs_costs_others_nothing(program: Program, arguments: list[str]) -> None:
    code = (
        "import sys\nfrom llmengine_core.cli import main\n"
        f"try:\n    main()\nfinally:\n    print([m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=program.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == "[]\n"


@pytest.mark.parametrize("arguments", [["--help"], ["plugins"], ["doctor"]], ids=" ".join)
def test_a_reader_that_went_before_ends_it_quietly(program: Program, arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    with program.running(*arguments, stdout=write) as process:
        os.close(write)
        _, complaints = process.communicate(timeout=30)
    assert (process.returncode, complaints) == (141, b"")


def test_output_that_cant_be_written_ends_in_1(program: Program) -> None:
    with open("/dev/full", "wb") as full, program.running("version", stdout=full.fileno()) as process:
        _, complaints = process.communicate(timeout=30)
    assert process.returncode == 1
    assert b"No space left" in complaints
