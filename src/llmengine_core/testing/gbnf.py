"""GBNF read by hand, and texts judged by a naive chart: slow, plain, and nobody else's code."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

__all__ = [
    "Choice",
    "Class",
    "Literal",
    "Node",
    "Repeated",
    "Rule",
    "Sequence",
    "begins",
    "is_gbnf",
    "matches",
    "read",
]


@dataclass(frozen=True, slots=True)
class Literal:
    """A text."""

    text: str


@dataclass(frozen=True, slots=True)
class Class:
    """One character: of these, or of all others. Ranges are their first and last."""

    ranges: tuple[tuple[str, str], ...]
    negated: bool = False

    def holds(self, character: str) -> bool:
        return any(first <= character <= last for first, last in self.ranges) != self.negated


@dataclass(frozen=True, slots=True)
class Rule:
    """What another rule spells."""

    name: str


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several."""

    options: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Sequence:
    """All, one after the other."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeated:
    """One thing several times; ``most`` None is without end."""

    inner: Node
    least: int
    most: int | None


Node: TypeAlias = Literal | Class | Rule | Choice | Sequence | Repeated

_TOKEN = re.compile(
    r"""(?P<blank>(?:[ \t\r\n]|\#[^\n]*)+)|(?P<define>[A-Za-z0-9_-]+[ \t]*::=)|(?P<name>[A-Za-z0-9_-]+)"""
    r"""|"(?P<text>(?:\\.|[^"\\\n])*)"|\[(?P<class>\^?(?:\\.|[^\]\\])*)\]"""
    r"""|\{(?P<count>[0-9]+(?:,[0-9]*)?)\}|(?P<mark>[|()*+?.])""",
    re.VERBOSE,
)
_CHARACTER = re.compile(
    r"\\x([0-9A-Fa-f]{2})|\\u([0-9A-Fa-f]{4})|\\U([0-9A-Fa-f]{8})|\\(.)|([^\\])", re.DOTALL
)
_NAMED = {"n": "\n", "t": "\t", "r": "\r"}
_COUNTS: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}


def is_gbnf(grammar: str) -> bool:
    """Whether its first rule is written as GBNF's are."""
    return re.match(r"(?:\s|#[^\n]*|//[^\n]*)*[\w-]+\s*::=", grammar) is not None


def matches(grammar: str, text: str) -> bool:
    """Whether ``root`` spells the whole text. Raises ``ValueError`` where the grammar is none."""
    return _Chart(read(grammar), text).whole


def begins(grammar: str, text: str) -> bool:
    """Whether ``root`` spells a text that begins so; each rule of the grammar must spell some text."""
    chart = _Chart(read(grammar), text)
    return chart.whole or chart.alive


class _Chart:
    """Where each rule may end, by where it begins: worked out until nothing is added."""

    def __init__(self, rules: dict[str, Node], text: str) -> None:
        self._text = text
        self._known: dict[tuple[str, int], set[int]] = {("root", 0): set()}
        self.alive = False
        """Something more may follow the text."""
        while True:  # a rule may hold itself anywhere
            before = {key: set(found) for key, found in self._known.items()}
            for name, start in before:
                self._known[name, start] |= self._ends(rules[name], {start})
            if self._known == before:
                break
        self.whole = len(text) in self._known["root", 0]

    def _ends(self, node: Node, starts: set[int]) -> set[int]:
        """Where ``node`` may end that begins at one of ``starts``, as far as is known."""
        text = self._text
        match node:
            case Literal(wanted):
                self.alive |= any(
                    len(text) - each < len(wanted) and wanted.startswith(text[each:]) for each in starts
                )
                return {each + len(wanted) for each in starts if text.startswith(wanted, each)}
            case Class():
                self.alive |= len(text) in starts
                return {each + 1 for each in starts if each < len(text) and node.holds(text[each])}
            case Rule(name):
                return {end for each in starts for end in self._known.setdefault((name, each), set())}
            case Choice(options):
                return {end for option in options for end in self._ends(option, starts)}
            case Sequence(parts):
                for part in parts:
                    starts = self._ends(part, starts)
                return starts
            case Repeated(inner, least, most):
                found = set(starts) if least == 0 else set()
                seen: set[int] = set()
                turn = 0
                while starts and (most is None or turn < most) and not (turn >= least and starts <= seen):
                    seen |= starts if turn >= least else set()
                    turn += 1
                    starts = self._ends(inner, starts)
                    found |= starts if turn >= least else set()
                return found


