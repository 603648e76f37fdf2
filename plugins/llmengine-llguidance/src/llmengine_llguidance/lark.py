"""Lark grammars, as the user writes them, in the words that every llguidance reads alike.

Only the language is wanted of a grammar, so what llguidance adds to Lark is refused: inlined schemas and
patterns would escape the checks made for them, and special tokens, token limits and temperatures are not
about text. What stays is passed on token by token. Regular expressions and escapes are rewritten, since older
compilers read fewer of them, and ``~1..3`` becomes ``{1,3}``, which they all know.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from llmengine_llguidance import limits
from llmengine_llguidance.endings import Body
from llmengine_llguidance.grammars import (
    GrammarError,
    UnsupportedGrammarError,
    check_endings,
    check_size,
    position,
)
from llmengine_llguidance.patterns import Flavour, PatternError, UnsupportedPatternError, translate

__all__ = ["COMMON_TERMINALS", "normalize"]

_TOKEN = re.compile(
    r"""
    (?P<blank>[ \t\r]++|(?:\#|//)[^\n]*+)
  | (?P<line>\n)
  | (?P<string>"(?:\\[^\n]|[^"\\\x00-\x1f\x7f])*+"i?)
  | (?P<regex>/(?:\\[^\n]|[^/\\\n])++/[imslux]*)
  | (?P<directive>%[a-zA-Z]+)
  | (?P<special><[^<>\s]+>|@)
  | (?P<alias>->\s*+\w++)
  | (?P<name>_*[a-zA-Z][\w-]*+)
  | (?P<number>[0-9]++)
  | (?P<sign>::|\.\.|[:|()\[\]{}~,.*+?!=&])
    """,
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|(u[0-9A-Fa-f]{4}|[\"\\/bfnrt])|(.))")
_OUTSIDE_LARK = {"[": "an attribute of a rule", "{": "a template", ".": "a priority", "::": "a parameter"}
_MAY_BE_MISSING = re.compile(r"[*?]|\{0*[,}]")
_UNCLOSED = {
    '"': "a string is never closed, or holds a control character",
    "/": "a regular expression is never closed",
}
COMMON_TERMINALS = frozenset(
    {
        "CNAME",
        "C_COMMENT",
        "CPP_COMMENT",
        "CR",
        "DECIMAL",
        "DIGIT",
        "ESCAPED_STRING",
        "FLOAT",
        "HEXDIGIT",
        "INT",
        "LCASE_LETTER",
        "LETTER",
        "LF",
        "NEWLINE",
        "NUMBER",
        "SH_COMMENT",
        "SIGNED_FLOAT",
        "SIGNED_INT",
        "SIGNED_NUMBER",
        "SQL_COMMENT",
        "UCASE_LETTER",
        "WORD",
        "WS",
        "WS_INLINE",
    }
)
"""What there is to import from ``common``."""


def normalize(grammar: str) -> str:
    """The grammar in the common words; what stays stays in its line.

    Raises ``GrammarError`` where it is invalid in a way that shows here, ``UnsupportedGrammarError`` where it
    asks for more than a language.
    """
    return _Reader(grammar).read()


@dataclass(slots=True)
class _Token:
    kind: str
    text: str
    place: int
    opens_line: bool


class _Reader:
    def __init__(self, grammar: str) -> None:
        self._grammar = grammar
        self._tokens = self._scan()
        self._words = [token for token in self._tokens if token.kind not in ("blank", "line")]
        self._end = _Token("end", "", len(grammar), opens_line=True)
        self._at = 0
        self._depth = 0
        self._deepest = 0
        self._levels = 0
        self._alternatives = 0
        self._in_rule = False
        self._bodies: dict[str, tuple[int, int]] = {}
        self._rule = ""
        self._defined: set[str] = set()
        self._used: dict[str, _Token] = {}

    def read(self) -> str:
        while self._at < len(self._words):
            self._word()
        for name, token in self._used.items():
            if name not in self._defined:
                raise self._invalid(f"there is no rule or terminal named {name}", token)
        if "start" not in self._defined:
            raise GrammarError("it has no rule named start")
        check_size(self._levels, self._alternatives)
        self._end_rule(len(self._words))
        check_endings({name: _body(self._words[slice(*place)]) for name, place in self._bodies.items()})
        return "".join(token.text for token in self._tokens)

    def _scan(self) -> list[_Token]:
        tokens: list[_Token] = []
        place = 0
        opens_line = True
        while place < len(self._grammar):
            found = _TOKEN.match(self._grammar, place)
            if found is None:
                wrong = _UNCLOSED.get(self._grammar[place], f"unexpected {self._grammar[place]!r}")
                raise GrammarError(wrong, *position(self._grammar, place))
            kind = str(found.lastgroup)
            tokens.append(_Token(kind, found[0], place, opens_line))
            opens_line = kind == "line" or (opens_line and kind == "blank")
            place = found.end()
        return tokens

    def _invalid(self, reason: str, token: _Token) -> GrammarError:
        return GrammarError(reason, *position(self._grammar, token.place))

    def _unsupported(self, construct: str, token: _Token) -> GrammarError:
        return UnsupportedGrammarError(
            f"{construct} can't be enforced", *position(self._grammar, token.place)
        )

    def _peek(self, ahead: int = 0) -> _Token:
        index = self._at + ahead
        return self._words[index] if index < len(self._words) else self._end

    def _next(self) -> _Token:
        token = self._peek()
        self._at += 1
        return token

    def _word(self) -> None:
        token = self._next()
        if token.kind == "directive":
            self._directive(token)
        elif token.kind == "name":
            self._name(token)
        elif token.kind == "special":
            raise self._unsupported("a special token", token)
        elif token.kind == "string":
            token.text = self._string(token)
        elif token.kind == "regex":
            token.text = self._regex(token)
        elif token.kind == "sign":
            self._sign(token)

    def _end_rule(self, end: int) -> None:
        """The rule that was being read goes up to this word."""
        if self._rule:
            self._bodies[self._rule] = (self._bodies[self._rule][0], end)
        self._rule = ""

    def _directive(self, token: _Token) -> None:
        self._end_rule(self._at - 1)
        if token.text == "%llguidance" and (self._peek().text, self._peek(1).text) == ("{", "}"):
            for each in (token, self._next(), self._next()):
                each.text = ""
        elif token.text == "%import":
            self._import()
        elif token.text != "%ignore":
            raise self._unsupported(token.text, token)

    def _import(self) -> None:
        library = self._next()
        if library.text != "common":
            raise self._unsupported(f"an import from {library.text!r}", library)
        names = [self._next()] if self._next().text == "." else self._listed()
        for name in names:
            if name.text not in COMMON_TERMINALS:
                raise self._unsupported(f"the import of {name.text!r}", name)
        alias = self._next().text[2:].strip() if self._peek().kind == "alias" else None
        self._defined.update([alias] if alias else [name.text for name in names])

    def _listed(self) -> list[_Token]:
        """The names up to the closing parenthesis."""
        names = []
        while (token := self._next()).text not in (")", ""):
            if token.text != ",":
                names.append(token)
        return names

    def _name(self, token: _Token) -> None:
        follows = self._peek()
        if not self._begins_rule(token):
            if follows.text == "::":
                raise self._unsupported("a parameter", follows)
            self._used.setdefault(token.text, token)
        elif follows.text == ":":
            self._next()
            if token.text in self._defined:
                raise self._invalid(f"{token.text} is defined again", token)
            self._defined.add(token.text)
            self._end_rule(self._at - 2)
            self._rule = token.text
            self._bodies[token.text] = (self._at, self._at)
            self._deepest = 0
            self._levels += 1
            self._in_rule = token.text.lower() == token.text
        elif follows.text in _OUTSIDE_LARK and not follows.opens_line:
            raise self._unsupported(_OUTSIDE_LARK[follows.text], follows)
        else:
            raise self._invalid(f": is missing after {token.text}", token)

    def _begins_rule(self, token: _Token) -> bool:
        if token.opens_line:
            return self._depth == 0
        before = self._words[max(self._at - 3, 0) : self._at - 1]  # ?start: !start: ?!start:
        marks = [each for each in before if each.text in ("?", "!")]
        return bool(marks) and any(each.opens_line for each in marks) and before[-1] in marks

    def _sign(self, token: _Token) -> None:
        if token.text in "([":
            self._depth += 1
            if self._depth > self._deepest:
                self._deepest = self._depth
                self._levels += 1
            if self._depth > limits.GRAMMAR_DEPTH:
                raise self._invalid(f"more than {limits.GRAMMAR_DEPTH} parentheses within each other", token)
        elif token.text in ")]":
            self._depth = max(self._depth - 1, 0)
        elif token.text == "|":
            self._alternatives += self._in_rule
        elif token.text == "{":
            while (number := self._next()).text not in ("}", ""):
                self._count(number)
        elif token.text == "~":
            self._tilde(token)
        elif token.text == "?" and not token.opens_line:
            token.text = "? "  # apart from the name after it, which would take it for its own mark
        elif token.text == "::":
            raise self._unsupported("a parameter", token)

    def _tilde(self, token: _Token) -> None:
        """``~n`` and ``~n..m`` as ``{n}`` and ``{n,m}``."""
        if self._peek().kind != "number":
            raise self._unsupported("a negation", token)
        least = self._next()
        bounds = [least]
        if self._peek().text == ".." and self._peek(1).kind == "number":
            bounds += [self._next(), self._next()]
        for each in bounds:
            self._count(each)
        token.text = "{" + ",".join(each.text for each in bounds if each.kind == "number") + "}"
        for each in bounds:
            each.text = ""

    def _count(self, token: _Token) -> None:
        if token.kind == "number" and (len(token.text) > 9 or int(token.text) > limits.REPETITIONS):
            raise self._unsupported(f"a repetition over {limits.REPETITIONS}", token)

    def _string(self, token: _Token) -> str:
        def write(escape: re.Match[str]) -> str:
            if escape[3]:
                raise self._invalid(f"{escape[0]} is no escape", token)
            return f"\\u00{escape[1]}" if escape[1] else escape[0]

        return _ESCAPE.sub(write, token.text)

    def _regex(self, token: _Token) -> str:
        source, _, flags = token.text[1:].rpartition("/")
        prefix = f"(?{flags})" if flags else ""
        try:
            return f"/{translate(prefix + source, Flavour.WHOLE)}/"
        except UnsupportedPatternError as error:
            place = position(self._grammar, token.place)
            raise UnsupportedGrammarError(f"{token.text[:40]}: {error}", *place) from None
        except PatternError as error:
            raise self._invalid(f"{token.text[:40]} is no regular expression: {error}", token) from None


def _body(words: list[_Token]) -> Body:
    """What has to end for a rule to end, of the words after its colon."""
    stack: list[list[list[str | Body]]] = [[[]]]
    for number, word in enumerate(words):
        follows = "".join(each.text for each in words[number + 1 : number + 3])
        if word.text in ("(", "["):
            stack.append([[]])
        elif word.text in (")", "]") and len(stack) > 1:
            inside: Body = tuple(map(tuple, stack.pop()))
            if word.text == ")" and not _MAY_BE_MISSING.match(follows):
                stack[-1][-1].append(inside)
        elif word.text == "|":
            stack[-1].append([])
        elif word.kind == "name" and not _MAY_BE_MISSING.match(follows):
            stack[-1][-1].append(word.text)
    return tuple(map(tuple, stack[0]))
