"""One run: every contract in a process of its own, which is started again where a law ended it."""

from __future__ import annotations

import asyncio
import difflib
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from llmengine_core.testing.conformance.report import Judged, Report
from llmengine_core.testing.conformance.subjects import KINDS, Gap, Subject, of_plugin
from llmengine_core.testing.conformance.watched import MOST_MEMORY, Ended, Watched
from llmengine_core.testing.laws import CORE
from llmengine_core.testing.portal import Stuck
from llmengine_core.testing.profiles import PROFILE_VARIABLE
from llmengine_core.testing.verdicts import Verdict

__all__ = ["Asked", "NothingAsked", "OnNews", "folder", "judge"]

PLANNING = "llmengine_core.testing.conformance.planning"
TRYING = "llmengine_core.testing.conformance.trying"
STARTING = 30.0
"""Seconds until an interpreter has imported the kit and a contract, on a machine that is busy."""
IN_VAIN = 6
"""Processes in a row that ended before a first verdict, after which a contract's other laws aren't tried."""
WASTED = 300.0
"""Seconds that such processes, or laws in a row whose calls did not come back, may take together."""
EXAMPLES = "HYPOTHESIS_STORAGE_DIRECTORY"
"""Says where Hypothesis keeps what failed; elsewhere it would be in the folder that the command is given in."""
ALTOGETHER = {"smoke": 45.0}
"""Seconds after which laws try one example alone, by profile."""
MANY_LAWS = 12.0
LOADING = "loading"
"""What stands for a law's name in the verdict on a contract that can't even be begun."""

OnNews = Callable[[Subject, str, int, int], Any]
"""Told of each law that is begun: the contract, the law, how many were before it, and how many there are."""


class NothingAsked(Exception):
    """What was asked for isn't there; says what is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What to judge, and how."""

    plugin: str
    kinds: tuple[str, ...] = ()
    """All where none is named; see ``KINDS``."""
    profile: str = "default"
    model: str | None = None
    checkpoint: str | None = None
    url: str | None = None
    contracts: str | None = None
    """An author's file or module."""
    laws: tuple[str, ...] = ()
    """All where none is named."""
    seconds: float = 15.0
    """That importing the plugin and looking at what it declares may take."""
    memory: int = MOST_MEMORY
    """Bytes that it may take in our processes."""


def folder() -> tempfile.TemporaryDirectory[str]:
    """A folder for one run; whatever the processes leave in their temporary folder goes with it."""
    return tempfile.TemporaryDirectory(prefix="llmc-", ignore_cleanup_errors=True)


async def judge(asked: Asked, work: Path, *, on_begin: OnNews, on_end: Callable[[Judged], Any]) -> Report:
    """Try the laws. ``work`` is an empty folder. Comes to an end whatever the plugin does, and leaves no process.

    Raises ``NothingAsked`` where there is no such plugin, kind or law.
    """
    run = Run(asked, work)
    began = time.monotonic()
    subjects, gaps = await run.plan()
    judged = []
    for done, subject in enumerate(subjects):
        judged.append(await run.judge(subject, on_begin, _share(asked, subjects[done:], began)))
        on_end(judged[-1])
    for gap in gaps:
        verdict = Verdict(LOADING, CORE, (), "failed", f"not judged: {gap.reason}", 0.0)
        judged.append(Judged(gap.kind, gap.subject, "", (verdict,)))
        on_end(judged[-1])
    versions = await asyncio.to_thread(_versions)
    return Report(
        run.name, run.distribution, versions, asked.profile, tuple(judged), time.monotonic() - began
    )


def _share(asked: Asked, rest: Sequence[Subject], began: float) -> float | None:
    """Seconds for the next contract, where the profile has a bound for all: those of sessions get the most."""
    if asked.profile not in ALTOGETHER:
        return None
    weights = [MANY_LAWS if each.kind in ("backend", "lifecycle", "session") else 1.0 for each in rest]
    left = max(0.0, ALTOGETHER[asked.profile] - (time.monotonic() - began))
    return left * weights[0] / sum(weights)


def _versions() -> dict[str, str]:
    return {
        "llmengine-core": metadata.version("llmengine-core"),
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }


