"""Objects: content under keys, behind one URL scheme."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from llmengine_core.types.objects import ObjectMeta

__all__ = ["ObjectExists", "ObjectMissing", "OnBytes", "PreconditionFailed", "Storage", "StorageError"]

OnBytes: TypeAlias = Callable[[int, int | None], None]
"""Called with the bytes that are done, and those in all where that is known."""


class StorageError(Exception):
    """The storage can't do it; the message says why, and what mends it."""


class ObjectMissing(StorageError):
    """There is no object under that key."""


class ObjectExists(StorageError):
    """A create-only put met an object."""


class PreconditionFailed(StorageError):
    """A compare-and-set put met another content than the one it expected."""


class Storage(ABC):
    """Objects under one URL.

    Keys are relative: segments of any Unicode but control characters, joined by "/"; none is empty, "."
    or "..". Another key is a ``StorageError`` before anything is touched; none ever leads outside the
    storage's URL. Whatever breaks off leaves nothing behind: an object is there whole, or not at all.
    """

    @abstractmethod
    async def put(
        self,
        key: str,
        content: bytes | AsyncIterable[bytes],
        *,
        mode: Literal["overwrite", "create"] = "overwrite",
        if_match: str | None = None,
    ) -> ObjectMeta:
        """Write an object. Content is streamed: memory stays bounded at any size.

        ``mode="create"`` raises ``ObjectExists`` where there is one. ``if_match`` (an etag; with mode
        "overwrite" only) raises ``PreconditionFailed`` where the object is another or missing. Of several
        writers at once, exactly one wins a create or a compare-and-set. Durable when it returns.
        """

    @abstractmethod
    def get(self, key: str, *, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        """Stream bytes ``start`` to ``stop`` (exclusive; None is the end). Raises ``ObjectMissing``.

        A range beyond the end gives what there is, possibly nothing. Pieces are at most 16 MiB.
        """

    @abstractmethod
    async def head(self, key: str) -> ObjectMeta:
        """Describe an object. Raises ``ObjectMissing``."""

    @abstractmethod
    def list(self, prefix: str = "", *, after: str | None = None) -> AsyncGenerator[ObjectMeta, None]:
        """Describe the objects whose keys start with ``prefix`` (any text), in order of their UTF-8 bytes,
        from behind the key ``after`` on. Asks page by page; bounded memory."""

    @abstractmethod
    async def delete(self, key: str) -> bool:
        """Remove an object; whether there was one."""

    @abstractmethod
    async def copy(self, source: str, target: str) -> ObjectMeta:
        """Copy an object within the storage, without its content passing through here where possible."""

    def path(self, key: str) -> Path | None:
        """The object or folder as a path on this machine; None where it isn't one (the default)."""
        return None

    async def bring(self, keys: Sequence[str], *, on_progress: OnBytes) -> Path | None:
        """Have objects on this machine by the storage's own means: the folder in which they lie under their keys.

        None where it has no means of its own (the default): whoever wants them streams them with ``get``. What it
        brings is whole, checked against the digests that it vouches for, and shared with others of this machine.
        Calls at once are safe; one that breaks off is resumed by the next.
        """
        return None

    async def is_here(self) -> bool:
        """Whether weights at its URL lie on this machine already, by the storage's own means; asks nobody elsewhere.

        False where it has no means of its own (the default).
        """
        return False

    async def settled(self) -> str | None:
        """The URL by which what lies here now can be had for good, whatever comes to lie here later.

        None where there is none (the default): then etags tell what has changed.
        """
        return None

    async def presign(self, key: str, *, expires: float, method: Literal["GET", "PUT"] = "GET") -> str:
        """A URL that gives whoever holds it access for ``expires`` seconds.

        Storages that can't raise ``StorageError``; on local disk it is the object's ``file://`` URL.
        """
        raise StorageError(f"{type(self).__name__} has no URLs that grant access")

    @abstractmethod
    async def aclose(self) -> None:
        """Let go. Idempotent."""
