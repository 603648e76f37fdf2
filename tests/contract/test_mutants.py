"""Every law catches something, and everything wrong is caught by the laws that it names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import settings
from tests.contract.mutants import Mutant, all_mutants

from llmengine_core.testing.profiles import PROFILE_VARIABLE, PROFILES
from llmengine_core.testing.verdicts import closing, run_law

ALL = all_mutants()


@pytest.fixture(autouse=True)
def same_examples_on_any_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """That a law fails is all that is asked: no time goes into small examples, and none is too little."""
    monkeypatch.setitem(PROFILES, "default", replace(PROFILES["default"], seconds=60, shrinking=0))
    monkeypatch.setenv(PROFILE_VARIABLE, "default")
    before = settings.get_current_profile_name()
    settings.register_profile("mutants", derandomize=True, deadline=None)
    settings.load_profile("mutants")
    yield
    settings.load_profile(before)


def test_names_are_of_one_mutant_each() -> None:
    names = [(mutant.kind, mutant.name) for mutant in ALL]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("mutant", ALL, ids=lambda mutant: f"{mutant.kind}-{mutant.name}")
def test_it_dies_of_every_law_that_it_names(mutant: Mutant) -> None:
    assert mutant.killers, "a mutant names the laws that it dies of"
    mutant.contract.setup_class()
    try:
        verdicts = [run_law(mutant.contract, name) for name in mutant.killers]
    finally:
        closing(mutant.contract)
    assert [verdict.law for verdict in verdicts if verdict.outcome != "failed"] == []


@pytest.mark.parametrize("kind", sorted({mutant.kind for mutant in ALL}))
def test_every_law_kills_a_mutant(kind: str) -> None:
    judged = {name for mutant in ALL if mutant.kind == kind for name in mutant.contract.laws()}
    killers = {name for mutant in ALL if mutant.kind == kind for name in mutant.killers}
    assert judged - killers == set()
