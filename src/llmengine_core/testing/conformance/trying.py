"""The program that tries the laws of one contract, one after the other, and tells each verdict at once."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, replace
from typing import Any

from llmengine_core.testing.conformance.channel import Channel
from llmengine_core.testing.conformance.subjects import Subject, contract_of
from llmengine_core.testing.laws import Contract, Law
from llmengine_core.testing.profiles import Profile, current, hurry
from llmengine_core.testing.verdicts import closing, run_law

__all__ = ["bound", "main"]

CLOSING = 2.0
"""How many times a law's patience may pass until all is closed."""


def main() -> None:
    """Try the laws that were ordered, all where none was, and end."""
    logging.getLogger().addHandler(logging.NullHandler())
    channel = Channel()
    order = channel.order
    channel.begin("contract", order["seconds"])
    contract = contract_of(Subject.from_json(order["subject"]), order["contracts"])
    laws = contract.laws()
    chosen: list[str] = [name for name in order["laws"] or sorted(laws) if name in laws]
    channel.tell(laws=[_described(laws[name]) for name in chosen], subject=contract.subject)
    contract.setup_class()
    rest = chosen[order["from"] :]
    end = time.monotonic() + order["share"] if order["share"] is not None else None
    for done, name in enumerate(rest):
        if end is not None:
            hurry(max(0.0, end - time.monotonic()) / (len(rest) - done))
        channel.begin("law", bound(contract, laws[name], current()), law=name)
        verdict = run_law(contract, name)
        channel.tell(verdict=asdict(replace(verdict, printed=verdict.printed + channel.printed())))
    channel.begin("closing", CLOSING * contract.patience + order["seconds"])
    last = closing(contract)
    if last is not None:
        channel.tell(verdict=asdict(replace(last, printed=channel.printed())))
    channel.close()


def bound(contract: type[Contract], each: Law, profile: Profile) -> float:
    """Seconds that a law may take in all, until it counts as hung: it opens what is shared, too."""
    return 2 * contract.patience + profile.seconds * max(each.weight, 1.0) + profile.shrinking


def _described(each: Law) -> dict[str, Any]:
    return {"name": each.name, "level": each.level, "rules": each.rules, "summary": each.summary}
