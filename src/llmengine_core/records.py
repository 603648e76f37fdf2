"""Records as JSON and back."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import cache
from typing import Any, TypeVar

from llmengine_core.errors import ServerError

__all__ = ["from_json", "to_json"]

T = TypeVar("T")


@cache
def _adapter(kind: Hashable) -> Any:
    from pydantic import TypeAdapter  # a quarter of a second that only records need

    return TypeAdapter[Any](kind)


def to_json(record: object) -> dict[str, Any]:
    """A frozen dataclass as a JSON object."""
    value: dict[str, Any] = _adapter(type(record)).dump_python(record, mode="json")
    return value


def from_json(kind: type[T], value: Mapping[str, Any]) -> T:
    """The dataclass that ``to_json`` made it of. Raises ``ServerError`` where it isn't one."""
    from pydantic import ValidationError

    try:
        record: T = _adapter(kind).validate_python(dict(value))
    except ValidationError as error:
        raise ServerError(
            f"a stored {kind.__name__} can't be read ({error.error_count()} faults, the first at "
            f"{error.errors(include_input=False)[0]['loc']}); it was written by another version of llmengine"
        ) from None
    return record
