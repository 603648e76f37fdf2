"""What stands before the weights in a GGUF file, version 3."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import TypeAlias

__all__ = ["ALIGNMENT", "Value", "gguf_head"]

ALIGNMENT = 32
Value: TypeAlias = str | bool | int | float | Sequence[str] | Sequence[int]
"""Whole numbers are written in 32 bits, without a sign where they stand alone; others as 32-bit floats."""
U32, I32, F32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9


def gguf_head(
    metadata: Mapping[str, Value], tensors: Mapping[str, tuple[tuple[int, ...], int, int]]
) -> bytes:
    """Header and descriptions, filled up to where the weights begin.

    ``tensors`` gives for each name its shape, the length of a row last, its type and its bytes. Weights follow
    in this order, each filled up to a multiple of ``ALIGNMENT``.
    """
    parts = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    parts += [_text(name) + _value(value) for name, value in metadata.items()]
    start = 0
    for name, (shape, kind, size) in tensors.items():
        parts.append(_text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape)))
        parts.append(struct.pack("<IQ", kind, start))
        start += size + -size % ALIGNMENT
    head = b"".join(parts)
    return head + b"\0" * (-len(head) % ALIGNMENT)


def _text(text: str) -> bytes:
    octets = text.encode()
    return struct.pack("<Q", len(octets)) + octets


def _value(value: Value) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", STRING) + _text(value)
    if isinstance(value, bool):
        return struct.pack("<I?", BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", U32, value)
    if isinstance(value, float):
        return struct.pack("<If", F32, value)
    if value and isinstance(value[0], str):
        return struct.pack("<IIQ", ARRAY, STRING, len(value)) + b"".join(_text(str(each)) for each in value)
    return struct.pack(f"<IIQ{len(value)}i", ARRAY, I32, len(value), *value)
