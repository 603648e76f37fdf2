"""Laws that wait for what never comes, that have nothing to try, or that could not judge."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import ClassVar

import pytest
from hypothesis import strategies as st

from llmengine_core.testing import laws
from llmengine_core.testing.laws import Contract, law
from llmengine_core.testing.verdicts import run_contract


class Waits(Contract):
    patience = 0.3
    tried: ClassVar[Counter[int]] = Counter()

    @law(number=st.integers(3, 9))
    async def test_it_comes(self, number: int) -> None:
        """It comes."""
        self.tried[number] += 1
        await asyncio.sleep(60)


def test_an_example_that_hangs_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(laws, "LONG", 0.2)
    Waits.tried.clear()
    (verdict,) = run_contract(Waits)
    assert verdict.outcome == "failed"
    assert "not over within" in verdict.reason
    assert "test_it_comes(" in verdict.reason  # the example is told
    assert Waits.tried
    assert set(Waits.tried.values()) == {1}


class Unopened(Contract):
    patience = 0.5
    hangs: ClassVar[str] = ""
    opened: ClassVar[int] = 0
    given_up: ClassVar[int] = 0

    @classmethod
    @asynccontextmanager
    async def shared(cls) -> AsyncIterator[None]:
        cls.opened += 1
        try:
            await asyncio.sleep(60 if cls.hangs == "waits" else 0)
            until = time.monotonic() + (8 if cls.hangs == "blocks" else 0)
            while time.monotonic() < until:
                pass
        finally:
            cls.given_up += 1
        raise ConnectionRefusedError("nobody is there")
        yield

    @law(number=st.integers())
    async def test_one(self, number: int) -> None:
        """One."""

    @law(number=st.integers())
    async def test_two(self, number: int) -> None:
        """Two."""

    @law()
    async def test_zero(self) -> None:
        """Three."""


@pytest.mark.parametrize(
    ("hangs", "said"),
    [
        ("", "nobody is there"),
        ("waits", "opening it was not over within"),
        ("blocks", "opening it blocked the event loop for more than"),
    ],
)
def test_what_cannot_be_opened_is_every_laws_reason_and_opened_once(hangs: str, said: str) -> None:
    Unopened.hangs, Unopened.opened, Unopened.given_up = hangs, 0, 0
    began = time.monotonic()
    verdicts = list(run_contract(Unopened))
    assert time.monotonic() - began < 15
    assert Unopened.opened == 1
    assert Unopened.given_up == (hangs != "blocks")
    assert [each.outcome for each in verdicts] == ["failed"] * 3  # and closing has nothing to add
    for each in verdicts:
        assert said in each.reason
        assert each.reason.count("the law ") == 1, each.reason
        assert "Failing test case" not in each.reason  # no example is to blame
    assert len({len(each.reason) for each in verdicts[:2]}) == 1


OPTIMIZED = """
from llmengine_core.testing import Contract, law, run_contract

class Wrong(Contract):
    @law()
    def test_it_is(self):
        \"\"\"It is.\"\"\"
        assert False

for verdict in run_contract(Wrong):
    print(verdict.outcome, verdict.reason)
"""


@pytest.mark.parametrize("way", ["option", "variable"])
def test_where_asserts_are_left_out_laws_refuse_to_judge(way: str) -> None:
    options = ["-O"] if way == "option" else []
    env = os.environ | ({"PYTHONOPTIMIZE": "1"} if way == "variable" else {})
    run = subprocess.run(
        [sys.executable, *options, "-c", OPTIMIZED], env=env, capture_output=True, text=True, timeout=60
    )
    assert run.stdout.startswith("failed"), run
    assert "without -O" in run.stdout
