"""Laws of sessions: any program of calls."""

from __future__ import annotations

import time
from typing import Any, ClassVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from llmengine_core.testing.contracts.sessions.agreement import AgreementGround
from llmengine_core.testing.contracts.sessions.program import Failure, SessionProgram
from llmengine_core.testing.laws import NotApplicable, law
from llmengine_core.testing.portal import Keeper
from llmengine_core.testing.profiles import current

__all__ = ["ProgramLaws"]

WEIGHT = 0.6
CHEAP = 0.3
"""Seconds that opening a session of a program's own may take; where it takes longer, programs share one."""
SHRINKING = 0.15
"""Of the time that making a failing example small may take: programs become small soon."""


class ProgramLaws(AgreementGround):
    """What a session does doesn't depend on what else was done with it."""

    @law("C05", "C10", "C14", weight=WEIGHT)
    def test_any_program_of_calls_is_answered_as_each_call_alone(self) -> None:
        """Whatever streams are begun, read in turns, cancelled and closed: each gives its answer, as it does alone."""
        profile = current()
        self.given  # noqa: B018 - opened here, so that its time isn't the law's
        self.portal().run(self.prepare(), seconds=self.patience, what="asking the session")
        cheap = self._another_is_cheap()
        failures: list[Failure] = []
        end = time.monotonic() + profile.seconds

        class Program(SessionProgram):
            ground = self
            found = failures
            known: ClassVar = {}
            own = cheap

            def wanted(self) -> bool:
                limit = end if not failures else failures[0].at + profile.shrinking * SHRINKING
                return time.monotonic() < limit

        bounds = settings(
            max_examples=max(2, round(profile.examples * WEIGHT)),
            stateful_step_count=profile.steps,
            deadline=None,
            database=None,
            print_blob=False,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        try:
            _run(Program, bounds)
        except Exception as error:
            if not failures:
                raise
            shortest = min(failures, key=lambda each: len(each.program))
            raised = AssertionError(shortest.said)
            raised.add_note("the program that shows it:\n" + shortest.program)
            raise raised from (error if isinstance(error, AssertionError) else None)

    def _another_is_cheap(self) -> bool:
        """Whether each program can have a session of its own."""
        keeper = Keeper(self.portal(), self.another)
        began = time.monotonic()
        try:
            keeper.enter(self.patience)
        except NotApplicable:
            return False
        took = time.monotonic() - began
        keeper.leave(self.patience)
        return took < CHEAP


def _run(program: Any, bounds: settings) -> None:
    run_state_machine_as_test(program, settings=bounds)
