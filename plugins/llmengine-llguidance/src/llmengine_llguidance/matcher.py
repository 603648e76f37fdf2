"""llguidance as a judge of texts, byte for byte, without any model's vocabulary."""

from __future__ import annotations

import time
from functools import cache

from llguidance import LLTokenizer

from llmengine_llguidance import limits
from llmengine_llguidance.compiler import compile_grammar

__all__ = ["Matcher"]

_SLICE = 16
"""Bytes between two looks at the clock."""


class Matcher:
    """A compiled grammar, in llguidance's Lark, that judges any number of texts from any thread."""

    def __init__(self, grammar: str) -> None:
        """Compile, or raise ``CompileError``."""
        self._start = compile_grammar(_tokenizer(), grammar)

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
