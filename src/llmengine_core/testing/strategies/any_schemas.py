"""JSON Schemas of most keywords, in small and often contradictory combinations: many have no instance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from llmengine_core.testing.strategies.schemas import NAMES, json_values

__all__ = ["any_schemas", "numeric_schemas"]

Schemas: TypeAlias = SearchStrategy[Any]
TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
PATTERNS = (
    "a", "^a", "b$", "^a+b?$", "[^a]", "^.$", "é", "^[a-c]{2,3}$", "(?i)AB", "(^|b)a", "a|^b$",
    r"\d", r"^\w+$", r"\s", r"^[\W]$", r"^\D*$", r"\S{2}",
    '^"a+$', r"^a\\+b?", r"\n", r"[\n\"]a*$", "\x7f[ab]",
)  # fmt: skip


def any_schemas(*, formats: Sequence[str] = ()) -> Schemas:
    """Schemas of draft 2020-12 that may ask for what nothing obeys; strings may have one of ``formats``."""
    string = _some(
        {
            "minLength": st.integers(0, 3),
            "maxLength": st.integers(0, 5),
            "pattern": st.sampled_from(PATTERNS),
            **({"format": st.sampled_from(formats)} if formats else {}),
        }
    )
    leaves = st.one_of(
        st.just(True),
        st.just({}),
        _typed(st.sampled_from(TYPES), st.just({})),
        _typed(st.just("string"), string),
        _typed(st.just("integer"), NUMBER),
        CONSTANT,
    )
    one = st.recursive(leaves, lambda inner: _compound(inner, string), max_leaves=6)
    return st.builds(
        lambda schema, first, second: {
            **(schema if isinstance(schema, dict) else {}),
            "$defs": {"one": first, "two": second},
        },
        one,
        one,
        one,
    )


def numeric_schemas() -> Schemas:
    """Bounds of numbers of all sizes, where doubles are exact and where they are not."""
    numbers = st.one_of(
        st.integers(-(2**62), 2**62),
        st.integers(-1_000, 1_000),
        st.floats(-1e18, 1e18),
        st.floats(-10, 10),
        st.floats(1e-12, 1e-3),
        st.floats(allow_nan=False, allow_infinity=False),
    )
    steps = st.integers(1, 300) | st.floats(1e-6, 50).map(lambda step: float(f"{step:.3g}"))
    bounds = dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), numbers)
    constants: Schemas = numbers.map(lambda value: {"const": value})
    return _typed(st.sampled_from(["integer", "number"]), _some({**bounds, "multipleOf": steps})) | constants


def _some(keywords: dict[str, Schemas]) -> Schemas:
    return st.fixed_dictionaries({}, optional=keywords)


def _merged(*parts: dict[str, Any]) -> dict[str, Any]:
    return {keyword: value for part in parts for keyword, value in part.items()}


def _typed(types: Schemas, keywords: Schemas) -> Schemas:
    return st.builds(lambda kind, rest: {"type": kind, **rest}, types, keywords)


_BOUNDS = st.integers(-30, 30) | st.sampled_from([0.5, -0.25, 1.75, 10.5, 1e-3, 100.0])
NUMBER = _some(
    {
        **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _BOUNDS),
        "multipleOf": st.sampled_from([1, 2, 3, 0.5, 0.1, 1.5, 7]),
    }
)
CONSTANT = json_values().map(lambda value: {"const": value})


def _compound(schemas: Schemas, string: Schemas) -> Schemas:
    names = st.sampled_from(NAMES)
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
            "properties": st.dictionaries(names, schemas, max_size=3),
            "required": st.lists(names, max_size=2, unique=True),
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
    everything = st.builds(_merged, array, members, string, NUMBER)
    alone = st.one_of(
        _typed(st.just("array"), array),
        _typed(st.just("object"), members),
        _typed(st.just("string"), string),
        _typed(st.sampled_from(["integer", "number"]), NUMBER),
        _typed(st.lists(st.sampled_from(TYPES), min_size=1, max_size=3, unique=True), everything),
        everything,
        CONSTANT,
        st.lists(json_values(), min_size=1, max_size=3).map(lambda values: {"enum": values}),
    )
    references = st.sampled_from([{"$ref": "#/$defs/one"}, {"$ref": "#/$defs/two"}])
    return st.one_of(alone, st.builds(_merged, alone, applicators), applicators, references)
