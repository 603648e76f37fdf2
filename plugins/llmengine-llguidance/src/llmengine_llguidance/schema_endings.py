"""Schemas that hold themselves wherever a value obeys them: no finite value does."""

from __future__ import annotations

from typing import Any

from llmengine_llguidance.endings import Body, never_ending
from llmengine_llguidance.reduced_schema import REFERENCE, Schema

__all__ = ["without_endless"]

_ROOT = ""
_ENDS: Body = ((),)
_SCALARS = {"null", "boolean", "integer", "number", "string"}


def without_endless(root: Any, definitions: Schema) -> tuple[Any, Schema]:
    """The schemas, ``False`` for each that only endless values obey."""
    endless = never_ending({name: _body(schema) for name, schema in {**definitions, _ROOT: root}.items()})
    if _ROOT in endless:
        return False, {}
    if not endless:
        return root, definitions
    ending = {name: _pruned(schema, endless) for name, schema in definitions.items() if name not in endless}
    return _pruned(root, endless), ending


def _body(schema: Any) -> Body:
    """What has to end for a value of the schema to end."""
    if not isinstance(schema, dict):
        return () if schema is False else _ENDS
    together: list[str | Body] = [_own(schema), *map(_body, schema.get("allOf", ()))]
    if "$ref" in schema:
        together.append(schema["$ref"].removeprefix(REFERENCE))
    together += [
        tuple((_body(each),) for each in schema[keyword])
        for keyword in ("anyOf", "oneOf")
        if keyword in schema
    ]
    return (tuple(together),)


def _own(schema: Schema) -> Body:
    types = schema.get("type", "null")  # without a type, null will do
    if (
        _SCALARS & ({types} if isinstance(types, str) else set(types))
        or "const" in schema
        or "enum" in schema
    ):
        return _ENDS
    options: list[tuple[str | Body, ...]] = []
    if "array" in types:
        prefix = schema.get("prefixItems", [])
        items = [*prefix, schema.get("items", True)][: schema.get("minItems", 0)]
        options.append(tuple(map(_body, items)))
    if "object" in types:
        properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
        options.append(tuple(_body(properties.get(name, others)) for name in schema.get("required", ())))
    return tuple(options)


def _pruned(schema: Any, endless: set[str]) -> Any:
    if isinstance(schema, list):
        return [_pruned(each, endless) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("$ref", "").removeprefix(REFERENCE) in endless:
        return False
    pruned = dict(schema)
    for keyword in ("allOf", "anyOf", "oneOf", "prefixItems", "items", "additionalProperties"):
        if keyword in schema:
            pruned[keyword] = _pruned(schema[keyword], endless)
    for keyword in ("properties", "patternProperties"):
        if keyword in schema:
            pruned[keyword] = {name: _pruned(each, endless) for name, each in schema[keyword].items()}
    return pruned
