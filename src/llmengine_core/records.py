"""Records as JSON and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from llmengine_core.errors import ServerError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = ["from_json", "to_json"]

T = TypeVar("T")


_adapters: dict[type[Any], TypeAdapter[Any]] = {}


def _adapter(kind: type[T]) -> TypeAdapter[T]:
    adapter = _adapters.get(kind)
    if adapter is None:
        from pydantic import TypeAdapter  # a quarter of a second that only records need

        adapter = _adapters[kind] = TypeAdapter(kind)
    return adapter


def to_json(record: object) -> dict[str, Any]:
    """A frozen dataclass as a JSON object."""
    value: dict[str, Any] = _adapter(type(record)).dump_python(record, mode="json")
    return value


def from_json(kind: type[T], value: Mapping[str, Any]) -> T:
    """The dataclass that ``to_json`` made it of. Raises ``ServerError`` where it isn't one."""
    from pydantic import ValidationError

    try:
        return _adapter(kind).validate_python(dict(value))
    except ValidationError as error:
        raise ServerError(
            f"a stored {kind.__name__} can't be read ({error.error_count()} faults, the first at "
            f"{error.errors(include_input=False)[0]['loc']}); it was written by another version of llmengine"
        ) from None
