"""Regular expressions, read once and written in the part of the Rust syntax that every llguidance reads alike.

The dialects agree on most of what people write and silently differ on the rest: ``[[a]b]`` is a nested class
in Rust and two literals elsewhere, ``a*+`` is possessive in Python, ``.`` spans carriage returns or doesn't,
``\\d`` is ASCII in ECMAScript only. Here every construct is resolved before the compiler sees it, and what
can't be resolved is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeGuard

from llmengine_llguidance import limits
from llmengine_llguidance.pattern_parser import (
    COMPANION,
    Anchor,
    Atom,
    Flavour,
    Group,
    Node,
    PatternError,
    UnsupportedPatternError,
    parse,
)

__all__ = ["COMPANION", "Flavour", "PatternError", "UnsupportedPatternError", "translate"]

_ANYTHING = Group(((Atom("(?s:.)"),),), least=0, most=None)
_SPREAD = 64
"""Alternatives that may come of anchors within groups, as in ``(^|,)x(,|$)``."""


def translate(pattern: str, flavour: Flavour) -> str:
    """The pattern as Rust source that matches whole texts; of printable ASCII without ``/`` and quotes.

    Raises ``PatternError`` where it is invalid, ``UnsupportedPatternError`` where it can't be enforced.
    """
    whole = parse(pattern, flavour)
    positions = _positions(whole)
    if positions > limits.PATTERN_POSITIONS:
        raise UnsupportedPatternError(
            f"its repetitions spell more than the {limits.PATTERN_POSITIONS:,} characters that are taken"
        )
    padding = () if flavour is Flavour.WHOLE else (_ANYTHING,)
    options = []
    for option in _spread_all(whole.options):
        start = 1 if option and option[0] == Anchor(at_start=True) else 0
        end = len(option) - (1 if len(option) > start and option[-1] == Anchor(at_start=False) else 0)
        body = option[start:end]
        if any(_is_anchored(node) for node in body):
            raise UnsupportedPatternError("^ and $ can be enforced at the ends of a pattern only")
        options.append((*(() if start else padding), *body, *(() if end < len(option) else padding)))
    return _write(Group(tuple(options), ignores_case=whole.ignores_case)) or "(?:)"


def _positions(node: Node) -> int:
    """How many characters the node spells once its counted repetitions are written out."""
    if isinstance(node, Group):
        once = sum(_positions(each) for option in node.options for each in option)
        return once * max(node.least, node.most or 1, 1)
    return int(isinstance(node, Atom))


def _is_anchored(node: Node) -> bool:
    if isinstance(node, Group):
        return any(_is_anchored(each) for option in node.options for each in option)
    return isinstance(node, Anchor)


def _spread_all(options: Sequence[tuple[Node, ...]]) -> list[tuple[Node, ...]]:
    spread: list[tuple[Node, ...]] = []
    for option in options:
        for each in _spread(option):
            spread.append(each)
            if len(spread) > max(_SPREAD, len(options)):
                raise UnsupportedPatternError("it has too many groups with ^ or $ in them to enforce")
    return spread


def _spread(option: tuple[Node, ...]) -> Iterator[tuple[Node, ...]]:
    """The sequence with the anchors inside its first and its last group brought out to its ends."""
    while len(option) > 1 and isinstance(option[0], Anchor) and option[0] == option[1]:
        option = option[1:]
    while len(option) > 1 and isinstance(option[-1], Anchor) and option[-1] == option[-2]:
        option = option[:-1]
    if option and _opens(option[0]):
        for inner in option[0].options:
            yield from _spread((*inner, *option[1:]))
    elif option and _opens(option[-1]):
        for inner in option[-1].options:
            yield from _spread((*option[:-1], *inner))
    else:
        yield option


def _opens(node: Node) -> TypeGuard[Group]:
    return (
        isinstance(node, Group)
        and (node.least, node.most) == (1, 1)
        and not node.ignores_case
        and _is_anchored(node)
    )


def _write(node: Node) -> str:
    if isinstance(node, Atom):
        return node.source
    assert isinstance(node, Group)
    texts = ["".join(_write(each) for each in option) for option in node.options]
    bounds = _write_bounds(node.least, node.most)
    alone = len(node.options) == 1 and len(node.options[0]) == 1 and isinstance(node.options[0][0], Atom)
    if node.ignores_case:
        return f"(?i:{'|'.join(texts)}){bounds}"
    if (not bounds and len(texts) == 1) or alone:
        return texts[0] + bounds
    return f"(?:{'|'.join(texts)}){bounds}"


def _write_bounds(least: int, most: int | None) -> str:
    if most is None:
        return {0: "*", 1: "+"}.get(least, f"{{{least},}}")
    if (least, most) in ((1, 1), (0, 1)):
        return "?" if least == 0 else ""
    return f"{{{least}}}" if least == most else f"{{{least},{most}}}"
