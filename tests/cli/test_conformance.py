"""``llmengine conformance``: its report, its exit codes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.program import Installed, Program, Run, terminal

from llmengine_core.testing.conformance.report import Judged, Report, markdown
from llmengine_core.testing.verdicts import Outcome, Verdict

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


def test_laws_of_the_echo_hold(run: Run) -> None:
    laws = ("test_c06_stops_cross_the_borders_of_tokens", "test_c05_a_greedy_call_repeats")
    done = run("conformance", ECHO_MODULE, *SMOKE, *(f"--law={law}" for law in laws))
    assert done.exit_code == 0, done.stdout
    assert done.stdout.startswith(
        "echo (llmengine-echo 1.0) in profile smoke\n\nbackend echo on echo\n  core  "
    )
    assert "holds (2)" in done.stdout
    assert "\n2 passed, 0 failed, 0 quirk, 0 not applicable in " in done.stdout


def test_the_result_is_one_document_and_a_terminal_sees_which_law_is_tried(program: Program) -> None:
    with terminal() as (theirs, shown):
        arguments = ("conformance", "sqlite", "--kind", "plugin", *SMOKE, "--json")
        with program.running(*arguments, stderr=theirs) as process:
            seen = shown()
            printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0, printed
    assert "plugin sqlite: import_prints_nothing" in seen
    assert seen.endswith("\r\x1b[K"), "the line is taken away in the end"
    found = json.loads(printed)
    assert found.keys() == {
        "plugin", "distribution", "versions", "profile", "holds", "contracts", "summary", "duration",
    }  # fmt: skip
    assert (found["plugin"], found["profile"], found["holds"]) == ("sqlite", "smoke", True)
    assert found["distribution"].startswith("llmengine-sqlite ")
    assert found["versions"].keys() == {"llmengine-core", "Python", "system"}
    (contract,) = found["contracts"]
    about = contract["kind"], contract["subject"], contract["contract"]
    assert about == ("plugin", "sqlite", "PluginContract")
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
    done = run("conformance", "loud", "--kind", "plugin", *SMOKE)
    assert done.exit_code == 1
    assert f"FAILED  {law}: Importing its module writes nothing" in done.stdout
    assert r"importing its module prints 'hello\n'" in done.stdout
    assert " 2 failed, " in done.stdout, "its factory can't be imported either"


def test_a_backend_without_a_model_is_told_what_to_name(run: Run, installed: Installed) -> None:
    installed.add("lonely", "lonely_plugin", LONELY)
    done = run("conformance", "lonely", "--kind", "backend", *SMOKE)
    assert done.exit_code == 1
    assert (
        "not judged: there is no model here to judge 'lonely' on. Mend: name one that it can serve (--model)"
        in (done.stdout)
    )


def test_the_table_is_markdown() -> None:
    def verdict(law: str, level: str, outcome: Outcome, reason: str = "") -> Verdict:
        return Verdict(law, level, (), outcome, reason, 0.1)

    verdicts = (
        verdict("one", "core", "passed"),
        verdict("two", "core", "quirk", "limps"),
        verdict("three", "seed", "not applicable"),
        verdict("four", "top_k", "failed"),
    )
    versions = {"llmengine-core": "0.1.0"}
    judged = Judged("backend", "a|b", "BackendContract", verdicts)
    report = Report("tape", "llmengine-tape 2.0", versions, "default", (judged,), 1.0)
    assert [*markdown(report)] == [
        "| tape 2.0 | level | laws | |",
        "|---|---|---|---|",
        r"| backend a\|b | core | 2 | holds, 1 quirk |",
        "|  | seed |  | not declared |",
        "|  | top_k | 1 | FAILED: 1 of 1 |",
        "",
        "* backend a|b, `two`: limps",
        "",
        "Profile default, llmengine-core 0.1.0.",
    ]
    assert not report.holds


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no_such_plugin"], "there is no plugin 'no_such_plugin'"),
        (["sqlite", "--kind", "storage"], "sqlite declares nothing of the kind storage"),
        (["sqlite", "--law", "test_import_is_quik"], "did you mean test_import_is_quick"),
        (["sqlite", "--contracts", "gone.py"], "'gone.py' is no file"),
        (
            ["sqlite", "--contracts", "no.such.module"],
            "'no.such.module' can't be imported: ModuleNotFoundError",
        ),
        (["sqlite", "--contracts", "json"], "'json' has no contract"),
        (["sqlite", "--kind", "gpu"], "'gpu' is not one of"),
        (["sqlite", "--profile", "fast"], "'fast' is not one of"),
    ],
)
def test_what_is_asked_for_in_vain_is_a_usage_error(run: Run, arguments: list[str], said: str) -> None:
    done = run("conformance", *arguments)
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stdout == ""


def test_the_commands_help_needs_no_kit(program: Program, tmp_path: Path) -> None:
    (tmp_path / "site" / "hypothesis.py").write_text("raise ModuleNotFoundError('no', name='hypothesis')")
    assert program("conformance", "--help").returncode == 0
    done = program("conformance", "sqlite")
    assert done.returncode == 2
    assert (
        b"the contract kit needs hypothesis. Mend: python -m pip install 'llmengine-core[testing]'"
        in done.stderr
    )
