"""llguidance's compiler within our limits, for any vocabulary."""

from __future__ import annotations

import re
from functools import cache

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from llmengine_llguidance import limits

__all__ = ["CompileError", "compile_grammar"]

_REASON = 300
"""Characters of a reason; it may quote all that it is about."""

_POSITION = re.compile(r"(?:at )?(\d+)\((\d+)\): ")
_LISTING = re.compile(r"\n(?: +\d+ \| |  while processing ).*", re.DOTALL)
_STATE = re.compile(r"\n?<(?:state|backtrace|non-verbose).*", re.DOTALL)


class CompileError(Exception):
    """llguidance refuses a grammar; ``line`` and ``column`` count from 1 and are 0 where it names none."""

    def __init__(self, report: str) -> None:
        text = _STATE.sub("", _LISTING.sub("", report)).strip()
        place = _POSITION.match(text)
        self.line, self.column = (int(place[1]), int(place[2])) if place else (0, 0)
        reason = text[place.end() :] if place else text
        self.reason = reason if len(reason) <= _REASON else f"{reason[:_REASON]}…"
        super().__init__(self.reason)


def compile_grammar(tokenizer: LLTokenizer, grammar: str) -> LLMatcher:
    """A matcher at the start of a grammar in llguidance's Lark. Raises ``CompileError``."""
    matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_lark(grammar), log_level=0, limits=_limits())
    if matcher.is_error():
        raise CompileError(matcher.get_error())
    return matcher


@cache
def _limits() -> LLParserLimits:
    return LLParserLimits(
        max_items_in_row=limits.PARSER_ITEMS,
        initial_lexer_fuel=limits.GRAMMAR_FUEL,
        max_grammar_size=limits.GRAMMAR_SYMBOLS,
        precompute_large_lexemes=False,
        verbose_errors=False,
    )
