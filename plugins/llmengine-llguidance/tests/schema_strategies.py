"""JSON Schemas, generated: most of what is enforced, in small and often contradictory combinations."""

from __future__ import annotations

from typing import Any, TypeAlias

from hypothesis import strategies as st

Schemas: TypeAlias = st.SearchStrategy[Any]

TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
NAMES = st.sampled_from(["a", "b", "é", "x y", 'q"', "a\\b", "/"])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-20, 20)
    | st.sampled_from([0.5, -1.5, 1e-3, 123.25, 10.0])
    | st.text(alphabet='ab"\\é\n/\x7f', max_size=3)
)
VALUES = st.recursive(
    SCALARS,
    lambda values: st.lists(values, max_size=2) | st.dictionaries(NAMES, values, max_size=2),
    max_leaves=4,
)
NUMBERS = st.integers(-30, 30) | st.sampled_from([0.5, -0.25, 1.75, 10.5, 1e-3, 100.0])
PATTERNS = st.one_of(
    st.sampled_from(
        ["a", "^a", "b$", "^a+b?$", "[^a]", "^.$", "é", "^[a-c]{2,3}$", "(?i)AB", "(^|b)a", "a|^b$"]
    ),
    st.sampled_from([r"\d", r"^\w+$", r"\s", r"^[\W]$", r"^\D*$", r"\S{2}"]),
    st.sampled_from(['^"a+$', r"^a\\+b?", r"\n", r"[\n\"]a*$", "\x7f[ab]"]),
)


def _some(keywords: dict[str, Schemas]) -> Schemas:
    return st.fixed_dictionaries({}, optional=keywords)


def _merged(*parts: dict[str, Any]) -> dict[str, Any]:
    return {keyword: value for part in parts for keyword, value in part.items()}


STRING = _some(
    {
        "minLength": st.integers(0, 3),
        "maxLength": st.integers(0, 5),
        "pattern": PATTERNS,
        "format": st.sampled_from(["date", "ipv4", "uuid", "email", "ipv6"]),
    }
)
NUMBER = _some(
    {
        "minimum": NUMBERS,
        "maximum": NUMBERS,
        "exclusiveMinimum": NUMBERS,
        "exclusiveMaximum": NUMBERS,
        "multipleOf": st.sampled_from([1, 2, 3, 0.5, 0.1, 1.5, 7]),
    }
)
CONSTANT = st.builds(lambda value: {"const": value}, VALUES)


def _typed(types: Schemas, keywords: Schemas) -> Schemas:
    return st.builds(lambda kind, rest: {"type": kind, **rest}, types, keywords)


def _compound(schemas: Schemas) -> Schemas:
    array = _some(
        {
            "items": schemas,
            "prefixItems": st.lists(schemas, min_size=1, max_size=2),
            "minItems": st.integers(0, 2),
            "maxItems": st.integers(0, 3),
        }
    )
    members = _some(
        {
            "properties": st.dictionaries(NAMES, schemas, max_size=3),
            "required": st.lists(NAMES, max_size=2, unique=True),
            "additionalProperties": schemas,
            "patternProperties": st.dictionaries(
                st.sampled_from(["^a", "b$", "^q", "^.$"]), schemas, max_size=2
            ),
            "minProperties": st.integers(0, 2),
            "maxProperties": st.integers(0, 3),
        }
    )
    several = st.lists(schemas, min_size=1, max_size=3)
    applicators = _some({"allOf": several, "anyOf": several, "oneOf": several})
    everything = st.builds(_merged, array, members, STRING, NUMBER)
    alone = st.one_of(
        _typed(st.just("array"), array),
        _typed(st.just("object"), members),
        _typed(st.just("string"), STRING),
        _typed(st.sampled_from(["integer", "number"]), NUMBER),
        _typed(st.lists(st.sampled_from(TYPES), min_size=1, max_size=3, unique=True), everything),
        everything,
        CONSTANT,
        st.builds(lambda values: {"enum": values}, st.lists(VALUES, min_size=1, max_size=3)),
    )
    references = st.sampled_from([{"$ref": "#/$defs/one"}, {"$ref": "#/$defs/two"}])
    return st.one_of(alone, st.builds(_merged, alone, applicators), applicators, references)


_LEAVES = st.one_of(
    st.just(True),
    st.just({}),
    _typed(st.sampled_from(TYPES), st.just({})),
    _typed(st.just("string"), STRING),
    _typed(st.just("integer"), NUMBER),
    CONSTANT,
)
SUBSCHEMAS = st.recursive(_LEAVES, _compound, max_leaves=6)
SCHEMAS: Schemas = st.builds(
    lambda schema, one, two: {
        **(schema if isinstance(schema, dict) else {}),
        "$defs": {"one": one, "two": two},
    },
    SUBSCHEMAS,
    SUBSCHEMAS,
    SUBSCHEMAS,
)

_ANY_NUMBERS = st.one_of(
    st.integers(-(2**62), 2**62),
    st.integers(-1_000, 1_000),
    st.floats(-1e18, 1e18),
    st.floats(-10, 10),
    st.floats(1e-12, 1e-3),
    st.floats(allow_nan=False, allow_infinity=False),
)
_STEPS = st.integers(1, 300) | st.floats(1e-6, 50).map(lambda step: float(f"{step:.3g}"))
NUMERIC_SCHEMAS = _typed(
    st.sampled_from(["integer", "number"]),
    _some(
        {
            "minimum": _ANY_NUMBERS,
            "maximum": _ANY_NUMBERS,
            "exclusiveMinimum": _ANY_NUMBERS,
            "exclusiveMaximum": _ANY_NUMBERS,
            "multipleOf": _STEPS,
        }
    ),
) | st.builds(lambda value: {"const": value}, _ANY_NUMBERS)
"""Bounds of all sizes, where doubles are exact and where they are not."""
