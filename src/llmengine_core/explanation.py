"""Plans in words: in brief for errors, in full for `llmengine explain`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from llmengine_core.errors import ResolutionError
from llmengine_core.locations import shown
from llmengine_core.types.plan import Candidate, CheckpointFacts, Plan, RuleResult, Verdict

__all__ = ["explain", "resolution_error", "summarize"]

WIDEST = 60
"""Characters; the mends of facts up to this width stand in one column."""


def resolution_error(plan: Plan) -> ResolutionError:
    """The error of a plan in which nothing fits; it names every candidate with its reasons and mends."""
    return ResolutionError(summarize(plan), plan=plan)


def summarize(plan: Plan) -> str:
    """A plan in one line for each candidate, under one that says what came of it."""
    lines = [_line(each, plan) for each in plan.candidates]
    if problem := plan.checkpoint.problem:
        lines.insert(0, ("weights", problem.message, problem.mend))
    if not plan.candidates:
        lines.append(("no backend", "no plugin registers one", "python -m pip install llmengine"))
    return "\n".join([f"{_heading(plan)}:", *_in_columns(lines)])


def explain(plan: Plan) -> str:
    """A plan with every candidate and every rule that it was held against."""
    problem = plan.checkpoint.problem
    about = [("weights", _weights(plan.checkpoint), problem.mend if problem else None)]
    if plan.adapter is not None:
        about.append(("adapter", _weights(plan.adapter), None))
    if plan.choice:
        about += [(what, how, None) for what, how in _carrying_out(plan.choice)]
        about.append(("chosen", plan.why, None))
    about += [("note", note, None) for note in plan.notes]
    lines = [_heading(plan), *_in_columns(about)]
    for each in plan.candidates:
        state = "chosen" if each is plan.choice else "fits" if each.fits else "does not fit"
        lines += ["", f"{_title(each)}: {state}", *_in_columns(_rule_lines(each.rules))]
    return "\n".join(lines)


def _carrying_out(choice: Candidate) -> Iterator[tuple[str, str]]:
    """What is done to the weights first, and where the engine then runs, with what beside it."""
    for step in choice.transforms:
        yield "transform", f"{step.method or step.target_format}, by {step.transform}"
    if choice.environment is not None and choice.environment.name:
        yield "environment", choice.environment.name
    if choice.quantizer is not None:
        yield "quantizer", choice.quantizer
    if choice.masker is not None:
        yield "masker", choice.masker


def _heading(plan: Plan) -> str:
    asked = {"inference_framework": plan.framework, **plan.asked}
    given = (f"{field}={value if value.isdigit() else repr(value)}" for field, value in asked.items())
    wanted = f"{plan.model!r} with {', '.join(given)}"
    return f"{_title(plan.choice)} serves {wanted}" if plan.choice else f"nothing here can serve {wanted}"


def _title(candidate: Candidate) -> str:
    return f"{candidate.name} {candidate.version or ''}".rstrip()


def _line(candidate: Candidate, plan: Plan) -> tuple[str, str, str | None]:
    """A candidate's name, what is to say of it, and what would mend it."""
    if candidate is plan.choice:
        return candidate.name, "chosen", None
    if candidate.fits:
        return candidate.name, "fits too, but comes after it", None
    reasons = [rule for rule in candidate.rules if rule.verdict is Verdict.FAILED]
    shared = plan.checkpoint.problem  # told once, for all
    own = [rule for rule in reasons if rule.rule != "checkpoint" or shared is None]
    unasked = [rule for rule in own if rule.rule == "framework"]
    others = [rule for rule in own if rule.rule != "framework"]
    facts = "; ".join(rule.fact for rule in others)
    if unasked:
        would = (
            f"would fail: {facts}" if others else "would fit" if shared is None else "would fit with weights"
        )
        return candidate.name, f"{unasked[0].fact}; {would}", None if others else unasked[0].mend
    return candidate.name, facts or "fits, but for the weights", _joined(rule.mend for rule in others)


def _rule_lines(rules: Iterable[RuleResult]) -> Iterator[tuple[str, str, str | None]]:
    for rule in rules:
        yield f"{rule.verdict:7}  {rule.rule:12}", rule.fact, rule.mend


def _joined(mends: Iterable[str | None]) -> str | None:
    return " and ".join(dict.fromkeys(mend for mend in mends if mend)) or None


def _in_columns(lines: Iterable[tuple[str, str, str | None]]) -> list[str]:
    """Names, facts and mends, indented and in columns."""
    rows = list(lines)
    names = max((len(name) for name, _, _ in rows), default=0)
    facts = max((len(fact) for _, fact, mend in rows if mend and len(fact) <= WIDEST), default=0)
    return [
        f"  {name:{names}}  {fact:{facts}}     mend: {mend}" if mend else f"  {name:{names}}  {fact}".rstrip()
        for name, fact, mend in rows
    ]


def _weights(checkpoint: CheckpointFacts) -> str:
    if checkpoint.problem:
        return checkpoint.problem.message
    said = [
        checkpoint.format or "of a format that is not known yet",
        checkpoint.architecture,
        checkpoint.quantization,
        f"{checkpoint.size:,} bytes" if checkpoint.size is not None else None,
        f"{checkpoint.parameters:,} parameters" if checkpoint.parameters is not None else None,
        f"context of {checkpoint.context_length:,} tokens" if checkpoint.context_length is not None else None,
        f"trained on {checkpoint.base!r}" if checkpoint.base is not None else None,
    ]
    return f"{checkpoint.path or shown(checkpoint.url)} ({', '.join(part for part in said if part)})"