class Run:
    """The processes of a run."""

    def __init__(self, asked: Asked, work: Path) -> None:
        self.asked = asked
        self.name, self.distribution = asked.plugin, ""
        self._work = work
        self._children = 0

    async def plan(self) -> tuple[list[Subject], list[Gap]]:
        """What is judged and what can't be. A plugin that can't even be asked is judged all the same."""
        order = {
            "plugin": self.asked.plugin,
            "kinds": self.asked.kinds,
            "profile": self.asked.profile,
            "model": self.asked.model,
            "checkpoint": self.asked.checkpoint,
            "url": self.asked.url,
            "laws": self.asked.laws,
        }
        told: list[dict[str, Any]] = []
        try:
            async with aclosing(self._child(PLANNING, order).news(STARTING)) as news:
                told = [each async for each in news if "subjects" in each or "missing" in each]
        except Ended as ended:
            gap = Gap("plugin", self.asked.plugin, f"what it declares can't be known: {ended}")
            found = (
                [of_plugin(self.asked.plugin, self.asked.url)]
                if "plugin" in (self.asked.kinds or KINDS)
                else []
            )
            return self._chosen(found), [gap]
        (plan,) = told
        if "missing" in plan:
            raise NothingAsked(plan["missing"])
        self.name, self.distribution = plan["name"], plan["distribution"]
        subjects = [Subject.from_json(each) for each in plan["subjects"]]
        gaps = [Gap(**each) for each in plan["gaps"]]
        if not subjects and not gaps:
            raise NothingAsked(f"{self.name} declares nothing of the kind {' or '.join(self.asked.kinds)}")
        return self._chosen(subjects), [] if self.asked.laws else gaps

    def _chosen(self, subjects: list[Subject]) -> list[Subject]:
        """Those with the laws that were asked for. Raises ``NothingAsked`` of a law that none has."""
        known = {name for subject in subjects for name in subject.laws}
        for name in self.asked.laws if known else ():
            if name not in known:
                close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
                hint = f"; did you mean {' or '.join(close)}?" if close else ""
                raise NothingAsked(f"no contract here has the law {name!r}{hint}")
        wanted = set(self.asked.laws)
        return [each for each in subjects if not wanted or not known or wanted & set(each.laws)]

    async def judge(self, subject: Subject, on_begin: OnNews, share: float | None) -> Judged:
        """One contract, to its end."""
        trial = Trial(subject)
        in_vain, wasted = 0, 0.0
        while in_vain < IN_VAIN and wasted < WASTED:
            began, before = time.monotonic(), len(trial.verdicts)
            order = {"subject": subject.as_json(), "laws": self.asked.laws, "from": before, "share": share}
            try:
                async with aclosing(self._child(TRYING, order).news(STARTING)) as news:
                    async for told in news:
                        trial.take(told, on_begin)
                        if trial.waited >= WASTED:
                            trial.give_up(
                                f"those before it waited {trial.waited:.0f} s for what did not come"
                            )
                            return trial.judged()
                break
            except Ended as ended:
                trial.end(str(ended))
            if trial.finished:
                break
            alone = len(trial.verdicts) == before + 1
            in_vain = in_vain + 1 if alone else 0
            wasted = wasted + time.monotonic() - began if alone else 0.0
        else:
            trial.give_up(f"the {in_vain} laws before it ended the process")
        return trial.judged()

    def _child(self, program: str, order: dict[str, Any]) -> Watched:
        self._children += 1
        common = {"seconds": self.asked.seconds, "contracts": self.asked.contracts}
        env = {
            PROFILE_VARIABLE: self.asked.profile,
            "TMPDIR": str(self._work),
            "PYTHONOPTIMIZE": "",  # laws judge by assert statements
            EXAMPLES: str(self._work / "examples"),
        }
        output = self._work / f"output-{self._children}"
        return Watched(program, common | order, output, env=env, memory=self.asked.memory)


class Trial:
    """What is known of one contract so far."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.laws: Sequence[dict[str, Any]] = ()
        self.verdicts: list[Verdict] = []
        self.finished = False
        self.waited = 0.0
        """Seconds that the last laws, one after the other, took to fail for calls that did not come back."""
        self._begun: str | None = None
        self._since = 0.0
        self._reason = ""

    def take(self, told: dict[str, Any], on_begin: OnNews) -> None:
        """News of the process."""
        if "laws" in told:
            self.laws = told["laws"]
            if told["subject"] and not self.subject.attributes:
                self.subject = replace(self.subject, subject=told["subject"])
        elif told.get("begun") == "law":
            self._begun, self._since = told["law"], time.monotonic()
            on_begin(self.subject, told["law"], len(self.verdicts), len(self.laws))
        elif told.get("begun") == "closing":
            self.finished, self._begun = True, None
        elif "verdict" in told:
            verdict = Verdict(**{**told["verdict"], "rules": tuple(told["verdict"]["rules"])})
            self.verdicts.append(verdict)
            self._begun = None
            self.waited = self.waited + verdict.seconds if _is_stuck(verdict) else 0.0

    def end(self, reason: str) -> None:
        """The process came to a bad end: so did the law that it was at."""
        self._reason = reason
        if self.finished:
            self._fail("closing", reason)
        elif not self.laws:
            self._fail(LOADING, f"the contract could not be begun: {reason}")
            self.finished = True
        elif self._begun is not None:
            self._fail(self._begun, reason)
        else:
            self._fail(self.laws[len(self.verdicts)]["name"], f"before it was tried, {reason}")
        self._begun = None
        self.finished = self.finished or len(self.verdicts) >= len(self.laws)

    def give_up(self, what: str) -> None:
        """Nothing can be learnt any more; ``what`` says of the laws before why."""
        reason = f"not tried, since {what}: {self._reason or self.verdicts[-1].reason}"
        for each in self.laws[len(self.verdicts) :]:
            self._fail(each["name"], reason)

    def judged(self) -> Judged:
        """What came of it."""
        summaries = {each["name"]: each["summary"] for each in self.laws}
        subject = self.subject
        return Judged(subject.kind, subject.subject, subject.contract, tuple(self.verdicts), summaries)

    def _fail(self, law: str, reason: str) -> None:
        known: dict[str, Any] = {"level": CORE, "rules": ()}
        known = next((each for each in self.laws if each["name"] == law), known)
        seconds = time.monotonic() - self._since if self._begun else 0.0
        self.verdicts.append(Verdict(law, known["level"], tuple(known["rules"]), "failed", reason, seconds))


def _is_stuck(verdict: Verdict) -> bool:
    """Whether a law failed because a call did not come back."""
    return verdict.outcome == "failed" and f".{Stuck.__name__}:" in verdict.reason.partition("\n")[0]
