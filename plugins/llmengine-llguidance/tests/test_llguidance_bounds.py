from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bombs import BOMBS, TEXTS

MOST_SECONDS = 5.0
"""CPU time for one, on a slow machine; a second is usual for the worst."""


@pytest.fixture(scope="module")
def reports() -> dict[str, tuple[float, str]]:
    """What became of each bomb in a process that has 4 GB and ends at the first crash."""
    program = Path(__file__).with_name("bombs.py")
    output = subprocess.run([sys.executable, program], stdout=subprocess.PIPE, text=True, check=False).stdout
    lines = [json.loads(line) for line in output.splitlines()]
    return {name: (seconds, outcome) for name, seconds, outcome in lines}


@pytest.mark.parametrize("name", BOMBS)
def test_a_constraint_of_any_size_is_answered(name: str, reports: dict[str, tuple[float, str]]) -> None:
    assert name in reports, "the process ended here"
    seconds, outcome = reports[name]
    assert seconds < MOST_SECONDS
    assert len(outcome) < 1_000, "an error is for reading"


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_is_judged_in_bounded_time(name: str, reports: dict[str, tuple[float, str]]) -> None:
    assert name in reports, "the process ended here"
    assert reports[name][0] < 4 * MOST_SECONDS
