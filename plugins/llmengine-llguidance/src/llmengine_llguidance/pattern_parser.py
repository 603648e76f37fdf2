"""The syntax of regular expressions: a recursive descent, its depth bounded by ``limits.PATTERN_DEPTH``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

from llmengine_llguidance import limits

__all__ = [
    "COMPANION",
    "Anchor",
    "Atom",
    "Flavour",
    "Group",
    "Node",
    "PatternError",
    "UnsupportedPatternError",
    "charset",
    "parse",
    "write_character",
]


class PatternError(Exception):
    """The pattern is not a regular expression; the message says where."""


class UnsupportedPatternError(PatternError):
    """The pattern is valid, but no automaton can enforce it, or the dialects don't agree on it."""


class Flavour(Enum):
    """Whose reading decides, and whether the whole text has to match or any part of it."""

    WHOLE = "Python and Rust, the whole text"
    SEARCH = "ECMAScript as in JSON Schema, any part of the text"


@dataclass(frozen=True, slots=True)
class Atom:
    """One character out of a set, as Rust source."""

    source: str


@dataclass(frozen=True, slots=True)
class Anchor:
    """``^`` or ``$``."""

    at_start: bool


@dataclass(frozen=True, slots=True)
class Group:
    """Alternatives of sequences, repeated."""

    options: tuple[tuple[Node, ...], ...]
    least: int = 1
    most: int | None = 1
    ignores_case: bool = False


Node: TypeAlias = Atom | Anchor | Group

# What a shorthand stands for in JSON Schema: what all readings of it count in, and what any of them does.
# The narrow reading is the safe one, except where the set is negated.
_SPACES = r"\x{9}-\x{D}\x{20}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}"
_NARROW = {"d": "0-9", "w": "0-9A-Za-z_", "s": _SPACES}
_WIDE = {
    "d": r"\p{Nd}",
    "w": r"\p{L}\p{N}\p{M}\p{Pc}",
    "s": _SPACES + r"\x{1C}-\x{1F}\x{85}\x{FEFF}",
}
_LINE_ENDS = {Flavour.WHOLE: r"[^\x{A}]", Flavour.SEARCH: r"[^\x{A}\x{D}\x{2028}\x{2029}]"}
_CONTROLS = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13}
_REFUSED_GROUPS = {
    "?=": "a look-ahead",
    "?!": "a look-ahead",
    "?<=": "a look-behind",
    "?<!": "a look-behind",
    "?>": "an atomic group",
    "?P=": "a backreference",
    "?(": "a conditional",
    "?#": "a comment",
}
_COUNTS = re.compile(r"\{(\d+)(,?)(\d*)\}")
_OPEN_COUNTS = re.compile(r"\{,\d*\}")
_PROPERTY = re.compile(r"\\([pP])(?:\{([A-Za-z0-9_ =:-]{1,64})\}|([A-Z]))")
_NAME = re.compile(r"\?P?<([^\W\d]\w*)>")
_INLINE = re.compile(r"\(?\?([a-zA-Z]*)(-?)[a-zA-Z]*([:)])")
_HEXADECIMAL = re.compile(
    r"\\(?:[xu]\{([0-9A-Fa-f]{1,6})\}|x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8}))"
)
_LOW_SURROGATE = re.compile(r"\\u([dD][c-fC-F][0-9A-Fa-f]{2})")


COMPANION: Final = r"\x{FDD0}"
"""A noncharacter that stands beside every character that JSON escapes, in patterns that are searched for.

llguidance 1.0 loses what follows such a character where it stands alone. Texts must not hold the companion.
"""


def write_character(code: int) -> str:
    """Rust source, in a class or outside, for one code point."""
    text = chr(code)
    return text if text.isascii() and text.isalnum() else f"\\x{{{code:X}}}"


def charset(ranges: list[tuple[int, int]], *, negated: bool) -> str:
    """Rust source for one character in (or, ``negated``, not in) these inclusive ranges of code points."""
    if not ranges:
        return "(?s:.)" if negated else r"[^\x{0}-\x{10FFFF}]"
    inside = (f"{write_character(low)}-{write_character(high)}" for low, high in ranges)
    return f"[{'^' if negated else ''}{''.join(inside)}]"


def parse(pattern: str, flavour: Flavour) -> Group:
    """The pattern's tree.

    Raises ``PatternError`` where it is invalid, ``UnsupportedPatternError`` where it can't be enforced.
    """
    if len(pattern) > limits.PATTERN_CHARACTERS:
        raise UnsupportedPatternError(f"it has more than {limits.PATTERN_CHARACTERS:,} characters")
    return _Parser(pattern, flavour).parse()


