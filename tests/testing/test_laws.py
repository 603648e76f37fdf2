"""Laws that wait for what never comes."""

from __future__ import annotations

import asyncio
from collections import Counter
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
