"""Whether a reduced schema is of a shape that the compiler survives, and quickly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from functools import reduce
from math import lcm
from typing import Any

from llmengine_llguidance import limits
from llmengine_llguidance.reduced_schema import REFERENCE, Schema, applied, members, target
from llmengine_llguidance.schema_document import SchemaError, UnsupportedKeywordError

__all__ = ["check_shape"]

_BOUNDS = ("minimum", "maximum")


def check_shape(root: Any, definitions: Schema) -> None:
    """Return where the schema nests within bounds and asks for a bounded number of things at once.

    Raises ``SchemaError`` where a schema refers to itself without consuming anything, or nests too deeply, and
    ``UnsupportedKeywordError`` where too many patterns or multiples have to hold together.
    """
    _check_progress(definitions)
    _check_depth(root, definitions)
    _Demands(definitions).of(root)


def _check_progress(definitions: Schema) -> None:
    def references(schema: Any) -> Iterator[str]:
        if isinstance(schema, dict) and "$ref" in schema:
            yield schema["$ref"].removeprefix(REFERENCE)
        for each in applied(schema):
            yield from references(each)

    leads_to = {name: set(references(schema)) for name, schema in definitions.items()}
    while leads_to:
        ends = {name for name, targets in leads_to.items() if not targets & leads_to.keys()}
        if not ends:
            raise SchemaError("a $ref leads back to itself without consuming anything")
        leads_to = {name: targets for name, targets in leads_to.items() if name not in ends}


def _check_depth(root: Any, definitions: Schema) -> None:
    """Walk as the compiler does: depth first, into each definition where it is first met."""
    seen: set[str] = set()
    stack: list[Iterator[Any]] = [iter([root])]
    while stack:
        schema = next(stack[-1], None)
        if schema is None:
            stack.pop()
        elif isinstance(schema, dict):
            below = [*applied(schema), *(each for _, each in members(schema))]
            if "$ref" in schema and schema["$ref"] not in seen:
                seen.add(schema["$ref"])
                below.append(target(schema, definitions))
            stack.append(iter(below))
            if len(stack) > limits.SCHEMA_DEPTH:
                raise SchemaError(f"it is more than {limits.SCHEMA_DEPTH} levels deep, $refs followed")


@dataclass(frozen=True, slots=True)
class _Load:
    """What one value has to satisfy together."""

    patterns: int = 0
    multiple: int = 1
    is_stepped: bool = False
    """Only integers or multiples will do."""
    has_fraction: bool = False
    """A bound or a multiple lies between integers: where these leave no step, llguidance notices too late."""
    is_torn: bool = False
    """Both of these, in schemas that hold together."""

    def __add__(self, other: _Load) -> _Load:
        torn = (self.is_stepped and other.has_fraction) or (self.has_fraction and other.is_stepped)
        return _Load(
            self.patterns + other.patterns,
            lcm(self.multiple, other.multiple),
            self.is_stepped or other.is_stepped,
            self.has_fraction or other.has_fraction,
            self.is_torn or other.is_torn or torn,
        )

    def __or__(self, other: _Load) -> _Load:
        return _Load(
            max(self.patterns, other.patterns),
            max(self.multiple, other.multiple),
            self.is_stepped or other.is_stepped,
            self.has_fraction or other.has_fraction,
            self.is_torn or other.is_torn,
        )


_NOTHING = _Load()


@dataclass(slots=True)
class _Demand:
    """The load of a value, and the heaviest within its members: by name, and of all others."""

    here: _Load = _NOTHING
    others: _Load = _NOTHING
    named: dict[str, _Load] = field(default_factory=dict)

    def joined(self, other: _Demand, join: Callable[[_Load, _Load], _Load]) -> _Demand:
        return _Demand(
            join(self.here, other.here),
            join(self.others, other.others),
            {
                name: join(self.named.get(name, self.others), other.named.get(name, other.others))
                for name in self.named.keys() | other.named.keys()
            },
        )

    @property
    def peak(self) -> _Load:
        return reduce(_Load.__or__, self.named.values(), self.here | self.others)


class _Demands:
    """What schemas ask for at once, at any depth of the values they describe."""

    def __init__(self, definitions: Schema) -> None:
        self._definitions = definitions
        self._known: dict[str, _Demand] = {}

    def of(self, schema: Any) -> _Demand:
        if not isinstance(schema, dict):
            return _Demand()
        demand = self._own(schema)
        if "$ref" in schema:
            demand = demand.joined(self._referred(schema["$ref"]), _Load.__add__)
        for each in schema.get("allOf", ()):
            demand = demand.joined(self.of(each), _Load.__add__)
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                options = [self.of(each) for each in schema[keyword]]
                either = reduce(lambda one, other: one.joined(other, _Load.__or__), options)
                demand = demand.joined(either, _Load.__add__)
        self._check(demand.peak)
        return demand

    def _own(self, schema: Schema) -> _Demand:
        multiple = Decimal(repr(schema.get("multipleOf", 1)))
        digits = int(multiple.scaleb(-min(int(multiple.as_tuple().exponent), 0)))
        fraction = any(schema[each] != int(schema[each]) for each in _BOUNDS if each in schema)
        step = schema.get("multipleOf", 1)
        load = _Load(
            "pattern" in schema,
            digits,
            is_stepped="integer" in schema.get("type", ()) or "multipleOf" in schema,
            has_fraction=fraction or step != int(step),
            is_torn=fraction and "multipleOf" in schema,
        )
        demand = _Demand(load)
        for name, each in members(schema):
            peak = self.of(each).peak
            if name is None:
                demand.others |= peak
            else:
                demand.named[name] = peak
        return demand

    def _referred(self, reference: str) -> _Demand:
        name = reference.removeprefix(REFERENCE)
        if name not in self._known:
            self._known[name] = _Demand()  # a schema within itself asks for no more than it does outside
            self._known[name] = self.of(self._definitions[name])
        return self._known[name]

    @staticmethod
    def _check(load: _Load) -> None:
        if load.patterns > limits.SCHEMA_PATTERNS:
            most = f"at most {limits.SCHEMA_PATTERNS}, format included, may hold for one string together"
            raise UnsupportedKeywordError(f"pattern can't be enforced {load.patterns} times over: {most}")
        if load.multiple > limits.MULTIPLE:
            raise UnsupportedKeywordError(
                f"multipleOf can't be enforced where several make {load.multiple}; at most {limits.MULTIPLE} is taken"
            )
        if load.is_torn:
            raise UnsupportedKeywordError(
                "minimum and maximum can't be enforced with a fraction where multipleOf or integers are asked for, too"
            )