class _Parser:
    def __init__(self, pattern: str, flavour: Flavour) -> None:
        self._pattern = pattern
        self._flavour = flavour
        self._at = 0
        self._depth = 0
        self._dot_is_all = False
        self._names: set[str] = set()

    def parse(self) -> Group:
        inline = _INLINE.match(self._pattern)
        ignores_case = False
        if inline and self._peek("(?") and inline[3] == ")":
            ignores_case = self._set_flags(inline)
        options = self._alternatives()
        if self._at < len(self._pattern):
            raise self._invalid("a ) closes nothing")
        return Group(options, ignores_case=ignores_case)

    def _invalid(self, reason: str) -> PatternError:
        return PatternError(f"{reason} at character {self._at + 1}")

    def _unsupported(self, construct: str, mend: str = "") -> UnsupportedPatternError:
        return UnsupportedPatternError(f"{construct} at character {self._at + 1} can't be enforced{mend}")

    def _peek(self, text: str) -> bool:
        return self._pattern.startswith(text, self._at)

    def _next(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _alternatives(self) -> tuple[tuple[Node, ...], ...]:
        options = [self._sequence()]
        while self._peek("|"):
            self._at += 1
            options.append(self._sequence())
        return tuple(options)

    def _sequence(self) -> tuple[Node, ...]:
        nodes: list[Node] = []
        while self._next() and self._next() not in "|)":
            nodes.append(self._repeated(self._node()))
        return tuple(nodes)

    def _node(self) -> Node:
        start = self._next()
        if start == "(":
            return self._group()
        if start == "[":
            return Atom(self._class())
        if start == "\\":
            return self._escape()
        if start in "*+?" or _COUNTS.match(self._pattern, self._at):
            raise self._invalid(f"{start} repeats nothing")
        if _OPEN_COUNTS.match(self._pattern, self._at):
            raise self._unsupported("a repetition without a lower bound", "; write {0,…}")
        self._at += 1
        if start in "^$":
            return Anchor(at_start=start == "^")
        if start == ".":
            return Atom("(?s:.)" if self._dot_is_all else _LINE_ENDS[self._flavour])
        return Atom(self._literal(self._scalar(ord(start))))

    def _literal(self, code: int) -> str:
        return (
            f"[{write_character(code)}{COMPANION}]" if self._needs_companion(code) else write_character(code)
        )

    def _needs_companion(self, code: int) -> bool:
        return self._flavour is Flavour.SEARCH and (code < 0x20 or code in (0x22, 0x5C, 0x7F))

    def _repeated(self, node: Node) -> Node:
        counts = _COUNTS.match(self._pattern, self._at)
        if counts:
            least, most = self._bounds(counts)
            self._at = counts.end()
        elif self._next() and self._next() in "*+?":
            least = int(self._next() == "+")
            most = 1 if self._next() == "?" else None
            self._at += 1
        else:
            return node
        if isinstance(node, Anchor):
            raise self._invalid("an anchor is repeated")
        if self._peek("+"):
            raise self._unsupported("a possessive repetition")
        if self._peek("?"):
            self._at += 1  # laziness chooses among matches; the texts that match are the same
        if (self._next() and self._next() in "*+?") or _COUNTS.match(self._pattern, self._at):
            raise self._invalid("a repetition is repeated")
        return Group(((node,),), least=least, most=most)

    def _bounds(self, counts: re.Match[str]) -> tuple[int, int | None]:
        if max(len(counts[1]), len(counts[3])) > len(str(limits.REPETITIONS)):
            raise self._unsupported(f"a repetition over {limits.REPETITIONS}")
        least = int(counts[1])
        most = (int(counts[3]) if counts[3] else None) if counts[2] else least
        if max(least, most or 0) > limits.REPETITIONS:
            raise self._unsupported(f"a repetition over {limits.REPETITIONS}")
        if most is not None and most < least:
            raise self._invalid(f"{counts[0]} ends before it begins")
        return least, most

    def _group(self) -> Group:
        opened, dot_was_all = self._at, self._dot_is_all
        self._at += 1
        ignores_case = self._peek("?") and self._extension()
        self._depth += 1
        if self._depth > limits.PATTERN_DEPTH:
            raise self._unsupported(f"more than {limits.PATTERN_DEPTH} groups within groups")
        options = self._alternatives()
        self._depth -= 1
        self._dot_is_all = dot_was_all
        if not self._peek(")"):
            self._at = opened
            raise self._invalid("a ( is never closed")
        self._at += 1
        return Group(options, ignores_case=ignores_case)

    def _extension(self) -> bool:
        """What follows ``(?``; whether the group ignores case."""
        for prefix, construct in _REFUSED_GROUPS.items():
            if self._peek(prefix):
                raise self._unsupported(construct)
        name = _NAME.match(self._pattern, self._at)
        if name:
            if name[1] in self._names:
                raise self._invalid(f"the name {name[1]} is given again")
            self._names.add(name[1])
            self._at = name.end()
            return False
        inline = _INLINE.match(self._pattern, self._at)
        if inline is None:
            raise self._invalid("an unknown kind of group begins")
        if inline[3] == ")":
            raise self._unsupported("a flag that is not at the start")
        return self._set_flags(inline)

    def _set_flags(self, inline: re.Match[str]) -> bool:
        unknown = sorted(set(inline[1]) - set("isu"))
        if inline[2] or unknown:
            raise self._unsupported(f"the flag {inline[2] or unknown[0]!r}")
        self._at = inline.end()
        self._dot_is_all = self._dot_is_all or "s" in inline[1]
        return "i" in inline[1]

    def _escape(self) -> Node:
        """An escape outside of a class."""
        letter = self._pattern[self._at + 1 : self._at + 2]
        if letter in ("b", "B"):
            raise self._unsupported("a word boundary")
        if letter in tuple("123456789") or self._peek("\\k<"):
            raise self._unsupported("a backreference")
        if self._flavour is Flavour.WHOLE and letter in ("A", "z", "Z"):
            self._at += 2
            return Anchor(at_start=letter == "A")
        inside = self._escaped(negated=False)
        return Atom(self._literal(inside) if isinstance(inside, int) else f"[{inside}]")

    def _escaped(self, *, negated: bool) -> str | int:
        """The escape here: a code point, or Rust source that stands within brackets."""
        letter = self._pattern[self._at + 1 : self._at + 2]
        if not letter:
            raise self._invalid("a \\ escapes nothing")
        if letter in "dwsDWS":
            self._at += 2
            return self._shorthand(letter, negated=negated)
        prop = _PROPERTY.match(self._pattern, self._at)
        if prop:
            self._at = prop.end()
            return f"\\{prop[1]}{{{prop[2] or prop[3]}}}"
        return self._code(letter)

    def _shorthand(self, letter: str, *, negated: bool) -> str:
        if self._flavour is Flavour.WHOLE:
            return f"\\{letter}"
        if letter.islower():
            return (_WIDE if negated else _NARROW)[letter]
        return f"[^{(_NARROW if negated else _WIDE)[letter.lower()]}]"

    def _code(self, letter: str) -> int:
        """An escape that stands for one character."""
        found = _HEXADECIMAL.match(self._pattern, self._at)
        if found:
            code = int(next(digits for digits in found.groups() if digits), 16)
            low = _LOW_SURROGATE.match(self._pattern, found.end()) if 0xD800 <= code < 0xDC00 else None
            if low:
                code = 0x10000 + ((code - 0xD800) << 10) + int(low[1], 16) - 0xDC00
            self._scalar(code)
            self._at = low.end() if low else found.end()
            return code
        if letter in _CONTROLS or (
            letter == "0" and not self._pattern[self._at + 2 : self._at + 3].isdigit()
        ):
            self._at += 2
            return _CONTROLS.get(letter, 0)
        if letter.isalnum() or letter == "_":
            raise self._invalid(f"\\{letter} is no escape")
        self._at += 2
        return self._scalar(ord(letter))

    def _scalar(self, code: int) -> int:
        if 0xD800 <= code <= 0xDFFF or code > 0x10FFFF:
            raise self._invalid(f"U+{code:04X} is no character")
        return code

    def _class(self) -> str:
        opened = self._at
        self._at += 1
        negated = self._peek("^")
        self._at += negated
        inside: list[str] = []
        if self._peek("]"):
            if self._flavour is Flavour.SEARCH:
                raise self._unsupported("a class that starts with ]")
            self._at += 1
            inside.append(self._range(0x5D, negated=negated))
        while not self._peek("]"):
            if not self._next():
                self._at = opened
                raise self._invalid("a [ is never closed")
            inside.append(self._range(self._member(negated=negated), negated=negated))
        self._at += 1
        return f"[{'^' if negated else ''}{''.join(inside)}]"

    def _member(self, *, negated: bool) -> str | int:
        """One member of a class, or one end of a range."""
        if self._flavour is Flavour.WHOLE and self._pattern[self._at : self._at + 2] in (
            "&&",
            "--",
            "~~",
            "||",
        ):
            raise self._unsupported("a set operation in a class", "; escape it")
        if self._flavour is Flavour.WHOLE and self._peek("["):
            raise self._unsupported("a [ in a class", "; write \\[")
        if self._peek("\\b"):
            self._at += 2
            return 8
        if self._peek("\\"):
            return self._escaped(negated=negated)
        self._at += 1
        return self._scalar(ord(self._pattern[self._at - 1]))

    def _range(self, low: str | int, *, negated: bool) -> str:
        """A member, with the range that it may begin."""
        written = low if isinstance(low, str) else write_character(low)
        if isinstance(low, int) and not negated and self._needs_companion(low):
            written = COMPANION + written
        if not self._peek("-") or self._pattern[self._at + 1 : self._at + 2] in ("", "]"):
            return written
        self._at += 1
        high = self._member(negated=negated)
        if isinstance(low, int) and isinstance(high, int):
            if high < low:
                raise self._invalid("a range ends before it begins")
            return f"{written}-{write_character(high)}"
        if self._flavour is Flavour.WHOLE:
            raise self._invalid("a range has a class for an end")
        return f"{written}\\x{{2D}}{high if isinstance(high, str) else write_character(high)}"
