"""Whether a text obeys a constraint, by means that no engine shares: jsonschema, ``regex``, Lark, a naive chart.

Schemas are read as draft 2020-12, with their formats; patterns match whole texts, as Rust's and Python's do where
they agree. Of two members of one name the last counts.
"""

from __future__ import annotations

import json
from decimal import Decimal, InvalidOperation, localcontext
from functools import lru_cache
from typing import Any

import jsonschema
import lark
import regex

from llmengine_core.testing.gbnf import begins, is_gbnf, matches
from llmengine_core.types.sampling import StructuredOutput

__all__ = ["begun", "legal", "legal_json"]

SECONDS = 10.0
"""A pattern may take for one text; ``TimeoutError`` after it."""


def legal(structured: StructuredOutput, text: str) -> bool:
    """Whether the whole text obeys a valid constraint."""
    value = structured.value
    if structured.kind == "choice":
        return text in value if isinstance(value, tuple) else False
    if not isinstance(value, str):
        raise TypeError(f"a constraint of the kind {structured.kind} is one text, not {value!r}")
    if structured.kind == "json":
        return legal_json(value, text)
    if structured.kind == "regex":
        return regex.fullmatch(value, text, timeout=SECONDS) is not None
    return matches(value, text) if is_gbnf(value) else _parses(value, text)


def legal_json(schema: str, text: str) -> bool:
    """Whether the text is JSON that a schema, given as JSON text, allows; numbers count as they are written."""
    try:
        value = json.loads(text, parse_float=_number, parse_constant=_refused)
    except (ValueError, RecursionError):
        return False
    with localcontext(prec=1_000):
        return bool(_validator(schema).is_valid(value))


def begun(structured: StructuredOutput, text: str) -> bool:
    """Whether a text of a valid constraint begins so: of choices, patterns, and GBNF whose rules can all end."""
    value = structured.value
    if structured.kind == "choice":
        return any(each.startswith(text) for each in value)
    if not isinstance(value, str) or structured.kind == "json":
        raise TypeError(f"nothing tells what begins {structured}")
    if structured.kind == "regex":
        return (
            legal(structured, text) or regex.fullmatch(value, text, partial=True, timeout=SECONDS) is not None
        )
    return begins(value, text)


def _number(text: str) -> Decimal | float:
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent of eighteen digits
        return float(text)


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is no value of JSON")


def _is_whole(_: Any, value: Any) -> bool:
    if isinstance(value, Decimal):
        return value == value.to_integral_value()
    return not isinstance(value, bool) and (
        isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    )


def _found(_: Any, pattern: str, value: Any, __: Any) -> Any:
    """``pattern``, with ``$`` at the very end only, unlike Python's; classes may be ASCII's or Unicode's."""
    if isinstance(value, str):
        ending = _PARTS.sub(lambda each: r"\Z" if each[1] else each[0], pattern)
        if not any(regex.search(ending, value, flags, timeout=SECONDS) for flags in (0, regex.ASCII)):
            yield jsonschema.ValidationError(f"{value!r} does not match {pattern!r}")


_PARTS = regex.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|(\$)")
_Validator: Any = jsonschema.validators.extend(  # type: ignore[no-untyped-call]
    jsonschema.Draft202012Validator,
    {"pattern": _found},
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_whole),
)


@lru_cache(64)
def _validator(schema: str) -> Any:
    exact = json.loads(schema, parse_float=Decimal)
    return _Validator(exact, format_checker=jsonschema.FormatChecker())


@lru_cache(64)
def _parser(grammar: str) -> lark.Lark:
    return lark.Lark(grammar, parser="earley", lexer="dynamic_complete", ambiguity="resolve")


def _parses(grammar: str, text: str) -> bool:
    try:
        _parser(grammar).parse(text)
    except lark.exceptions.UnexpectedInput:
        return False
    return True
