"""What options hold, in the form that the core's checks take it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

__all__ = ["json_object", "read_input", "text_or_file", "text_pairs"]


def text_or_file(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """A text as it is, or with ``@`` before it the content of the file of that path."""
    if value is None or not value.startswith("@"):
        return value
    try:
        return Path(value[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise click.BadParameter(f"{value[1:]!r} can't be read: {error}", context, option) from None


def json_object(option: str, text: str | None) -> dict[str, Any] | None:
    """The JSON object that an option's text is."""
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"it is no JSON: {error}", param_hint=option) from None
    if not isinstance(value, dict):
        raise click.BadParameter(
            f"it is a {type(value).__name__}; it must be a JSON object", param_hint=option
        )
    return value


def text_pairs(option: str, pairs: tuple[str, ...]) -> dict[str, str]:
    """``KEY=VALUE``, any number of times, as a dict."""
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise click.BadParameter(f"{pair!r} has no '='; it must be KEY=VALUE", param_hint=option)
        found[key] = value
    return found


def read_input() -> str:
    """All of standard input, as it is."""
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise click.BadParameter(
            f"standard input is not UTF-8: {error.reason} at byte {error.start}", param_hint="PROMPT"
        ) from None
