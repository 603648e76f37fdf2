"""The header of a safetensors file: how many weights it holds, and whether it is whole.

A pure function on the file's first bytes. It trusts nothing that it reads: every length is held against the file's
size, and every tensor against its type and its neighbours.
"""

from __future__ import annotations

import json
import math
from typing import Any

from llmengine_core.gguf import BadHeader, MoreBytes

__all__ = ["count_parameters"]

HEADER_LIMIT = 8 << 20
"""Bytes of a header; larger ones are refused. The largest known, of a thousand tensors, take about 130 KB."""
MOST_DIMENSIONS = 16
BITS = {
    "F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32, "BF16": 16, "F16": 16, "I16": 16,
    "U16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "I8": 8, "U8": 8, "BOOL": 8, "F6_E2M3": 6, "F6_E3M2": 6,
    "F4": 4,
}  # fmt: skip
"""Of an element, by its type; types that came later are taken as they are."""


def count_parameters(head: bytes, size: int) -> int:
    """How many weights a safetensors file of ``size`` bytes holds that starts with ``head``; it is whole.

    Raises ``MoreBytes`` where ``head`` is too short to tell, ``BadHeader`` for a file that can't be loaded.
    """
    if size < 8:
        raise BadHeader(f"it has {size} bytes, too few for a safetensors file")
    if len(head) < 8:
        raise MoreBytes(8)
    length = int.from_bytes(head[:8], "little")
    if length > HEADER_LIMIT:
        raise BadHeader(f"its header claims {length:,} bytes; at most {HEADER_LIMIT:,} are read")
    if 8 + length > size:
        raise BadHeader(f"it is truncated: its header ends at byte {8 + length:,}, the file at {size:,}")
    if len(head) < 8 + length:
        raise MoreBytes(8 + length)
    header = _object(head[8 : 8 + length])
    parameters = 0
    places: list[tuple[int, int, str]] = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        elements, start, stop = _tensor(name, entry)
        parameters += elements
        places.append((start, stop, name))
    end = 0
    for start, stop, name in sorted(places):
        if start != end:
            raise BadHeader(
                f"its tensor {name[:80]!r} begins at byte {start:,} of the weights, not at {end:,}"
            )
        end = stop
    if 8 + length + end > size:
        raise BadHeader(
            f"it is truncated: its tensors end at byte {8 + length + end:,}, the file at {size:,}"
        )
    if 8 + length + end < size:
        raise BadHeader(
            f"it goes on behind its tensors, which end at byte {8 + length + end:,}, the file at {size:,}"
        )
    return parameters


def _tensor(name: str, entry: object) -> tuple[int, int, int]:
    """How many elements it has, and where it begins and ends."""
    shape, offsets = _counts(entry, "shape"), _counts(entry, "data_offsets")
    if shape is None or offsets is None or len(offsets) != 2:
        raise BadHeader(f"its header describes {name[:80]!r} without a shape and two offsets")
    elements = math.prod(shape)
    bits = BITS.get(str(entry.get("dtype"))) if isinstance(entry, dict) else None
    start, stop = offsets
    if start > stop or (bits is not None and elements * bits != 8 * (stop - start)):
        raise BadHeader(
            f"its header says of {name[:80]!r} that {elements:,} elements take {stop - start:,} bytes"
        )
    return elements, start, stop


def _object(written: bytes) -> dict[str, Any]:
    try:
        found = json.loads(written)
    except (ValueError, RecursionError) as error:
        raise BadHeader(f"its header is not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise BadHeader("its header is not a JSON object")
    return found


def _counts(entry: object, key: str) -> list[int] | None:
    """A short list of whole numbers of 64 bits; None where it is something else."""
    found = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(found, list) or len(found) > MOST_DIMENSIONS:
        return None
    return found if all(type(each) is int and 0 <= each < 2**64 for each in found) else None
