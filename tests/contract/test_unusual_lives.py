"""The laws of lives raise no false alarm at sessions that are right and unlike most."""

from __future__ import annotations

import pytest
from tests.contract.toy_contract import ToyContract
from tests.contract.unusual_lives import SUBJECTS

from llmengine_core.testing.profiles import PROFILE_VARIABLE
from llmengine_core.testing.verdicts import run_contract

SUBJECTS_OF_LAWS = ("cancelling", "deadlines", "concurrency", "closing", "session_machine")


@pytest.mark.parametrize("contract", SUBJECTS, ids=lambda each: each.__name__.lower())
def test_it_keeps_the_laws_of_lives(contract: type[ToyContract], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROFILE_VARIABLE, "smoke")
    homes = {name: each.function.__module__.rpartition(".")[2] for name, each in contract.laws().items()}
    chosen = sorted(name for name, home in homes.items() if home in SUBJECTS_OF_LAWS)
    wrong = {each.law: each.reason for each in run_contract(contract, chosen) if each.outcome == "failed"}
    assert wrong == {}
