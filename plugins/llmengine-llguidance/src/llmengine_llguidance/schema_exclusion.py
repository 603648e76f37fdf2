"""Whether two reduced schemas exclude each other, so that ``oneOf`` says no more than ``anyOf``.

The compiler takes only some ``oneOf``\\ s, and looks into no ``$ref``: the unions that pydantic writes it refuses.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Final

from llmengine_llguidance.reduced_schema import target

__all__ = ["Exclusion"]

_KINDS: Final = frozenset({"null", "boolean", "number", "string", "array", "object"})
_CASES = 64
_DEPTH = 16


@dataclass(frozen=True, slots=True)
class _Case:
    """What a value is known to be: one of these types, one of these constants, with these members."""

    kinds: frozenset[str] = _KINDS
    constants: frozenset[str] | None = None
    required: frozenset[str] = frozenset()
    members: dict[str, tuple[Any, ...]] = field(default_factory=dict)

    def narrowed(self, other: _Case) -> _Case:
        known = [each for each in (self.constants, other.constants) if each is not None]
        members = {
            name: self.members.get(name, ()) + other.members.get(name, ())
            for name in self.members.keys() | other.members.keys()
        }
        return _Case(
            self.kinds & other.kinds,
            frozenset.intersection(*known) if known else None,
            self.required | other.required,
            members,
        )


class Exclusion:
    """Judges schemas of one reduced document."""

    def __init__(self, definitions: dict[str, Any]) -> None:
        self._definitions = definitions
        self._cases: dict[int, list[_Case]] = {}

    def overlap(self, options: list[Any]) -> tuple[int, int] | None:
        """The numbers of the first two options that may both hold for one value, or None."""
        for second in range(len(options)):
            for first in range(second):
                if not self._exclude(options[first], options[second], _DEPTH):
                    return first, second
        return None

    def _exclude(self, one: Any, other: Any, depth: int) -> bool:
        return depth > 0 and all(
            self._apart(a, b, depth) for a, b in product(self._of(one, depth), self._of(other, depth))
        )

    def _apart(self, one: _Case, other: _Case, depth: int) -> bool:
        common = one.kinds & other.kinds
        if not common:
            return True
        if one.constants is not None and other.constants is not None:
            return not one.constants & other.constants
        return common == {"object"} and any(
            self._exclude(first, second, depth - 1)
            for name in sorted(one.required | other.required)
            for first, second in product(one.members.get(name, ()), other.members.get(name, ()))
        )

    def _of(self, schema: Any, depth: int) -> list[_Case]:
        known = self._cases.get(id(schema))
        if known is None:
            known = self._cases[id(schema)] = self._read(schema, depth)
        return known

    def _read(self, schema: Any, depth: int) -> list[_Case]:
        """All that a value which obeys may be; one case that says nothing where that is too much."""
        if not isinstance(schema, dict):
            return [] if schema is False else [_Case()]
        cases = [self._own(schema)]
        conjuncts: list[list[_Case]] = [self._of(each, depth) for each in schema.get("allOf", ())]
        if "$ref" in schema:
            conjuncts.append(
                self._of(target(schema, self._definitions), depth - 1) if depth > 1 else [_Case()]
            )
        conjuncts += [
            [case for each in schema[keyword] for case in self._of(each, depth)]
            for keyword in ("anyOf", "oneOf")
            if keyword in schema
        ]
        for conjunct in conjuncts:
            if len(cases) * len(conjunct) <= _CASES:
                cases = [one.narrowed(other) for one, other in product(cases, conjunct)]
        return cases

    @staticmethod
    def _own(schema: dict[str, Any]) -> _Case:
        given = schema.get("type", list(_KINDS))
        kinds = {
            "number" if each == "integer" else each for each in ([given] if isinstance(given, str) else given)
        }
        constants: Iterable[Any] | None = [schema["const"]] if "const" in schema else schema.get("enum")
        if constants is not None:
            constants = list(constants)
            kinds &= {_kind(each) for each in constants}
        return _Case(
            frozenset(kinds),
            None if constants is None else frozenset(json.dumps(each, sort_keys=True) for each in constants),
            frozenset(schema.get("required", ())),
            {name: (each,) for name, each in schema.get("properties", {}).items()},
        )


def _kind(value: Any) -> str:
    kinds = {type(None): "null", bool: "boolean", str: "string", list: "array", dict: "object"}
    return kinds.get(type(value), "number")
