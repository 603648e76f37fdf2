"""Which rules can ever end.

A rule like ``a: "x" a`` spells no text at all, only the beginnings of one without an end. A compiler takes it; a
matcher that runs ahead of such forced text goes on until a limit of its own ends it, and llama.cpp then drops
the constraint.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import TypeAlias

__all__ = ["Body", "never_ending"]

Body: TypeAlias = "tuple[tuple[str | Body, ...], ...]"
"""Alternatives of what has to end for a rule to end: names of rules, and bodies within it. ``()`` never ends,
``((),)`` always does."""


def never_ending(rules: Mapping[str, Body]) -> set[str]:
    """The rules that have no end. A name that is not among the rules ends."""
    users: dict[str, set[str]] = defaultdict(set)
    for name, body in rules.items():
        for used in _names(body):
            users[used].add(name)
    open_rules = set(rules)
    pending = list(rules)
    while pending:
        name = pending.pop()
        if name in open_rules and _ends(rules[name], open_rules):
            open_rules.remove(name)
            pending += users[name]
    return open_rules


def _names(body: Body) -> Iterator[str]:
    for option in body:
        for each in option:
            if isinstance(each, str):
                yield each
            else:
                yield from _names(each)


def _ends(body: Body, open_rules: set[str]) -> bool:
    return any(
        all(each not in open_rules if isinstance(each, str) else _ends(each, open_rules) for each in option)
        for option in body
    )
