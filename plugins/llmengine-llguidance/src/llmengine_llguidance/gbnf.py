"""GBNF, the grammars of llama.cpp (``root ::= "a" | [0-9]+``), rewritten as Lark.

Every character becomes a lexeme of its own. llguidance reads a longer lexeme greedily: with one for ``[a-z]*``
it could never reach the ``"b"`` in ``[a-z]* "b"``. Characters leave it nothing to be greedy about, so that the
language stays the one that the grammar spells.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from llmengine_llguidance import limits
from llmengine_llguidance.endings import Body
from llmengine_llguidance.grammars import (
    GrammarError,
    UnsupportedGrammarError,
    check_endings,
    check_size,
    position,
)
from llmengine_llguidance.pattern_parser import charset

__all__ = ["is_gbnf", "to_lark"]

_BLANK = r"(?:[ \t\r\n]|(?:#|//)[^\n]*)*+"
_FIRST_RULE = re.compile(_BLANK + r"[\w-]+[ \t]*+::=")
_SPACE = re.compile(r"(?:[ \t]|#[^\n]*)*+")
_SPACE_AND_LINES = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*+")
_CONTINUATION = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*+(?=\|)")
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_COUNTS = re.compile(r"\{\s*(\d{1,9})\s*(,?)\s*(\d{0,9})\s*\}")
_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([tnr\"\\\[\]^-]))")
_NO_CHARACTER = f"/{charset([], negated=False)}/"
_CONTROLS = {"t": "\t", "n": "\n", "r": "\r"}


@dataclass(frozen=True, slots=True)
class _Character:
    """One character, as the source of a Lark lexeme."""

    lexeme: str


@dataclass(frozen=True, slots=True)
class _Reference:
    name: str


@dataclass(frozen=True, slots=True)
class _Group:
    """Alternatives of sequences, repeated."""

    options: tuple[tuple[_Symbol, ...], ...]
    least: int = 1
    most: int | None = 1


_Symbol: TypeAlias = _Character | _Reference | _Group


def is_gbnf(grammar: str) -> bool:
    """Whether the first rule is written ``name ::=``; Lark writes ``name:``."""
    return _FIRST_RULE.match(grammar) is not None


def to_lark(grammar: str) -> str:
    """The same language in Lark. Raises ``GrammarError`` where the grammar is invalid."""
    rules = _Parser(grammar).parse()
    return _Writer(rules).write()


class _Parser:
    def __init__(self, grammar: str) -> None:
        self._grammar = grammar
        self._at = 0
        self._depth = 0
        self._deepest = 0
        self._levels = 0
        self._branches = 0
        self._references: dict[str, int] = {}

    def parse(self) -> dict[str, _Group]:
        rules: dict[str, _Group] = {}
        self._skip(_SPACE_AND_LINES)
        while self._at < len(self._grammar):
            start = self._at
            name = self._take(_NAME, "the name of a rule")[0]
            self._skip(_SPACE)
            if not self._grammar.startswith("::=", self._at):
                raise self._error(f"::= is missing after {name}")
            self._at += 3
            if name in rules:
                raise self._error(f"the rule {name} is defined again", start)
            self._deepest = 0
            rules[name] = _Group(self._alternatives(nested=False))
            self._levels += 1 + self._deepest
            if self._at < len(self._grammar) and self._grammar[self._at] not in "\r\n":
                raise self._error(f"unexpected {self._grammar[self._at]!r}")
            self._skip(_SPACE_AND_LINES)
        check_size(self._levels, self._branches)
        if "root" not in rules:
            raise GrammarError("it has no rule named root")
        for name, place in self._references.items():
            if name not in rules:
                raise self._error(f"there is no rule named {name}", place)
        check_endings({name: _body(rule) for name, rule in rules.items()})
        return rules

    def _error(self, reason: str, place: int | None = None) -> GrammarError:
        return GrammarError(reason, *position(self._grammar, self._at if place is None else place))

    def _skip(self, pattern: re.Pattern[str]) -> None:
        found = pattern.match(self._grammar, self._at)
        self._at = found.end() if found else self._at

    def _take(self, pattern: re.Pattern[str], expected: str) -> re.Match[str]:
        found = pattern.match(self._grammar, self._at)
        if found is None:
            raise self._error(f"{expected} is missing")
        self._at = found.end()
        return found

    def _alternatives(self, *, nested: bool) -> tuple[tuple[_Symbol, ...], ...]:
        self._skip(_SPACE_AND_LINES)
        options = [self._sequence(nested=nested)]
        while True:
            self._skip(_CONTINUATION)
            if not self._grammar.startswith("|", self._at):
                return tuple(options)
            self._at += 1
            self._branches += 1
            self._skip(_SPACE_AND_LINES)
            options.append(self._sequence(nested=nested))

    def _sequence(self, *, nested: bool) -> tuple[_Symbol, ...]:
        symbols: list[_Symbol] = []
        while self._at < len(self._grammar) and self._grammar[self._at] not in "|)\r\n":
            symbols.append(self._repeated(self._symbol()))
            self._skip(_SPACE_AND_LINES if nested else _SPACE)
        return tuple(symbols)

    def _symbol(self) -> _Symbol:
        start = self._grammar[self._at]
        if start == '"':
            return self._literal()
        if start == "[":
            return self._class()
        if start == "(":
            return self._parenthesis()
        if start == ".":
            self._at += 1
            return _Character("/(?s:.)/")
        if start in "<!@%":
            place = position(self._grammar, self._at)
            raise UnsupportedGrammarError(f"{start} (a token or an extension) can't be enforced", *place)
        opened = self._at
        name = self._take(_NAME, "a string, a class, a rule or a group")[0]
        self._references.setdefault(name, opened)
        return _Reference(name)

    def _parenthesis(self) -> _Group:
        opened = self._at
        self._at += 1
        self._depth += 1
        self._deepest = max(self._deepest, self._depth)
        if self._depth > limits.GRAMMAR_DEPTH:
            raise self._error(f"more than {limits.GRAMMAR_DEPTH} parentheses within each other")
        options = self._alternatives(nested=True)
        self._depth -= 1
        if not self._grammar.startswith(")", self._at):
            raise self._error("a ( is never closed", opened)
        self._at += 1
        return _Group(options)

    def _repeated(self, symbol: _Symbol) -> _Symbol:
        self._skip(_SPACE)
        repetition = self._grammar[self._at : self._at + 1]
        if repetition and repetition in "*+?":
            self._at += 1
            return _Group(((symbol,),), int(repetition == "+"), 1 if repetition == "?" else None)
        if repetition != "{":
            return symbol
        counts = self._take(_COUNTS, "{n}, {n,} or {n,m}")
        least = int(counts[1])
        most = (int(counts[3]) if counts[3] else None) if counts[2] else least
        if (most is not None and most < least) or max(least, most or 0) > limits.REPETITIONS:
            raise self._error(
                f"{counts[0]} is not from a smaller to a larger number up to {limits.REPETITIONS}"
            )
        return _Group(((symbol,),), least, most)

    def _character(self, what: str) -> str:
        """One character of a string or a class, escaped or not."""
        char = self._grammar[self._at : self._at + 1]
        if char == "" or char in "\r\n":
            raise self._error(f"{what} is never closed")
        if char != "\\":
            self._at += 1
            return char
        escape = self._take(_ESCAPE, '\\t \\n \\r \\\\ \\" \\[ \\] \\xHH \\uHHHH or \\UHHHHHHHH')
        if escape[4]:
            return _CONTROLS.get(escape[4], escape[4])
        code = int(escape[1] or escape[2] or escape[3], 16)
        if 0xD800 <= code <= 0xDFFF or code > 0x10FFFF:
            raise self._error(f"U+{code:04X} is no character")
        return chr(code)

    def _literal(self) -> _Group:
        self._at += 1
        symbols: list[_Symbol] = []
        while not self._grammar.startswith('"', self._at):
            char = self._character("a string")
            symbols.append(_Character(json.dumps(char, ensure_ascii=False).replace("\x7f", "\\u007f")))
        self._at += 1
        return _Group((tuple(symbols),))

    def _class(self) -> _Character:
        self._at += 1
        negated = self._grammar.startswith("^", self._at)
        self._at += negated
        ranges: list[tuple[int, int]] = []
        while not self._grammar.startswith("]", self._at):
            low = high = self._character("a class")
            if self._grammar.startswith("-", self._at) and not self._grammar.startswith("-]", self._at):
                self._at += 1
                high = self._character("a class")
            if high < low:
                raise self._error(f"the range from {low!r} to {high!r} is empty")
            ranges.append((ord(low), ord(high)))
        self._at += 1
        return _Character(f"/{charset(ranges, negated=negated)}/")


@dataclass
class _Writer:
    rules: dict[str, _Group]
    _names: dict[str, str] = field(default_factory=dict)
    _lines: list[str] = field(default_factory=list)

    def write(self) -> str:
        self._names = {name: f"r{number}" for number, name in enumerate(self.rules)}
        lines = [f"start: {self._names['root']}"]
        for name, body in self.rules.items():
            lines.append(f"{self._names[name]}: {self._options(_without_tail_recursion(name, body).options)}")
        return "\n".join([*lines, *self._lines]) + "\n"

    def _options(self, options: tuple[tuple[_Symbol, ...], ...]) -> str:
        return " | ".join(" ".join(map(self._symbol, option)) or '""' for option in options)

    def _symbol(self, symbol: _Symbol) -> str:
        if isinstance(symbol, _Reference):
            return self._names[symbol.name]
        if isinstance(symbol, _Character):
            return symbol.lexeme
        if symbol.most == 0:
            return '""'
        most = "" if symbol.most is None else symbol.most
        bounds = "" if (symbol.least, symbol.most) == (1, 1) else f"{{{symbol.least},{most}}}"
        inner = self._options(symbol.options)
        alone = len(symbol.options) == 1 and len(symbol.options[0]) == 1
        if (alone and not isinstance(symbol.options[0][0], _Group)) or (
            not bounds and len(symbol.options) == 1
        ):
            return inner + bounds
        name = (
            f"g{len(self._lines)}"  # a rule of its own: the compiler takes few parentheses within each other
        )
        self._lines.append(f"{name}: {inner}")
        return name + bounds


def _without_tail_recursion(name: str, rule: _Group) -> _Group:
    """``a ::= x a | y`` as ``a ::= x* y``: each turn of a tail recursion is one more reading to keep in mind."""
    again: list[tuple[_Symbol, ...]] = []
    final: list[tuple[_Symbol, ...]] = []
    for option in _alternatives(rule):
        if (
            option
            and option[-1] == _Reference(name)
            and not any(_mentions(each, name) for each in option[:-1])
        ):
            again.append(option[:-1])
        elif any(_mentions(each, name) for each in option):
            return rule
        else:
            final.append(option)
    if not again or not final:
        return rule
    return _Group(((_Group(tuple(again), 0, None), _Group(tuple(final))),))


def _alternatives(group: _Group) -> Iterator[tuple[_Symbol, ...]]:
    """The options of a group, those of a lone group within it brought out: ``(x a | y)?`` is three."""
    for option in group.options:
        if len(option) == 1 and isinstance(option[0], _Group) and option[0].most == 1:
            yield from _alternatives(option[0])
            if option[0].least == 0:
                yield ()
        else:
            yield option


def _body(group: _Group) -> Body:
    """What has to end for the group to end."""
    if group.least == 0 or group.most == 0:
        return ((),)
    return tuple(tuple(_end(symbol) for symbol in option) for option in group.options)


def _end(symbol: _Symbol) -> str | Body:
    if isinstance(symbol, _Character):
        return () if symbol.lexeme == _NO_CHARACTER else ((),)
    return symbol.name if isinstance(symbol, _Reference) else _body(symbol)


def _mentions(symbol: _Symbol, name: str) -> bool:
    if isinstance(symbol, _Group):
        return any(_mentions(each, name) for option in symbol.options for each in option)
    return symbol == _Reference(name)
