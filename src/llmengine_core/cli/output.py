"""Results as JSON, and as text that lines up."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path

__all__ = ["as_json", "count_text", "fields_of", "size_text", "table"]

LINES = "\n"
"""What may be in a value of several lines."""


def as_json(value: object, *, indent: int | None = None) -> str:
    """JSON text of plain values, dataclasses, paths and sets; readable where standard output takes UTF-8."""
    escaped = sys.stdout.encoding.lower() != "utf-8"
    return json.dumps(value, ensure_ascii=escaped, allow_nan=False, indent=indent, default=_plain)


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name) for each in fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a {type(value).__name__} has no form in JSON")


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    """Rows under a header, each column as wide as its widest cell; nothing where there are no rows.

    Names are whatever somebody gave: what could end a line or command a terminal is shown as "?".
    """
    if not rows:
        return
    cells = [[_harmless(str(cell)) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def fields_of(values: Mapping[str, object]) -> Iterator[str]:
    """One line for each field that has a value, harmless as in a ``table``; a value may have several lines."""
    width = max(map(len, values), default=0)
    for name, value in values.items():
        if value is not None:
            yield f"{name.ljust(width)}  {_harmless(str(value), besides=LINES)}"


def _harmless(text: str, *, besides: str = "") -> str:
    return "".join(each if each.isprintable() or each in besides else "?" for each in text)


def size_text(size: float) -> str:
    """A number of bytes for people: "94.6 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def count_text(count: float) -> str:
    """A number of parameters for people: "135M", "6.7B"."""
    if count < 999.5e6:
        return f"{count / 1e6:.3g}M"
    return f"{count / 1e9:.3g}B" if count < 999.5e9 else f"{count / 1e12:.3g}T"
