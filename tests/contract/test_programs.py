"""A program that fails is told as code, and does what it did when it is run."""

from __future__ import annotations

import pytest
from tests.contract.mutants.session_crowds import MUTANTS, PROGRAM

from llmengine_core.testing.profiles import PROFILE_VARIABLE
from llmengine_core.testing.verdicts import run_law


def test_a_failing_program_is_told_as_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROFILE_VARIABLE, "default")
    (stale,) = (each.contract for each in MUTANTS if each.name == "stale_chunk")
    stale.setup_class()
    try:
        verdict = run_law(stale, PROGRAM)
    finally:
        stale.teardown_class()
    assert verdict.outcome == "failed"
    head, _, program = verdict.reason.partition("the program that shows it:\n")
    assert "alone its request is answered" in head or "otherwise than alone" in head
    code = program.partition("\nthe law ")[0]
    compile(code, "program", "exec")
    assert "session.generate(request(" in code
    assert len(code.splitlines()) < 25
