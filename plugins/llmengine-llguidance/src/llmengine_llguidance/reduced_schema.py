"""How a reduced schema hangs together: the few places where schemas stand, and its one kind of reference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

__all__ = ["REFERENCE", "Schema", "applied", "members", "target"]

Schema = dict[str, Any]

REFERENCE: Final = "#/$defs/"
"""What every ``$ref`` starts with; a name follows."""


def target(schema: Schema, definitions: Schema) -> Any:
    """What the ``$ref`` of a schema leads to."""
    return definitions[schema["$ref"].removeprefix(REFERENCE)]


def applied(schema: Any) -> Iterator[Any]:
    """The schemas that hold for the same value."""
    if isinstance(schema, dict):
        for keyword in ("allOf", "anyOf", "oneOf"):
            yield from schema.get(keyword, ())


def members(schema: Any) -> Iterator[tuple[str | None, Any]]:
    """The schemas that hold for what is in the value: by name, or None for all others."""
    if isinstance(schema, dict):
        yield from schema.get("properties", {}).items()
        yield from ((None, each) for each in schema.get("patternProperties", {}).values())
        yield from ((None, each) for each in schema.get("prefixItems", ()))
        yield from ((None, schema[each]) for each in ("additionalProperties", "items") if each in schema)
