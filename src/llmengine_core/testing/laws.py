"""Laws and the contracts that hold them: what a plugin's author inherits, and what runs with or without pytest.

A law is a method of a contract, named ``test_...``, and stays one: a subclass may narrow the *domain*, the
strategies that are its attributes; it can't replace a law. A parameter of a law is drawn from the strategy that
the law names itself, or from the contract's attribute of the same name. A known deviation is a ``Quirk``.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
import time
import unittest
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

from llmengine_core.testing.portal import Keeper, Portal
from llmengine_core.testing.profiles import Profile, current

__all__ = ["CORE", "Contract", "KnownQuirk", "Law", "NotApplicable", "Quirk", "law"]

F = TypeVar("F", bound=Callable[..., Any])
CORE = "core"
"""The level of what everything of a kind must do."""
LONG = 5.0
"""Seconds that a failing example may take to be tried again: what hangs is waited for once."""
OPTIMIZED = "laws judge by assert statements, which -O leaves out. Mend: run it without -O and PYTHONOPTIMIZE"
_abandoned: list[object] = []


class NotApplicable(unittest.SkipTest):
    """The law is about something that isn't declared. pytest and Hypothesis take it for a skip."""


class KnownQuirk(Exception):
    """A law failed, as its quirk says it does."""


@dataclass(frozen=True, slots=True)
class Quirk:
    """A law that is known not to hold: a strict expected failure, shown in every report."""

    reason: str
    link: str = ""
    """Where it is dealt with: an issue's URL."""


@dataclass(frozen=True, slots=True)
class Law:
    """One thing that a contract promises."""

    name: str
    """Of the method: a test's id, which doesn't change."""
    rules: tuple[str, ...]
    """Ids of the API contract that it stands for."""
    level: str
    """``CORE``, or the declared capability that it proves."""
    summary: str
    """The first line of its docstring."""
    weight: float
    """How many examples it is worth, compared with others."""
    function: Callable[..., Any] = field(repr=False)
    draws: Mapping[str, SearchStrategy[Any]] = field(repr=False)


def law(
    *rules: str, level: str = CORE, weight: float = 1.0, **draws: SearchStrategy[Any]
) -> Callable[[F], F]:
    """Make a method, async or not, a law. ``draws`` are the strategies that are this law's own."""

    def made(function: F) -> F:
        summary = (inspect.getdoc(function) or "").partition("\n")[0]
        if not summary:
            raise TypeError(f"the law {function.__name__} has no docstring to say what it promises")
        function.law = Law(function.__name__, rules, level, summary, weight, function, draws)  # type: ignore[attr-defined]
        return function

    return made


