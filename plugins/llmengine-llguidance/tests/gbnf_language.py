"""GBNF grammars, generated, with the language that each spells: worked out by hand, from short texts to longer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TypeAlias

from hypothesis import strategies as st

ALPHABET = "abé"
LONGEST = 4
RULES = ("root", "x-1", "Y")


@dataclass(frozen=True)
class Literal:
    text: str


@dataclass(frozen=True)
class Class:
    chars: frozenset[str]
    negated: bool


@dataclass(frozen=True)
class Rule:
    name: str


@dataclass(frozen=True)
class Choice:
    options: tuple[Node, ...]


@dataclass(frozen=True)
class Sequence:
    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Repeated:
    inner: Node
    least: int
    most: int | None
    written: str


Node: TypeAlias = Literal | Class | Rule | Choice | Sequence | Repeated
Grammar: TypeAlias = dict[str, Node]

_COUNTS = [
    (0, None, "*"),
    (1, None, "+"),
    (0, 1, "?"),
    (2, 2, "{2}"),
    (1, None, "{1,}"),
    (0, 2, "{0,2}"),
    (0, 0, "{0}"),
]
_LEAVES = st.one_of(
    st.builds(Literal, st.text(ALPHABET, max_size=2)),
    st.builds(Class, st.frozensets(st.sampled_from(ALPHABET), min_size=1, max_size=2), st.booleans()),
    st.builds(Rule, st.sampled_from(RULES)),
)
_NODES = st.recursive(
    _LEAVES,
    lambda nodes: st.one_of(
        st.builds(Choice, st.lists(nodes, min_size=1, max_size=3).map(tuple)),
        st.builds(Sequence, st.lists(nodes, max_size=3).map(tuple)),
        st.builds(lambda inner, count: Repeated(inner, *count), nodes, st.sampled_from(_COUNTS)),
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
        case Class(chars, negated):
            return f"[{'^' * negated}{''.join(sorted(chars))}]"
        case Rule(name):
            return name
        case Choice(options):
            return "(" + "\n  | ".join(map(_written, options)) + ")"
        case Sequence(parts):
            return "(" + " ".join(map(_written, parts)) + ")"
        case Repeated(inner, _, _, count):
            return f"({_written(inner)}){count}"


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
        case Repeated(inner, least, _, _):
            return least == 0 or _ends(inner, ending)
        case _:
            return True


def language(grammar: Grammar) -> set[str]:
    """All texts of the grammar over ALPHABET that are no longer than LONGEST."""
    known: dict[str, set[str]] = {name: set() for name in grammar}
    while True:
        grown = {name: _texts(node, known) for name, node in grammar.items()}
        if grown == known:
            return known["root"]
        known = grown


def _texts(node: Node, known: dict[str, set[str]]) -> set[str]:
    match node:
        case Literal(text):
            return {text}
        case Class(chars, negated):
            return set(ALPHABET) - chars if negated else set(chars)
        case Rule(name):
            return known[name]
        case Choice(options):
            return set().union(*(_texts(option, known) for option in options))
        case Sequence(parts):
            texts = {""}
            for part in parts:
                texts = _joined(texts, _texts(part, known))
            return texts
        case Repeated(inner, least, most, _):
            once = _texts(inner, known)
            turns = {""}
            texts = {""} if least == 0 else set()
            for turn in range(1, (LONGEST + least if most is None else most) + 1):
                turns = _joined(turns, once)
                texts |= turns if turn >= least else set()
            return texts


def _joined(starts: set[str], ends: set[str]) -> set[str]:
    return {start + end for start in starts for end in ends if len(start + end) <= LONGEST}
