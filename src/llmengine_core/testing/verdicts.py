"""The laws of a contract, tried without pytest."""

from __future__ import annotations

import io
import time
import traceback
import unittest
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from llmengine_core.testing.laws import Contract, KnownQuirk, Law

__all__ = ["CLOSING", "Outcome", "Verdict", "closing", "run_contract", "run_law"]

Outcome: TypeAlias = Literal["passed", "failed", "quirk", "not applicable"]
CLOSING = "closing"
"""What stands for a law's name in the verdict on letting go of what all laws shared."""
LONGEST = 8_000
"""Characters of a reason."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one law."""

    law: str
    level: str
    rules: tuple[str, ...]
    outcome: Outcome
    reason: str
    """Why, where it did not simply pass: what was seen, and the drawn example that shows it as code."""
    seconds: float
    figures: Mapping[str, float] = field(default_factory=dict)
    """What the law measured, by name: "size, bytes"."""
    printed: str = ""
    """What was printed meanwhile: a finding, no failure."""


def run_contract(
    contract: type[Contract],
    laws: Iterable[str] | None = None,
    *,
    on_begin: Callable[[Law], Any] = lambda _: None,
) -> Iterator[Verdict]:
    """The verdict on each law of a contract, or on those named, in order of their names."""
    contract.setup_class()
    chosen = sorted(contract.laws()) if laws is None else list(laws)
    try:
        for name in chosen:
            on_begin(contract.laws()[name])
            yield run_law(contract, name)
    finally:
        last = closing(contract)
    if last is not None:
        yield last


def run_law(contract: type[Contract], name: str) -> Verdict:
    """The verdict on one law, between the contract's ``setup_class`` and its end."""
    each = contract.laws()[name]
    contract.figures = {}
    began = time.monotonic()
    printed = io.StringIO()
    outcome: Outcome = "passed"
    reason = ""
    try:
        with redirect_stdout(printed):  # Hypothesis prints what it finds, and so may what is judged
            getattr(contract(), name)()
    except KnownQuirk as error:
        outcome, reason = "quirk", str(error)
    except unittest.SkipTest as error:
        outcome, reason = "not applicable", str(error)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        outcome, reason = "failed", told(error)
    seconds = time.monotonic() - began
    said = printed.getvalue()[:LONGEST] if outcome == "passed" else ""  # else it is Hypothesis's
    return Verdict(name, each.level, each.rules, outcome, reason, seconds, dict(contract.figures), said)


def closing(contract: type[Contract]) -> Verdict | None:
    """End a run; the verdict where that fails."""
    began = time.monotonic()
    try:
        contract.teardown_class()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return Verdict(CLOSING, "core", (), "failed", told(error), time.monotonic() - began)
    return None


def told(error: BaseException) -> str:
    """What went wrong, for somebody who has nothing else: the error, its notes, and where it came from."""
    if isinstance(error, BaseExceptionGroup):
        return "\n\n".join(told(each) for each in error.exceptions)[:LONGEST]
    lines = [*traceback.format_exception_only(error)]
    if not isinstance(error, AssertionError):
        lines += ["at ", *traceback.format_list(traceback.extract_tb(error.__traceback__)[-3:])]
    return "".join(lines).strip()[:LONGEST]
