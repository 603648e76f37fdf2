"""JSON Schemas of draft 2020-12, small, each with values that obey it."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple, TypeAlias

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

__all__ = ["json_values", "schemas", "schemas_with_instances"]

Values: TypeAlias = SearchStrategy[Any]
NAMES = ("a", "b", "é", "x y", 'q"', "a\\b", "/")
ALPHABET = 'ab"\\é/ 😀'


class Shape(NamedTuple):
    """A schema, and values that obey it with their members in the schema's order."""

    schema: Any
    values: Values


def schemas() -> SearchStrategy[Any]:
    """Schemas that have short instances; objects are closed, strings, lists and numbers bounded."""
    return _shapes().map(lambda shape: shape.schema)


def schemas_with_instances() -> SearchStrategy[tuple[Any, Any]]:
    """Such schemas, each with a value that obeys it, its members in the order of ``properties``."""
    return _shapes().flatmap(lambda shape: st.tuples(st.just(shape.schema), shape.values))


def json_values() -> SearchStrategy[Any]:
    """Any small value of JSON."""
    scalars = (
        st.none()
        | st.booleans()
        | st.integers(-20, 20)
        | st.sampled_from([0.5, -1.5, 1e-3, 123.25])
        | st.text(ALPHABET + "\n", max_size=3)
    )
    return st.recursive(
        scalars,
        lambda inner: (
            st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=2)
        ),
        max_leaves=4,
    )


def _shapes() -> SearchStrategy[Shape]:
    inner = st.recursive(_plain(), _compound, max_leaves=3)
    annotations: Values = st.fixed_dictionaries(
        {},
        optional={
            "title": st.just("T"),
            "description": st.just("what it is for"),
            "$schema": st.just("https://json-schema.org/draft/2020-12/schema"),
            "$id": st.just("https://example.org/s.json"),
            "examples": st.just([1]),
        },
    )
    return st.one_of(
        inner,
        _compound(_plain()),
        _objects(_plain()),
        st.builds(lambda shape, extra: Shape({**extra, **shape.schema}, shape.values), inner, annotations),
        inner.map(_referred),
    )


def _referred(shape: Shape) -> Shape:
    """A list of one or two, each by reference."""
    schema = {"type": "array", "items": {"$ref": "#/$defs/one"}, "minItems": 1, "maxItems": 2}
    return Shape({**schema, "$defs": {"one": shape.schema}}, st.lists(shape.values, min_size=1, max_size=2))


def _whole(low: int, width: int, step: int | None, exclusive: bool) -> Shape:
    bounds = {"exclusiveMinimum": low - 1} if exclusive else {"minimum": low}
    schema = {"type": "integer", **bounds, "maximum": low + width}
    if step is None:
        return Shape(schema, st.integers(low, low + width))
    steps = st.integers(-(-low // step), (low + width) // step).map(lambda each: each * step)
    return Shape({**schema, "multipleOf": step}, steps)


def _string(least: int, more: int) -> Shape:
    schema = {"type": "string", "minLength": least, "maxLength": least + more}
    return Shape(schema, st.text(ALPHABET, min_size=least, max_size=least + more))


def _pattern(pattern: str) -> Shape:
    texts = st.from_regex(
        re.compile(pattern.strip("^$")), fullmatch=True, alphabet=st.sampled_from("abc0127Zé- ")
    )
    return Shape({"type": "string", "pattern": pattern}, texts)


def _plain() -> SearchStrategy[Shape]:
    few = st.lists(
        json_values(), min_size=1, max_size=3, unique_by=lambda each: json.dumps(each, sort_keys=True)
    )
    return st.one_of(
        st.just(Shape({"type": "null"}, st.none())),
        st.just(Shape({"type": "boolean"}, st.booleans())),
        st.builds(_whole, st.integers(-20, 20), st.integers(0, 30), st.none(), st.booleans()),
        st.builds(_whole, st.integers(0, 9), st.integers(7, 30), st.sampled_from([2, 3, 7]), st.just(False)),
        st.integers(-5, 5).map(
            lambda low: Shape(
                {"type": "number", "minimum": low, "maximum": low + 2},
                st.sampled_from([low, low + 0.5, low + 1.25, low + 2]),
            )
        ),
        st.builds(_string, st.integers(0, 2), st.integers(0, 2)),
        st.sampled_from(["^[a-c]{2,3}$", "^a+b?$", r"^\d{2}$", "^(?:ab|c)$", "^[^a]$", "^é-?$"]).map(
            _pattern
        ),
        few.map(lambda each: Shape({"enum": each}, st.sampled_from(each))),
        json_values().map(lambda each: Shape({"const": each}, st.just(each))),
        st.integers(0, 9).map(
            lambda low: Shape(
                {"type": ["integer", "null"], "minimum": low, "maximum": low + 9},
                st.none() | st.integers(low, low + 9),
            )
        ),
        st.integers(0, 9).map(
            lambda low: Shape(
                {"allOf": [{"type": "integer", "minimum": low}, {"maximum": low + 9}]},
                st.integers(low, low + 9),
            )
        ),
        st.just(
            Shape(
                {"oneOf": [{"type": "boolean"}, {"type": "integer", "enum": [1, 2]}]},
                st.sampled_from([True, False, 1, 2]),
            )
        ),
    )


def _compound(shapes: SearchStrategy[Shape]) -> SearchStrategy[Shape]:
    return st.one_of(
        st.builds(_list, shapes, st.integers(0, 1), st.integers(0, 1)),
        st.lists(shapes, min_size=1, max_size=2).map(_tuple),
        _objects(shapes),
        st.lists(shapes, min_size=2, max_size=2).map(
            lambda each: Shape(
                {"anyOf": [one.schema for one in each]}, st.one_of(*(one.values for one in each))
            )
        ),
    )


def _objects(shapes: SearchStrategy[Shape]) -> SearchStrategy[Shape]:
    members = st.dictionaries(st.sampled_from(NAMES), shapes, min_size=1, max_size=2)
    return st.builds(_object, members, st.integers(0, 2))


def _list(item: Shape, least: int, more: int) -> Shape:
    schema = {"type": "array", "items": item.schema, "minItems": least, "maxItems": least + more}
    return Shape(schema, st.lists(item.values, min_size=least, max_size=least + more))


def _tuple(items: list[Shape]) -> Shape:
    schema = {
        "type": "array",
        "prefixItems": [each.schema for each in items],
        "items": False,
        "minItems": len(items),
    }
    return Shape(schema, st.tuples(*(each.values for each in items)).map(list))


def _object(members: dict[str, Shape], required: int) -> Shape:
    names = list(members)[:required]
    schema = {
        "type": "object",
        "properties": {name: each.schema for name, each in members.items()},
        "required": names,
        "additionalProperties": False,
    }
    missing = object()
    each = {
        name: shape.values if name in names else st.just(missing) | shape.values
        for name, shape in members.items()
    }
    return Shape(
        schema,
        st.fixed_dictionaries(each).map(
            lambda value: {name: value[name] for name in members if value[name] is not missing}
        ),
    )
