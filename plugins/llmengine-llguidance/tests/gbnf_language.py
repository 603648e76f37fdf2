"""GBNF grammars, generated: also such as spell nothing, or never end."""

from __future__ import annotations

import json
from typing import TypeAlias

from hypothesis import strategies as st

from llmengine_core.testing.gbnf import Choice, Class, Literal, Node, Repeated, Rule, Sequence

ALPHABET = "abé"
RULES = ("root", "x-1", "Y")


Grammar: TypeAlias = dict[str, Node]

_COUNTS: dict[tuple[int, int | None], str] = {
    (0, None): "*",
    (1, None): "+",
    (0, 1): "?",
    (2, 2): "{2}",
    (2, None): "{2,}",
    (0, 2): "{0,2}",
    (0, 0): "{0}",
}
_RANGES = st.lists(
    st.sampled_from(ALPHABET).map(lambda each: (each, each)), min_size=1, max_size=2, unique=True
)
_LEAVES = st.one_of(
    st.builds(Literal, st.text(ALPHABET, max_size=2)),
    st.builds(Class, _RANGES.map(tuple), st.booleans()),
    st.builds(Rule, st.sampled_from(RULES)),
)
_NODES = st.recursive(
    _LEAVES,
    lambda nodes: st.one_of(
        st.builds(Choice, st.lists(nodes, min_size=1, max_size=3).map(tuple)),
        st.builds(Sequence, st.lists(nodes, max_size=3).map(tuple)),
        st.builds(lambda inner, count: Repeated(inner, *count), nodes, st.sampled_from([*_COUNTS])),
    ),
    max_leaves=5,
)
GRAMMARS: st.SearchStrategy[Grammar] = st.fixed_dictionaries(dict.fromkeys(RULES, _NODES))


def written(grammar: Grammar) -> str:
    """The grammar as GBNF."""
    return "# a grammar\n" + "".join(
        f"{name} ::= {_written(node)} # {name}\n\n" for name, node in grammar.items()
    )


def _written(node: Node) -> str:
    match node:
        case Literal(text):
            return json.dumps(text)  # \\u escapes are GBNF's as well
        case Class(ranges, negated):
            return f"[{'^' * negated}{''.join(first for first, _ in ranges)}]"
        case Rule(name):
            return name
        case Choice(options):
            return "(" + "\n  | ".join(map(_written, options)) + ")"
        case Sequence(parts):
            return "(" + " ".join(map(_written, parts)) + ")"
        case Repeated(inner, least, most):
            return f"({_written(inner)}){_COUNTS[least, most]}"


def ends(grammar: Grammar, name: str) -> bool:
    """Whether the rule spells any text at all, however long."""
    ending: set[str] = set()
    while True:
        grown = {each for each, node in grammar.items() if _ends(node, ending)}
        if grown == ending:
            return name in ending
        ending = grown


def _ends(node: Node, ending: set[str]) -> bool:
    match node:
        case Rule(name):
            return name in ending
        case Choice(options):
            return any(_ends(option, ending) for option in options)
        case Sequence(parts):
            return all(_ends(part, ending) for part in parts)
        case Repeated(inner, least, _):
            return least == 0 or _ends(inner, ending)
        case _:
            return True
