"""``llmengine explain``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.program import Run


def test_every_candidate_is_shown_with_every_rule(run: Run) -> None:
    done = run("explain", "echo", "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    plan = json.loads(done.stdout)
    assert (plan["model"], plan["framework"], plan["chosen"]) == ("echo", "auto", "echo")
    text = run("explain", "echo").stdout
    for candidate in plan["candidates"]:
        assert candidate["name"] in text
        for rule in candidate["rules"]:
            assert rule["fact"] in text
            assert rule["verdict"] in ("passed", "failed", "unknown")


def test_what_nothing_serves_ends_in_4_with_the_plan_on_standard_output(run: Run) -> None:
    done = run("explain", "echo", "--inference-framework", "vllm", "--json")
    assert (done.exit_code, done.stderr) == (4, "")
    assert json.loads(done.stdout)["chosen"] is None
    assert "mend:" in run("explain", "echo", "--inference-framework", "vllm").stdout


def test_m10_an_unknown_base_ends_in_4(run: Run) -> None:
    done = run("explain", "ecko")
    assert done.exit_code == 4
    assert "did you mean 'echo'?" in done.stdout


def test_a_file_can_hold_the_spec(run: Run) -> None:
    Path("spec.toml").write_text('name = "mine"\nmodel = "echo"\nquantize = "q8_0"\n')
    plan = json.loads(run("explain", "--spec", "spec.toml", "--json").stdout)
    assert plan["asked"]["quantize"] == "q8_0"


def test_it_works_where_no_engine_could_open(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("file").touch()
    monkeypatch.setenv("LLMENGINE_HOME", str(Path("file/home").absolute()))
    assert run("explain", "echo").exit_code == 0


def test_a_spec_without_a_base_is_refused(run: Run) -> None:
    assert run("explain").exit_code == 2
