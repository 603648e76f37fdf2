"""What may be stored: tables, keys, JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from llmengine_core.interfaces.store import StoreError

__all__ = ["check_bound", "check_key", "check_table", "decode", "encode"]

_TABLE = re.compile("[A-Za-z_]+")
_HALVES = re.compile("[\ud800-\udfff]")
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_KEY_LENGTH = 512


def check_table(table: str) -> None:
    """Raise ``StoreError`` for text that is no table's name."""
    if not _TABLE.fullmatch(table):
        raise StoreError(f'{table!r} is no table: allowed are the letters A to Z and a to z, and "_"')


def check_key(key: str) -> None:
    """Raise ``StoreError`` for text that is no key."""
    if len(key) > _KEY_LENGTH:
        raise StoreError(
            f"{key[:40]!r}... is no key: it has {len(key)} characters; allowed are {_KEY_LENGTH}"
        )
    if found := _FORBIDDEN.search(key):
        raise StoreError(
            f"{key!r} is no key: {found[0]!r} is a control character or half a character; "
            "allowed is any other Unicode"
        )


def check_bound(text: str) -> None:
    """Raise ``StoreError`` for text that no key can be compared with."""
    if found := _HALVES.search(text):
        raise StoreError(f"{text!r} bounds no keys: {found[0]!r} is half a character; give whole ones")


def encode(value: Mapping[str, Any]) -> str:
    """A value as JSON text. Raises ``StoreError`` where it would not come back equal."""
    allowed = "allowed are dicts with text as keys, lists, text, whole and finite numbers, booleans and None"
    try:
        text = json.dumps(dict(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        text.encode()
        same = json.loads(text) == value
    except (TypeError, ValueError, RecursionError) as error:
        raise StoreError(f"the value is no JSON object: {error}; {allowed}") from None
    if not same:
        raise StoreError(f"the value would not come back equal, as of tuples or numbers as keys; {allowed}")
    return text


def decode(text: str) -> dict[str, Any]:
    """A value from its JSON text. Raises ``StoreError`` where somebody else wrote what is none."""
    try:
        value = json.loads(text)
    except (TypeError, ValueError) as error:
        raise StoreError(
            f"a row holds no JSON ({error}): {text!r:.80}; put a copy of the file back"
        ) from None
    if not isinstance(value, dict):
        raise StoreError(f"a row holds no JSON object: {text!r:.80}; put a copy of the file back")
    return value
