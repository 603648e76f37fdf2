"""The keywords of JSON Schema, drafts 4 to 2020-12: what their values look like, and where schemas stand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

__all__ = ["TYPES", "is_count", "is_number", "subschemas", "violation"]

TYPES: Final = ("null", "boolean", "integer", "number", "string", "array", "object")

_SCHEMA = frozenset(
    [
        "additionalItems",
        "additionalProperties",
        "contains",
        "contentSchema",
        "else",
        "if",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    ]
)
_SCHEMAS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_NAMED_SCHEMAS = frozenset({"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"})


def is_number(value: Any) -> bool:
    """A number of JSON; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_count(value: Any) -> bool:
    """A whole number that is not negative; 2.0 is one, too."""
    return is_number(value) and value >= 0 and value == int(value)


def _is_schema(value: Any) -> bool:
    return isinstance(value, dict | bool)


def _is_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_types(value: Any) -> bool:
    if isinstance(value, str):
        return value in TYPES
    return _is_strings(value) and bool(value) and all(each in TYPES for each in value)


def _is_dependencies(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_schema(each) or _is_strings(each) for each in value.values())


def _is_items(value: Any) -> bool:
    return _is_schema(value) or (isinstance(value, list) and all(map(_is_schema, value)))


_COUNT = (is_count, "a whole number from 0")
_NUMBER = (is_number, "a number")
_STRING = (lambda value: isinstance(value, str), "a string")
_SHAPES: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(_SCHEMA, (_is_schema, "a schema: an object or a boolean")),
    **dict.fromkeys(
        _SCHEMAS,
        (
            lambda value: isinstance(value, list) and bool(value) and _is_items(value),
            "a list of schemas, not empty",
        ),
    ),
    **dict.fromkeys(
        _NAMED_SCHEMAS,
        (
            lambda value: isinstance(value, dict) and all(map(_is_schema, value.values())),
            "an object of schemas",
        ),
    ),
    **dict.fromkeys(
        [
            "maxContains",
            "maxItems",
            "maxLength",
            "maxProperties",
            "minContains",
            "minItems",
            "minLength",
            "minProperties",
        ],
        _COUNT,
    ),
    **dict.fromkeys(
        ["$anchor", "$comment", "$dynamicAnchor", "$dynamicRef", "$id", "$ref", "$schema"], _STRING
    ),
    **dict.fromkeys(
        ["contentEncoding", "contentMediaType", "description", "format", "pattern", "title"], _STRING
    ),
    **dict.fromkeys(("maximum", "minimum"), _NUMBER),
    **dict.fromkeys(
        ("exclusiveMaximum", "exclusiveMinimum"),
        (lambda value: is_number(value) or isinstance(value, bool), "a number"),
    ),
    "multipleOf": (lambda value: is_number(value) and value > 0, "a number over 0"),
    "uniqueItems": (lambda value: isinstance(value, bool), "true or false"),
    "type": (_is_types, f"one or more of {', '.join(TYPES)}"),
    "enum": (lambda value: isinstance(value, list) and bool(value), "a list of values, not empty"),
    "required": (_is_strings, "a list of names"),
    "dependentRequired": (
        lambda value: isinstance(value, dict) and all(map(_is_strings, value.values())),
        "an object of lists of names",
    ),
    "dependencies": (_is_dependencies, "an object of schemas or lists of names"),
    "items": (_is_items, "a schema, or in older drafts a list of them"),
}


def violation(keyword: str, value: Any) -> str | None:
    """What the keyword's value has to be, where it isn't; None also for keywords that the drafts don't know."""
    fits, expected = _SHAPES.get(keyword, (None, ""))
    return expected if fits is not None and not fits(value) else None


def subschemas(schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The schemas right below one, each with its JSON pointer from there."""
    for keyword, value in schema.items():
        if keyword in _SCHEMA or (keyword == "items" and _is_schema(value)):
            yield keyword, value
        elif keyword in _SCHEMAS or keyword == "items":
            yield from ((f"{keyword}/{number}", each) for number, each in enumerate(value))
        elif keyword in _NAMED_SCHEMAS or keyword == "dependencies":
            for name, each in value.items():
                if _is_schema(each):
                    escaped = name.replace("~", "~0").replace("/", "~1")
                    yield f"{keyword}/{escaped}", each
