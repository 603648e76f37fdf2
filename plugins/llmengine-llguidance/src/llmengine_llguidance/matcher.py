"""llguidance as a compiler and as a judge of texts, byte for byte, without any model's vocabulary."""

from __future__ import annotations

import re
import time
from functools import cache

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from llmengine_llguidance import limits

__all__ = ["CompileError", "Matcher"]

_SLICE = 16
"""Bytes between two looks at the clock."""

_REASON = 300
"""Characters of a reason; it may quote all that it is about."""

_POSITION = re.compile(r"(?:at )?(\d+)\((\d+)\): ")
_LISTING = re.compile(r"\n(?: +\d+ \| |  while processing ).*", re.DOTALL)
_STATE = re.compile(r"\n?<(?:state|backtrace).*", re.DOTALL)


class CompileError(Exception):
    """llguidance refuses a grammar; ``line`` and ``column`` count from 1 and are 0 where it names none."""

    def __init__(self, report: str) -> None:
        text = _STATE.sub("", _LISTING.sub("", report)).strip()
        place = _POSITION.match(text)
        self.line, self.column = (int(place[1]), int(place[2])) if place else (0, 0)
        reason = text[place.end() :] if place else text
        self.reason = reason if len(reason) <= _REASON else f"{reason[:_REASON]}…"
        super().__init__(self.reason)


class Matcher:
    """A compiled grammar, in llguidance's Lark, that judges any number of texts from any thread."""

    def __init__(self, grammar: str) -> None:
        """Compile, or raise ``CompileError``."""
        source = LLMatcher.grammar_from_lark(grammar)
        self._start = LLMatcher(_tokenizer(), source, log_level=0, limits=_limits())
        if self._start.is_error():
            raise CompileError(self._start.get_error())

    def accepts(self, text: str, *, complete: bool) -> bool:
        """Whether ``text`` is in the language, or where not ``complete`` may be the start of one that is.

        False also where the grammar is so ambiguous that ``limits.PARSER_ITEMS`` and ``JUDGING_SECONDS`` don't
        suffice to tell.
        """
        try:
            octets = text.encode()
        except UnicodeEncodeError:
            return False
        matcher = self._start.deep_copy()
        deadline = time.thread_time() + limits.JUDGING_SECONDS
        for start in range(0, len(octets), _SLICE):
            part = list(octets[start : start + _SLICE])
            if matcher.try_consume_tokens(part) != len(part) or matcher.is_error():
                return False
            if time.thread_time() > deadline:
                return False
        return not complete or bool(matcher.is_accepting())


@cache
def _tokenizer() -> LLTokenizer:
    """One token per byte."""
    return LLTokenizer("byte")


@cache
def _limits() -> LLParserLimits:
    return LLParserLimits(
        max_items_in_row=limits.PARSER_ITEMS,
        initial_lexer_fuel=limits.GRAMMAR_FUEL,
        max_grammar_size=limits.GRAMMAR_SYMBOLS,
        precompute_large_lexemes=False,
        verbose_errors=False,
    )
