"""Keys: which texts name an object, and which names on disk belong to keys."""

from __future__ import annotations

import re

from llmengine_core.interfaces.storage import StorageError

__all__ = ["is_segment", "segments"]

_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters, and halves of surrogate pairs: what stands for bytes that are no UTF-8."""


def is_segment(name: str) -> bool:
    """Whether an entry of a folder can be a part of a key; others are never listed."""
    return not _FORBIDDEN.search(name)


def segments(key: str) -> list[str]:
    """The names of a key's folders and, last, of its file: "a/b/c" is ["a", "b", "c"].

    Raises ``StorageError`` for text that is no key.
    """
    if found := _FORBIDDEN.search(key):
        raise StorageError(
            f"{key!r} is no key: {found[0]!r} is a control character or half a character; "
            "allowed is any other Unicode"
        )
    names = key.split("/")
    for name in names:
        if name in {"", ".", ".."}:
            raise StorageError(
                f"{key!r} is no key: it has the segment {name!r}; "
                'segments are joined by one "/", and none is empty, "." or ".."'
            )
    return names
