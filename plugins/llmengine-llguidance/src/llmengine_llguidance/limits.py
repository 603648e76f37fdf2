"""How much a constraint may ask for.

Constraints come from outside, and the compiler that reads them is native code: what it can't bound itself
overflows its stack, fills the memory, or holds a core for minutes. Each figure below stands well inside what
was measured to be safe (one core, llguidance 1.9.1 and the 1.0.1 inside llama.cpp), and within all of them
together the slowest constraint found compiles in about a second.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "CHOICES",
    "CONJUNCTS",
    "CONSTRAINT_CHARACTERS",
    "EXACT_DIGITS",
    "EXACT_INTEGER",
    "EXCLUSIVE_OPTIONS",
    "GRAMMAR_ALTERNATIVES",
    "GRAMMAR_DEPTH",
    "GRAMMAR_FUEL",
    "GRAMMAR_LEVELS",
    "GRAMMAR_SYMBOLS",
    "JUDGING_SECONDS",
    "MULTIPLE",
    "OPTIONS",
    "PARSER_ITEMS",
    "PATTERN_CHARACTERS",
    "PATTERN_DEPTH",
    "PATTERN_POSITIONS",
    "PROGRAMS",
    "PROPERTIES",
    "READINGS",
    "REPETITIONS",
    "SCHEMA_DEPTH",
    "SCHEMA_NAME_PATTERNS",
    "SCHEMA_PATTERNS",
]

CONSTRAINT_CHARACTERS: Final = 256 * 1024
"""A schema, grammar, pattern, or all choices together. A quarter of a megabyte of choices takes 0.2 s."""

CHOICES: Final = 10_000
"""Ten thousand choices compile in 0.2 s."""

REPETITIONS: Final = 65_536
"""A counted repetition: ``{n}``, ``minItems``, ``maxLength``. At 4·10⁹ llguidance takes 4 GB, llama.cpp aborts."""

PATTERN_CHARACTERS: Final = 16_384
"""One regular expression."""

PATTERN_DEPTH: Final = 50
"""Groups within groups."""

PATTERN_POSITIONS: Final = 100_000
"""Characters that a pattern spells once its counted repetitions are written out."""

SCHEMA_DEPTH: Final = 100
"""Levels of a schema, ``$ref``\\ s followed. The compiler's stack ends between 700 and 1,000."""

SCHEMA_NAME_PATTERNS: Final = 50
"""``patternProperties`` of one object; each is compared with each: 1.9 s at 200."""

SCHEMA_PATTERNS: Final = 4
"""``pattern`` and ``format`` that hold for one string together. Ten are slow, forty take minutes."""

PROPERTIES: Final = 1_000
"""Named properties of one object, and the square root of what all objects together may have: compiling takes
time with the square of their number, 0.12 s at 1,000 and 10 s at 10,000."""

OPTIONS: Final = 1_000
"""Branches of one ``anyOf``, and objects and lists in one ``enum``; 0.2 s, and the square of it."""

EXCLUSIVE_OPTIONS: Final = 200
"""Branches of one ``oneOf``; each is compared with each."""

CONJUNCTS: Final = 100
"""Branches of one ``allOf``."""

MULTIPLE: Final = 10_000
"""``multipleOf`` without the decimal point, all of a schema together, and what those that hold at once have in
common: 10⁶ takes 7 s."""

EXACT_INTEGER: Final = 2**53 - 1
"""The compiler keeps numbers as doubles: up to here whole numbers are exact."""

EXACT_DIGITS: Final = 14
"""Digits of a number, and digits after its point, that come back as they were."""

GRAMMAR_LEVELS: Final = 500
"""Rules and terminals of a grammar, and the parentheses within each other in each. A chain of 2,500 rules ends
the compiler's stack."""

GRAMMAR_DEPTH: Final = 20
"""Parentheses within parentheses in a grammar."""

GRAMMAR_SYMBOLS: Final = 200_000
"""Symbols of the compiled grammar."""

GRAMMAR_FUEL: Final = 500_000
"""Work on the regular expressions of a grammar: terminals that double each other 40 times end in 0.5 s."""

READINGS: Final = 1_500
"""Readings of a text that a schema may leave open at once; where they pass 2,000, llama.cpp drops a constraint."""

GRAMMAR_ALTERNATIVES: Final = 1_000
"""Alternatives of the rules of a grammar, for the same reason. Those of a Lark terminal count as one."""

PARSER_ITEMS: Final = 2_000
"""Readings of a text that a matcher follows at once, as in llama.cpp."""

JUDGING_SECONDS: Final = 5.0
"""CPU time to judge one text. Only ambiguous grammars (``s: s s | "a"``) come near it: their time grows with the
cube of the text's length, 2 s at 300 characters; all others judge 100,000 characters in less than a second."""

PROGRAMS: Final = 32
"""Compiled constraints that one decoder keeps."""