class Contract:
    """What everything of one kind promises, as laws.

    Inherit it in a test file, or hand it to ``run_contract``. ``setup_class`` and ``teardown_class`` bracket a
    run; pytest calls them by itself.
    """

    kind: ClassVar[str] = ""
    """What it is about: "backend", "storage"."""
    subject: ClassVar[str] = ""
    """The name of what is judged, for reports."""
    quirks: ClassVar[Mapping[str, Quirk]] = {}
    """Known deviations by the law's name."""
    patience: ClassVar[float] = 60.0
    """Seconds after which one example of a law has failed by taking too long."""

    figures: ClassVar[dict[str, float]] = {}
    """What the law that runs has measured, by name: see ``report``."""
    _laws: ClassVar[dict[str, Law]] = {}
    _portal: ClassVar[Portal | None] = None
    _keeper: ClassVar[Keeper[Any] | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        found: dict[str, Law] = {}
        for name in dir(cls):
            each = _law_of(inspect.getattr_static(cls, name))
            inherited = any(name in base._laws for base in cls.__mro__[1:] if issubclass(base, Contract))
            if each is None and inherited:
                raise TypeError(
                    f"{cls.__name__} replaces the law {name}; narrow what is drawn, or give a reason in `quirks`"
                )
            if each is not None:
                found[name] = each
        cls._laws = found
        if unknown := set(cls.quirks) - set(found):
            raise TypeError(
                f"{cls.__name__} has quirks of laws that there are not: {', '.join(sorted(unknown))}"
            )
        # Each class has wrappers of its own: Hypothesis refuses one that several classes share.
        for name, each in found.items():
            setattr(cls, name, _bound(each, cls))

    @classmethod
    def laws(cls) -> Mapping[str, Law]:
        """All laws of this contract by name."""
        return dict(cls._laws)

    @classmethod
    def applies(cls, each: Law) -> bool:
        """Whether what a law is about is declared."""
        return True

    @classmethod
    @asynccontextmanager
    async def shared(cls) -> AsyncIterator[Any]:
        """What all laws of a run share, opened when the first of them needs it: ``self.given``."""
        yield None

    @property
    def given(self) -> Any:
        """What ``shared`` gives."""
        return type(self)._keep().enter(self.patience)

    @classmethod
    def portal(cls) -> Portal:
        """The loop that the laws run on; a fresh one where the last was blocked or ended."""
        if cls._portal is None or not cls._portal.alive:
            # Of a loop that may still be blocked: its tasks must not be collected.
            _abandoned.append(cls._keeper)
            cls._portal = Portal()
            if cls._keeper is not None and not cls._keeper.failed:
                cls._keeper = None
        return cls._portal

    @classmethod
    def _keep(cls) -> Keeper[Any]:
        portal = cls.portal()
        if cls._keeper is None:
            cls._keeper = Keeper(portal, cls.shared)
        return cls._keeper

    @classmethod
    def report(cls, name: str, value: float) -> None:
        """Note a figure that a law has measured, for its verdict; of several of one name the last counts."""
        cls.figures[name] = float(value)

    @classmethod
    def setup_class(cls) -> None:
        """Begin a run."""
        cls.figures = {}
        cls._portal = cls._keeper = None

    @classmethod
    def teardown_class(cls) -> None:
        """End a run; raises what closing the shared thing raises."""
        portal, keeper = cls._portal, cls._keeper
        cls._portal = cls._keeper = None
        try:
            if keeper is not None:
                keeper.leave(cls.patience)
        finally:
            if portal is not None:
                portal.close()

    async def prepare(self) -> None:
        """Called on the loop before each example of each law."""

    def _examine(self, each: Law, drawn: Mapping[str, Any]) -> None:
        if not inspect.iscoroutinefunction(each.function):
            each.function(self, **drawn)
            return
        self.given  # noqa: B018 - opened here, so that its time isn't the law's
        asynchronous: Callable[..., Coroutine[Any, Any, None]] = each.function

        async def examine() -> None:
            await self.prepare()
            await asynchronous(self, **drawn)

        self.portal().run(examine(), seconds=self.patience, what=f"the law {each.name}")


def _law_of(attribute: object) -> Law | None:
    found = getattr(attribute, "law", None)
    return found if isinstance(found, Law) else None


class _Budget:
    """Ends a law in time: examples are passed over once it is used up, but never one that failed before."""

    def __init__(self, profile: Profile, weight: float) -> None:
        self._end = time.monotonic() + profile.seconds * max(weight, 1.0)
        self._shrinking = profile.shrinking * min(weight, 1.0)
        self._failed: dict[str, Exception | None] = {}
        """Examples that failed, and of what, where that took too long to be tried again."""
        self._begun = False

    def run(self, drawn: Mapping[str, Any], examine: Callable[[], None]) -> None:
        which = repr(sorted(drawn.items()))
        if self._begun and time.monotonic() > self._end and which not in self._failed:
            return
        if (known := self._failed.get(which)) is not None:
            raise known
        self._begun = True
        began = time.monotonic()
        try:
            examine()
        except unittest.SkipTest:
            raise
        except Exception as error:
            now = time.monotonic()
            if not self._failed:
                self._end = now + self._shrinking
            self._failed[which] = error if now - began > LONG else None
            raise


def _bound(each: Law, cls: type[Contract]) -> Callable[..., None]:
    """The method of one class that tries a law, as a test: no arguments but ``self``."""
    names = [name for name in inspect.signature(each.function).parameters if name != "self"]
    missing = [name for name in names if name not in each.draws and not hasattr(cls, name)]
    if missing:
        raise TypeError(f"{cls.__name__} has no strategy for {', '.join(missing)}, which {each.name} draws")

    @functools.wraps(each.function)
    def test(self: Contract) -> None:
        if not __debug__:
            raise RuntimeError(OPTIMIZED)
        profile = current()
        if not self.applies(each):
            raise NotApplicable(f"{each.level} is not declared")

        def example(self: Contract, **drawn: Any) -> None:
            budget.run(drawn, lambda: self._examine(each, drawn))

        strategies = {name: each.draws.get(name, getattr(cls, name, None)) for name in names}
        try:
            if inspect.iscoroutinefunction(each.function):
                self.given  # noqa: B018 - where it can't be opened, no example is to blame
            budget = _Budget(profile, each.weight)
            if strategies:
                _drawn(example, each, strategies, profile)(self)
            else:
                example(self)
        except unittest.SkipTest:
            raise
        except Exception as error:
            error.add_note(f"the law {each.name} ({', '.join(each.rules) or each.level}): {each.summary}")
            if (quirk := cls.quirks.get(each.name)) is not None:
                _expected(quirk, error)
            raise
        if (quirk := cls.quirks.get(each.name)) is not None:
            raise AssertionError(f"the law {each.name} holds; take its quirk away ({quirk.reason})")

    test.law = each  # type: ignore[attr-defined]
    del test.__wrapped__  # or pytest would take the drawn arguments for fixtures
    return test


def _drawn(
    example: Callable[..., None], each: Law, strategies: Mapping[str, Any], profile: Profile
) -> Callable[..., None]:
    """``example`` with examples drawn by Hypothesis."""
    names = inspect.signature(each.function).parameters.values()
    example.__name__ = example.__qualname__ = each.name
    example.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [each if each.name == "self" else each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in names]
    )
    small = {Phase.shrink, Phase.explain} if profile.shrinking == 0 else set()
    bounds = settings(
        phases=[phase for phase in Phase if phase not in small],
        max_examples=max(1, round(profile.examples * each.weight)),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        stateful_step_count=profile.steps,
    )
    return bounds(given(**strategies)(example))


def _expected(quirk: Quirk, error: Exception) -> None:
    """Say that a failure was expected, to pytest in its own way."""
    said = f"{quirk.reason} {quirk.link}".rstrip()
    if "PYTEST_CURRENT_TEST" in os.environ and "pytest" in sys.modules:
        sys.modules["pytest"].xfail(said)
    raise KnownQuirk(said) from error
