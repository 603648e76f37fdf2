"""How many readings of a text a schema leaves open at once.

llama.cpp follows 2,000. Beyond, it drops the constraint and goes on without, so what could come near is
refused: an object stands at each of its optional properties, and at those of all its alternatives, until one
that is required, or the name of a property, tells them apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

from llmengine_llguidance import limits
from llmengine_llguidance.reduced_schema import Schema, applied, members, target
from llmengine_llguidance.schema_document import UnsupportedKeywordError

__all__ = ["check_width"]

# Measured: an object or a list is 7 readings, and 4 more for each property that may be left out.
_ALTERNATIVE = 7
_OPTIONAL = 4


def check_width(root: Any, definitions: Schema) -> None:
    """Return where no value of the schema can be read in more than ``limits.READINGS`` ways at once.

    Raises ``UnsupportedKeywordError`` where one may.
    """
    widths = _Widths(definitions)
    pending = [root, *definitions.values()]
    while pending:
        schema = pending.pop()
        widths.check(schema)
        pending += [*applied(schema), *(each for _, each in members(schema))]


@dataclass(frozen=True, slots=True)
class _Shape:
    """One alternative for a value that is an object or a list."""

    optional: int = 0
    """Properties in a row that may be left out, at most."""
    is_named: bool = False
    is_tagged: bool = False
    """The first property is required and a constant: alternatives part there."""

    def narrowed(self, other: _Shape) -> _Shape:
        return _Shape(
            self.optional + other.optional,
            self.is_named or other.is_named,
            self.is_tagged or (other.is_tagged and not self.is_named),
        )


class _Widths:
    def __init__(self, definitions: Schema) -> None:
        self._definitions = definitions
        self._known: dict[int, tuple[_Shape, ...]] = {}

    def check(self, schema: Any) -> None:
        shapes = self._of(schema)
        together = sum(1 if each.is_tagged else _readings(each) for each in shapes)
        readings = max([together, *map(_readings, shapes)])
        if readings > limits.READINGS:
            raise UnsupportedKeywordError(
                f"properties and anyOf can't be enforced where a text may be read in {readings:,} ways at once; at "
                f"most {limits.READINGS:,} are followed: require properties, or have fewer alternatives"
            )

    def _of(self, schema: Any) -> tuple[_Shape, ...]:
        known = self._known.get(id(schema))
        if known is None:
            known = self._known[id(schema)] = self._read(schema)
        return known

    def _read(self, schema: Any) -> tuple[_Shape, ...]:
        if not isinstance(schema, dict):
            return (_Shape(),) if schema else ()
        shapes = _own(schema)
        conjuncts = [self._of(each) for each in schema.get("allOf", ())]
        if "$ref" in schema:
            conjuncts.append(self._of(target(schema, self._definitions)))
        conjuncts += [
            tuple(shape for each in schema[keyword] for shape in self._of(each))
            for keyword in ("anyOf", "oneOf")
            if keyword in schema
        ]
        for conjunct in conjuncts:
            if len(shapes) * len(conjunct) > limits.READINGS:
                return (_Shape(optional=limits.READINGS),)
            shapes = tuple(one.narrowed(other) for one, other in product(shapes, conjunct))
        return shapes


def _own(schema: Schema) -> tuple[_Shape, ...]:
    constants = [schema["const"]] if "const" in schema else schema.get("enum")
    if constants is not None:
        return tuple(
            _Shape(is_named=True, is_tagged=True) for each in constants if isinstance(each, dict | list)
        )
    types = schema.get("type", ("array", "object"))
    if "object" not in types:
        return (_Shape(),) if "array" in types else ()
    properties, required = schema.get("properties", {}), set(schema.get("required", ()))
    run = longest = 0
    for name in properties:
        run = 0 if name in required else run + 1
        longest = max(longest, run)
    first = next(iter(properties), None)
    constant = properties[first] if first in required else None
    is_tagged = isinstance(constant, dict) and ("const" in constant or "enum" in constant)
    return (_Shape(longest, bool(properties), is_tagged),)


def _readings(shape: _Shape) -> int:
    return _ALTERNATIVE + _OPTIONAL * shape.optional
