"""What the readers of grammars share: their errors, places in a text, and how large a grammar may be."""

from __future__ import annotations

from collections.abc import Mapping

from llmengine_llguidance import limits
from llmengine_llguidance.endings import Body, never_ending

__all__ = ["GrammarError", "UnsupportedGrammarError", "check_endings", "check_size", "position"]


class GrammarError(Exception):
    """The grammar is invalid; ``line`` and ``column`` count from 1, and are 0 where no place is to blame."""

    def __init__(self, reason: str, line: int = 0, column: int = 0) -> None:
        super().__init__(reason)
        self.line = line
        self.column = column


class UnsupportedGrammarError(GrammarError):
    """The grammar is valid, but what stands there can't be enforced."""


def position(text: str, index: int) -> tuple[int, int]:
    """Line and column, from 1, of a character."""
    before = text[:index]
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def check_size(levels: int, alternatives: int) -> None:
    """Return where the compiler's stack and the matchers of engines have room for a grammar.

    ``levels`` are its rules and the parentheses within each other in each, as if all stood within one another.
    Raises ``GrammarError`` where there is none.
    """
    if levels > limits.GRAMMAR_LEVELS:
        raise GrammarError(
            f"it has {levels:,} rules and levels of parentheses; at most {limits.GRAMMAR_LEVELS:,} are taken"
        )
    if alternatives > limits.GRAMMAR_ALTERNATIVES:
        raise GrammarError(
            f"its rules have {alternatives:,} alternatives; at most {limits.GRAMMAR_ALTERNATIVES:,} are followed. A "
            "terminal of Lark, its name in upper case, may have more"
        )


def check_endings(rules: Mapping[str, Body]) -> None:
    """Return where every rule can end. Raises ``GrammarError`` that names the first that can't."""
    endless = never_ending(rules)
    for name in rules:
        if name in endless:
            raise GrammarError(f"the rule {name} can never end")
