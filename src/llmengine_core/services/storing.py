"""Errors of stores and storages as ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from llmengine_core.errors import ServerError
from llmengine_core.interfaces.storage import ObjectMissing, StorageError
from llmengine_core.interfaces.store import RowConflict, RowExists, StoreError

__all__ = ["could_be_a_key", "storage_errors", "store_errors"]


@contextmanager
def store_errors() -> Iterator[None]:
    """Raise a ``StoreError`` as a ``ServerError``; what callers act on (exists, conflict) passes."""
    try:
        yield
    except (RowExists, RowConflict):
        raise
    except StoreError as error:
        raise ServerError(f"the metadata store failed: {error}") from error


@contextmanager
def storage_errors() -> Iterator[None]:
    """Raise a ``StorageError`` as a ``ServerError``; what callers act on (missing) passes."""
    try:
        yield
    except ObjectMissing:
        raise
    except StorageError as error:
        raise ServerError(f"the object storage failed: {error}") from error


def could_be_a_key(name: str) -> bool:
    """Whether a store can have a row of that name at all."""
    return 0 < len(name) <= 512 and name.isprintable()
