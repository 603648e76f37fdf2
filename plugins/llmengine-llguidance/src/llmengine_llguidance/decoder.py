"""Constraints checked, translated for llama.cpp's llguidance, and verified on the text that came out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from llmengine_core.errors import BadRequestError, UnsupportedFeatureError
from llmengine_core.interfaces.guided import GuidedDecoder
from llmengine_core.types.sampling import StructuredKind, StructuredOutput, Translation
from llmengine_llguidance import gbnf, lark, limits
from llmengine_llguidance.compiler import CompileError
from llmengine_llguidance.grammars import GrammarError, UnsupportedGrammarError
from llmengine_llguidance.json_text import canonical, canonical_start
from llmengine_llguidance.matcher import Matcher
from llmengine_llguidance.patterns import Flavour, PatternError, UnsupportedPatternError, translate
from llmengine_llguidance.schema import reduce_schema
from llmengine_llguidance.schema_document import SchemaError, UnsupportedKeywordError

__all__ = ["DIALECT", "LLGuidanceDecoder"]

DIALECT: Final = "llguidance"
"""Lark as llguidance reads it since 1.0, with the header by which llama.cpp's ``grammar`` field knows it."""

_HEADER = "%llguidance {}\n"
_SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""How JSON is spaced while it is generated: as ``json.dumps`` does. Where white space is free, small models
write nothing else until their tokens run out."""


@dataclass(frozen=True, slots=True)
class _Program:
    """A constraint that is valid and can be enforced."""

    grammar: str
    """What an engine generates by."""
    matcher: Matcher
    """What texts are judged by: the same language, but JSON may be spaced freely."""


class LLGuidanceDecoder(GuidedDecoder):
    """Every kind of constraint, by llguidance. What was compiled is kept for the next call.

    A ``guided_regex`` is read as Rust and Python do where they agree, a ``guided_grammar`` as Lark or, where its
    first rule is written ``name ::=``, as GBNF. Choices may be empty strings, share beginnings, and repeat.
    """

    def __init__(self) -> None:
        self._program = lru_cache(maxsize=limits.PROGRAMS)(_compile)

    def check(self, structured: StructuredOutput) -> None:
        self._program(structured.kind, structured.value)

    def translate(self, structured: StructuredOutput, dialect: str) -> Translation:
        if dialect != DIALECT:
            raise UnsupportedFeatureError(
                f"llguidance translates constraints into the dialect {DIALECT!r}, not into {dialect!r}; install a "
                "plugin that registers a guided decoder for it"
            )
        return Translation(DIALECT, _HEADER + self._program(structured.kind, structured.value).grammar)

    def verify(self, structured: StructuredOutput, text: str, *, complete: bool) -> bool:
        program = self._program(structured.kind, structured.value)
        if structured.kind == "json":
            # The matcher compares names as they are spelled: an escaped or a repeated one could pass for another.
            plain = canonical(text) if complete else canonical_start(text)
            return plain is not None and program.matcher.accepts(plain, complete=complete)
        return program.matcher.accepts(text, complete=complete)


def _compile(kind: StructuredKind, value: str | tuple[str, ...]) -> _Program:
    texts = (value,) if isinstance(value, str) else value
    size = sum(map(len, texts))
    if size > limits.CONSTRAINT_CHARACTERS:
        raise BadRequestError(
            f"guided_{kind} has {size:,} characters; at most {limits.CONSTRAINT_CHARACTERS:,} are taken"
        )
    for text in texts:
        _check_characters(kind, text)
    if isinstance(value, tuple):
        return _choice(value)
    compilers: dict[StructuredKind, Callable[[str], _Program]] = {
        "json": _json,
        "regex": _regex,
        "grammar": _grammar,
    }
    return compilers[kind](value)


def _check_characters(kind: StructuredKind, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadRequestError(
            f"guided_{kind} holds a lone surrogate at character {error.start + 1}; give whole characters"
        ) from None


def _choice(choices: tuple[str, ...]) -> _Program:
    if not 0 < len(choices) <= limits.CHOICES:
        raise BadRequestError(
            f"guided_choice has {len(choices):,} choices; 1 to {limits.CHOICES:,} are taken"
        )
    strings = (
        json.dumps(each, ensure_ascii=False).replace("\x7f", "\\u007f") for each in dict.fromkeys(choices)
    )
    # A terminal is one lexeme however many choices it has; alternatives of a rule are followed one by one.
    return _build("choice", f"start: CHOICE\nCHOICE: {' | '.join(strings)}\n")


def _regex(pattern: str) -> _Program:
    try:
        return _build("regex", f"start: /{translate(pattern, Flavour.WHOLE)}/\n")
    except UnsupportedPatternError as error:
        raise UnsupportedFeatureError(f"guided_regex {pattern[:80]!r} is not enforced: {error}") from None
    except PatternError as error:
        raise BadRequestError(f"guided_regex {pattern[:80]!r} is no regular expression: {error}") from None


def _grammar(grammar: str) -> _Program:
    syntax = "GBNF" if gbnf.is_gbnf(grammar) else "Lark"
    try:
        if syntax == "GBNF":
            return _build("grammar", gbnf.to_lark(grammar), translated=True)
        return _build("grammar", lark.normalize(grammar))
    except UnsupportedGrammarError as error:
        raise UnsupportedFeatureError(f"guided_grammar, {_place(error)}: {error}") from None
    except GrammarError as error:
        raise BadRequestError(f"guided_grammar is no {syntax} grammar, {_place(error)}: {error}") from None


def _json(text: str) -> _Program:
    try:
        schema = reduce_schema(text)
    except UnsupportedKeywordError as error:
        raise UnsupportedFeatureError(f"guided_json: {error}") from None
    except SchemaError as error:
        raise BadRequestError(f"guided_json is no valid JSON Schema: {error}") from None
    spaced = {**schema, "x-guidance": _SPACING}  # last: the compiler puts the last keyword in its place
    free = _build("json", f"start: %json {json.dumps(schema)}\n")
    return _Program(f"start: %json {json.dumps(spaced)}\n", free.matcher)


def _place(error: GrammarError | CompileError) -> str:
    return f"line {error.line}, column {error.column}" if error.line else "as a whole"


# What llguidance says of what it can't do (a part of the message), the keyword to blame, and why.
_SCHEMA_REASONS = (
    ("circular reference", "$ref", "a schema that holds itself is narrowed where it does"),
    ("level exceeded", "$ref", "schemas that hold themselves are combined"),
    ("can't determine if patternProperty", "patternProperties", "a name may match two of the patterns"),
    ("not disjoint", "patternProperties", "a name may match two of the patterns"),
    ("min/maxProperties", "minProperties and maxProperties", "not every property is required"),
    ("Unable to determine", "pattern", "its combination with the other limits of the string is too complex"),
    ("Failed to generate regex", "minimum and maximum", "the range is too wide to spell out"),
)


def _build(kind: StructuredKind, grammar: str, *, translated: bool = False) -> _Program:
    """Compile; the compiler's refusals become the caller's errors."""
    try:
        return _Program(grammar, Matcher(grammar))
    except CompileError as error:
        reason = error.reason.removeprefix("failed to compile JSON schema: ")
        for part, keyword, why in _SCHEMA_REASONS if kind == "json" else ():
            if part in reason:
                raise UnsupportedFeatureError(
                    f"guided_json: {keyword} can't be enforced: {why} ({reason})"
                ) from None
        if "Unsatisfiable schema" in reason:
            raise BadRequestError(
                f"guided_json: nothing obeys the schema: {reason.partition(': ')[2]}"
            ) from None
        where = f", {_place(error)}" if kind == "grammar" and not translated else ""
        kind_of_error = UnsupportedFeatureError if "not supported" in reason else BadRequestError
        raise kind_of_error(f"guided_{kind} does not compile{where}: {reason}") from None
