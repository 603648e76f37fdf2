"""``llmengine conformance``: its report, its exit codes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.program import Installed, Program, Run, terminal

ECHO_MODULE = "llmengine_core.testing.echo"
SMOKE = ("--profile", "smoke")
LONELY = """
from llmengine_core.hookspecs import hookimpl
from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.declarations import BackendInfo

CONTRACT = 1

@hookimpl
def register_backends():
    return [BackendInfo(
        name="lonely", factory="lonely:Backend", capabilities=Capabilities(), formats=frozenset({"clay"}),
    )]
"""


def test_the_echo_conforms(run: Run) -> None:
    done = run("conformance", ECHO_MODULE, *SMOKE)
    assert done.exit_code == 0, done.stdout
    assert "echo in profile smoke" in done.stdout
    assert "\nbackend echo on echo\n  core                 holds (" in done.stdout
    assert ", 0 failed, 0 quirk, " in done.stdout


def test_the_result_is_one_document(run: Run) -> None:
    done = run("conformance", "sqlite", "--kind", "plugin", *SMOKE, "--json")
    found = json.loads(done.stdout)
    assert done.exit_code == 0
    assert found.keys() == {
        "plugin", "distribution", "versions", "profile", "holds", "contracts", "summary", "duration",
    }  # fmt: skip
    assert (found["plugin"], found["profile"], found["holds"]) == ("sqlite", "smoke", True)
    assert found["distribution"].startswith("llmengine-sqlite ")
    assert found["versions"].keys() == {"llmengine-core", "Python", "system"}
    (contract,) = found["contracts"]
    assert (contract["kind"], contract["subject"], contract["contract"]) == (
        "plugin",
        "sqlite",
        "PluginContract",
    )
    assert contract["levels"]["distribution"] == {"passed": 2}
    assert contract["levels"]["probe"] == {"not applicable": 1}
    for verdict in contract["verdicts"]:
        assert verdict.keys() == {
            "law", "summary", "level", "rules", "outcome", "reason", "seconds", "figures", "printed",
        }  # fmt: skip
        assert verdict["summary"].endswith(".")
    outcomes = [verdict["outcome"] for verdict in contract["verdicts"]]
    assert found["summary"] == {
        each: outcomes.count(each) for each in ("passed", "failed", "quirk", "not applicable")
    }


def test_a_law_that_fails_is_told_with_its_reason(run: Run, installed: Installed) -> None:
    installed.add("loud", "loud_plugin", f"print('hello')\n{LONELY}")
    law = "test_import_prints_nothing"
    done = run("conformance", "loud", "--law", law, *SMOKE)
    assert done.exit_code == 1
    assert f"FAILED  {law}: Importing its module writes nothing" in done.stdout
    assert r"importing its module prints 'hello\n'" in done.stdout
    assert "0 passed, 1 failed" in done.stdout


def test_a_backend_without_a_model_is_told_what_to_name(run: Run, installed: Installed) -> None:
    installed.add("lonely", "lonely_plugin", LONELY)
    done = run("conformance", "lonely", "--kind", "backend", *SMOKE)
    assert done.exit_code == 1
    assert (
        "not judged: there is no model here to judge 'lonely' on. Mend: name one that it can serve (--model)"
        in (done.stdout)
    )


def test_the_table_is_markdown(run: Run) -> None:
    lines = run("conformance", "sqlite", "--kind", "plugin", *SMOKE, "--markdown").stdout.splitlines()
    assert lines[0].startswith("| sqlite 0.")
    assert lines[1] == "|---|---|---|---|"
    assert lines[2].startswith("| plugin sqlite | core | ")
    assert {line.count("|") for line in lines[:5]} == {5}
    assert lines[-1].startswith("Profile smoke, llmengine-core ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no_such_plugin"], "there is no plugin 'no_such_plugin'"),
        (["sqlite", "--kind", "storage"], "sqlite declares nothing of the kind storage"),
        (["sqlite", "--law", "test_import_is_quik"], "did you mean test_import_is_quick"),
        (["sqlite", "--contracts", "gone.py"], "'gone.py' is no file"),
        (["sqlite", "--kind", "gpu"], "'gpu' is not one of"),
        (["sqlite", "--profile", "fast"], "'fast' is not one of"),
    ],
)
def test_what_is_asked_for_in_vain_is_a_usage_error(run: Run, arguments: list[str], said: str) -> None:
    done = run("conformance", *arguments)
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stdout == ""


def test_a_terminal_sees_which_law_is_tried(program: Program) -> None:
    with terminal() as (theirs, shown):
        arguments = ("conformance", "sqlite", "--law", "test_import_prints_nothing", *SMOKE)
        with program.running(*arguments, stderr=theirs) as process:
            seen = shown()
            printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0, printed
    assert "plugin sqlite: import_prints_nothing" in seen
    assert seen.endswith("\r\x1b[K"), "the line is taken away in the end"


def test_the_commands_help_needs_no_kit(program: Program, tmp_path: Path) -> None:
    (tmp_path / "site" / "hypothesis.py").write_text("raise ModuleNotFoundError('no', name='hypothesis')")
    assert program("conformance", "--help").returncode == 0
    done = program("conformance", "sqlite")
    assert done.returncode == 2
    assert (
        b"the contract kit needs hypothesis. Mend: python -m pip install 'llmengine-core[testing]'"
        in done.stderr
    )
