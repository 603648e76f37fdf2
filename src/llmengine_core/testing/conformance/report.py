"""What came of a plugin's laws: for people, for programs, and for the page that its docs publish."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from llmengine_core.testing.laws import CORE
from llmengine_core.testing.verdicts import Verdict

__all__ = ["Judged", "Report", "markdown", "text"]

ENDS = {"passed": "holds", "failed": "FAILED", "quirk": "quirk", "not applicable": "not declared"}


@dataclass(frozen=True, slots=True)
class Judged:
    """One contract's verdicts."""

    kind: str
    subject: str
    contract: str
    verdicts: tuple[Verdict, ...]
    summaries: Mapping[str, str] = field(default_factory=dict)
    """What each law promises, by its name."""

    def levels(self) -> dict[str, dict[str, int]]:
        """How many laws of each level came to which end; the core first."""
        found: dict[str, dict[str, int]] = {}
        for verdict in sorted(self.verdicts, key=lambda each: (each.level != CORE, each.level)):
            counts = found.setdefault(verdict.level, {})
            counts[verdict.outcome] = counts.get(verdict.outcome, 0) + 1
        return found


@dataclass(frozen=True, slots=True)
class Report:
    """All contracts of one run."""

    plugin: str
    distribution: str
    """"llmengine-llamacpp 0.1.0", or "" where none brings it."""
    versions: Mapping[str, str]
    profile: str
    contracts: tuple[Judged, ...]
    duration: float

    @property
    def summary(self) -> dict[str, int]:
        """How many laws came to which end."""
        counts = dict.fromkeys(ENDS, 0)
        for judged in self.contracts:
            for verdict in judged.verdicts:
                counts[verdict.outcome] += 1
        return counts

    @property
    def holds(self) -> bool:
        """Whether all laws hold but for known quirks, and at least one of them was tried."""
        counts = self.summary
        return counts["failed"] == 0 and counts["passed"] + counts["quirk"] > 0

    def as_json(self) -> dict[str, Any]:
        """One document."""
        return {
            "plugin": self.plugin,
            "distribution": self.distribution or None,
            "versions": dict(self.versions),
            "profile": self.profile,
            "holds": self.holds,
            "contracts": [
                {
                    "kind": judged.kind,
                    "subject": judged.subject,
                    "contract": judged.contract,
                    "levels": judged.levels(),
                    "verdicts": [_verdict(judged, each) for each in judged.verdicts],
                }
                for judged in self.contracts
            ],
            "summary": self.summary,
            "duration": round(self.duration, 3),
        }


def text(report: Report) -> Iterator[str]:
    """The report's lines for a terminal."""
    yield f"{report.plugin} {f'({report.distribution}) ' if report.distribution else ''}in profile {report.profile}"
    for judged in report.contracts:
        yield ""
        yield f"{judged.kind} {judged.subject}"
        for level, counts in judged.levels().items():
            yield f"  {level:20} {ended(level, counts)}"
            if level == CORE and not counts.keys() - {"not applicable"}:
                reasons = dict.fromkeys(each.reason for each in judged.verdicts if each.level == CORE)
                yield from (f"          {line}" for reason in [*reasons][:1] for line in reason.splitlines())
        for verdict in judged.verdicts:
            if verdict.outcome == "quirk":
                yield f"  quirk   {verdict.law}: {verdict.reason}"
        for verdict in judged.verdicts:
            if verdict.outcome == "failed":
                yield f"  FAILED  {verdict.law}: {judged.summaries.get(verdict.law, '')}".rstrip(": ")
                yield from (f"          {line}" for line in verdict.reason.splitlines())
        for verdict in judged.verdicts:
            if verdict.printed:
                first = verdict.printed.strip().partition("\n")[0]
                yield f"  printed {verdict.law}: {first[:200]!r}"
    yield ""
    totals = ", ".join(f"{count} {outcome}" for outcome, count in report.summary.items())
    yield f"{totals} in {report.duration:.1f} s"


def markdown(report: Report) -> Iterator[str]:
    """The report's table, and its quirks, as a plugin's page shows them."""
    yield f"| {report.plugin} {report.distribution.rpartition(' ')[2]} | level | laws | |".replace("  ", " ")
    yield "|---|---|---|---|"
    for judged in report.contracts:
        name = f"{judged.kind} {judged.subject}"
        for level, counts in judged.levels().items():
            judged_laws = sum(count for outcome, count in counts.items() if outcome != "not applicable")
            yield f"| {_cell(name)} | {_cell(level)} | {judged_laws or ''} | {ended(level, counts)} |"
            name = ""
    quirks = [
        (judged, verdict)
        for judged in report.contracts
        for verdict in judged.verdicts
        if verdict.outcome == "quirk"
    ]
    if quirks:
        yield ""
        for judged, verdict in quirks:
            yield f"* {judged.kind} {judged.subject}, `{verdict.law}`: {verdict.reason}"
    yield ""
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    yield f"Profile {report.profile}, {versions}."


def ended(level: str, counts: Mapping[str, int]) -> str:
    """What became of a level: "holds", "holds, 1 quirk", "FAILED: 2 of 9", "not declared"."""
    tried = {outcome: count for outcome, count in counts.items() if outcome != "not applicable"}
    if not tried:
        return "not judged" if level == CORE else "not declared"
    if failed := tried.get("failed"):
        return f"FAILED: {failed} of {sum(tried.values())}"
    quirks = tried.get("quirk", 0)
    return f"holds, {quirks} quirk{'s' * (quirks > 1)}" if quirks else f"holds ({sum(tried.values())})"


def _verdict(judged: Judged, verdict: Verdict) -> dict[str, Any]:
    return {
        "law": verdict.law,
        "summary": judged.summaries.get(verdict.law, ""),
        "level": verdict.level,
        "rules": list(verdict.rules),
        "outcome": verdict.outcome,
        "reason": verdict.reason,
        "seconds": round(verdict.seconds, 3),
        "figures": dict(verdict.figures),
        "printed": verdict.printed,
    }


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