@lru_cache(64)
def read(grammar: str) -> dict[str, Node]:
    """The rules of a grammar. Raises ``ValueError`` where it is none."""
    tokens: list[tuple[str, str]] = []
    place = 0
    while place < len(grammar):
        token = _TOKEN.match(grammar, place)
        if token is None:
            raise ValueError(f"no GBNF at character {place + 1}: {grammar[place : place + 20]!r}")
        place = token.end()
        kind = token.lastgroup or ""
        if kind != "blank":
            tokens.append((kind, token[kind]))
    rules: dict[str, Node] = {}
    while tokens:
        kind, name = tokens.pop(0)
        if kind != "define":
            raise ValueError(f"a rule begins with its name and ::=, not with {name!r}")
        rules[name.removesuffix("::=").rstrip()] = _choice(tokens)
    _each(rules, lambda name: name in rules)
    return rules


def _each(rules: dict[str, Node], known: Callable[[str], bool]) -> None:
    """See that every rule that is named is there, ``root`` among them."""
    left: list[Node] = [Rule("root"), *rules.values()]
    while left:
        match left.pop():
            case Rule(name) if not known(name):
                raise ValueError(f"there is no rule {name}")
            case Choice(inner) | Sequence(inner):
                left += inner
            case Repeated(inner, _, _):
                left.append(inner)


def _choice(tokens: list[tuple[str, str]]) -> Node:
    options = [_sequence(tokens)]
    while tokens and tokens[0] == ("mark", "|"):
        tokens.pop(0)
        options.append(_sequence(tokens))
    return options[0] if len(options) == 1 else Choice(tuple(options))


def _sequence(tokens: list[tuple[str, str]]) -> Node:
    parts: list[Node] = []
    while tokens and tokens[0][0] != "define" and tokens[0] not in (("mark", "|"), ("mark", ")")):
        kind, value = tokens.pop(0)
        if kind == "count" or (value in _COUNTS and kind == "mark"):
            if not parts:
                raise ValueError(f"{value} repeats nothing")
            least, most = _counted(value)
            parts.append(Repeated(parts.pop(), least, most))
        elif kind == "mark" and value == "(":
            parts.append(_choice(tokens))
            if not tokens or tokens.pop(0) != ("mark", ")"):
                raise ValueError("a ( is never closed")
        elif kind == "mark":
            parts.append(Class((), negated=True))
        elif kind == "text":
            parts.append(Literal("".join(_characters(value))))
        elif kind == "class":
            parts.append(_class(value))
        else:
            parts.append(Rule(value))
    return parts[0] if len(parts) == 1 else Sequence(tuple(parts))


def _counted(value: str) -> tuple[int, int | None]:
    if value in _COUNTS:
        return _COUNTS[value]
    least, comma, most = value.partition(",")
    return int(least), int(most) if most else None if comma else int(least)


def _characters(spelled: str) -> list[str]:
    found = []
    for each in _CHARACTER.finditer(spelled):
        number = each[1] or each[2] or each[3]
        found.append(chr(int(number, 16)) if number else each[5] or _NAMED.get(each[4], each[4]))
    return found


def _class(spelled: str) -> Class:
    negated = spelled.startswith("^")
    pieces = [each[0] for each in _CHARACTER.finditer(spelled.removeprefix("^"))]
    ranges = []
    while pieces:
        (first,) = last = _characters(pieces.pop(0))
        if len(pieces) > 1 and pieces[0] == "-":
            pieces.pop(0)
            last = _characters(pieces.pop(0))
        ranges.append((first, last[0]))
    return Class(tuple(ranges), negated)
