"""The header of a GGUF file: what the model is, how it is stored, and whether the file is whole.

A pure function on the file's first bytes. It trusts nothing that it reads: counts and lengths are held
against the file's size before they are believed, and no weights are looked at.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["MAGIC", "BadHeader", "GGUFHeader", "MoreBytes", "read_header"]

MAGIC = b"GGUF"
LIMIT = 32 << 20
"""Bytes; the largest header that is read. A vocabulary of 262,144 tokens takes about 10 MiB."""
STEP = 4 << 20
"""Bytes that are asked for at least, where more are needed."""
MOST_ENTRIES, MOST_TENSORS = 10_000, 100_000
"""Larger counts aren't believed; real files have about 50 and up to some thousands."""
SHORT = 1024
"""Longest text (bytes) and list that are kept; longer ones (vocabularies, templates) are passed over."""

Value: TypeAlias = int | float | bool | str | tuple[int | float | bool, ...]

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9

# How tensors are stored, by type: the name, how many elements a block has, how many bytes it takes.
TENSOR_TYPES = {
    0: ("f32", 1, 4), 1: ("f16", 1, 2), 2: ("q4_0", 32, 18), 3: ("q4_1", 32, 20), 6: ("q5_0", 32, 22),
    7: ("q5_1", 32, 24), 8: ("q8_0", 32, 34), 9: ("q8_1", 32, 40), 10: ("q2_k", 256, 84),
    11: ("q3_k", 256, 110), 12: ("q4_k", 256, 144), 13: ("q5_k", 256, 176), 14: ("q6_k", 256, 210),
    15: ("q8_k", 256, 292), 16: ("iq2_xxs", 256, 66), 17: ("iq2_xs", 256, 74), 18: ("iq3_xxs", 256, 98),
    19: ("iq1_s", 256, 50), 20: ("iq4_nl", 32, 18), 21: ("iq3_s", 256, 110), 22: ("iq2_s", 256, 82),
    23: ("iq4_xs", 256, 136), 24: ("i8", 1, 1), 25: ("i16", 1, 2), 26: ("i32", 1, 4), 27: ("i64", 1, 8),
    28: ("f64", 1, 8), 29: ("iq1_m", 256, 56), 30: ("bf16", 1, 2), 34: ("tq1_0", 256, 54),
    35: ("tq2_0", 256, 66), 39: ("mxfp4", 32, 17), 40: ("nvfp4", 64, 36), 41: ("q1_0", 128, 18),
}  # fmt: skip

# `general.file_type`: how most of the tensors are stored.
FILE_TYPES = {
    0: "f32", 1: "f16", 2: "q4_0", 3: "q4_1", 7: "q8_0", 8: "q5_0", 9: "q5_1", 10: "q2_k", 11: "q3_k_s",
    12: "q3_k_m", 13: "q3_k_l", 14: "q4_k_s", 15: "q4_k_m", 16: "q5_k_s", 17: "q5_k_m", 18: "q6_k",
    19: "iq2_xxs", 20: "iq2_xs", 21: "q2_k_s", 22: "iq3_xs", 23: "iq3_xxs", 24: "iq1_s", 25: "iq4_nl",
    26: "iq3_s", 27: "iq3_m", 28: "iq2_s", 29: "iq2_m", 30: "iq4_xs", 31: "iq1_m", 32: "bf16", 36: "tq1_0",
    37: "tq2_0", 38: "mxfp4", 39: "nvfp4", 40: "q1_0",
}  # fmt: skip


class MoreBytes(Exception):
    """The answer lies further into the file: read its first ``stop`` bytes and ask again."""

    def __init__(self, stop: int) -> None:
        super().__init__(stop)
        self.stop = stop


class BadHeader(ValueError):
    """The file isn't what it claims to be, or isn't whole; says why, and what mends it where something does."""

    def __init__(self, reason: str, mend: str | None = None) -> None:
        super().__init__(reason)
        self.reason, self.mend = reason, mend


@dataclass(frozen=True, slots=True)
class GGUFHeader:
    """What a GGUF file says of itself."""

    version: int
    metadata: Mapping[str, Value]
    """Scalars, short texts and short lists of numbers; vocabularies and templates are left out."""
    parameters: int
    """Elements of all tensors."""
    quantization: str
    """How most of the weights are stored: "q4_1", "f16"."""

    def number(self, key: str) -> int | None:
        """A whole number of the metadata; of a list that is the same throughout, that number."""
        value = self.metadata.get(key)
        if isinstance(value, tuple) and len(set(value)) == 1:
            value = value[0]
        return value if type(value) is int else None

    def text(self, key: str) -> str | None:
        """A text of the metadata."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None


def read_header(head: bytes, size: int) -> GGUFHeader:
    """Read the header of a GGUF file of ``size`` bytes that starts with ``head``.

    Raises ``MoreBytes`` where ``head`` is too short to tell, ``BadHeader`` for a file that can't be loaded.
    """
    cursor = _Cursor(head, size)
    if cursor.take(4) != MAGIC:
        raise BadHeader("it doesn't start with 'GGUF'")
    version = cursor.number("I")
    if version not in (2, 3):
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
        if swapped in (2, 3):
            raise BadHeader("it is stored big-endian; this machine reads little-endian files")
        raise BadHeader(f"its GGUF version is {version}; 2 and 3 can be read")
    tensor_count, metadata_count = cursor.number("Q"), cursor.number("Q")
    cursor.plausible(metadata_count, MOST_ENTRIES, 13, "metadata entries")
    metadata: dict[str, Value] = {}
    for _ in range(metadata_count):
        key = cursor.text("a metadata key")
        value = cursor.value(cursor.number("I"))
        if value is not None:
            metadata[key] = value
    cursor.plausible(tensor_count, MOST_TENSORS, 24, "tensors")
    parameters, stored = _read_tensors(cursor, tensor_count, metadata.get("general.alignment", 32))
    named = FILE_TYPES.get(metadata.get("general.file_type"))  # type: ignore[arg-type]
    most = min(stored, key=lambda name: (-stored[name], name), default="")
    return GGUFHeader(version, metadata, parameters, named or most)


def _read_tensors(cursor: _Cursor, count: int, alignment: object) -> tuple[int, Counter[str]]:
    """How many elements there are in all, and in each type; every tensor lies within the file."""
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise BadHeader(f"its general.alignment is {alignment!r}; it must be a power of two")
    stored: Counter[str] = Counter()
    end, last = 0, ""
    for _ in range(count):
        name = cursor.text("a tensor's name")
        dimensions = cursor.number("I")
        if dimensions > 8:
            raise BadHeader(f"the tensor {name!r} has {dimensions} dimensions; at most 8 make sense")
        elements = math.prod(cursor.number("Q") for _ in range(dimensions))
        kind, offset = cursor.number("I"), cursor.number("Q")
        kind_name, block, width = TENSOR_TYPES.get(kind, (f"type {kind}", 8, 1))  # at least a bit for each
        stored[kind_name] += elements
        if offset + -(-elements // block) * width > end:
            end, last = offset + -(-elements // block) * width, name
    start = -(-cursor.at // alignment) * alignment
    if start + end > cursor.size:
        raise BadHeader(
            f"it is truncated: the tensor {last!r} ends at byte {start + end:,}, the file at {cursor.size:,}"
        )
    return sum(stored.values()), stored


class _Cursor:
    """A place in the file's first bytes that never leaves them unnoticed."""

    def __init__(self, head: bytes, size: int) -> None:
        self.head, self.size, self.at = head, size, 0

    def reach(self, stop: int) -> None:
        """Make sure that the bytes before ``stop`` are here."""
        if stop <= len(self.head):
            return
        if stop > self.size:
            raise BadHeader(
                f"it is truncated: its header goes on behind the file's end at {self.size:,} bytes"
            )
        if stop > LIMIT:
            raise BadHeader(f"its header is larger than {LIMIT >> 20} MiB")
        raise MoreBytes(min(self.size, LIMIT, max(stop, 4 * len(self.head), STEP)))

    def plausible(self, count: int, most: int, least: int, what: str) -> None:
        """Refuse a count over ``most``, or of things that, at ``least`` bytes each, don't fit into the file."""
        if count > most or count * least > self.size - self.at:
            raise BadHeader(f"it claims {count:,} {what}, too many for a file of {self.size:,} bytes")

    def take(self, count: int) -> bytes:
        self.reach(self.at + count)
        self.at += count
        return self.head[self.at - count : self.at]

    def number(self, code: str) -> int:
        found: int = self.scalar(code)  # type: ignore[assignment]
        return found

    def scalar(self, code: str) -> int | float | bool:
        width = struct.calcsize(f"<{code}")
        found: int | float | bool = struct.unpack(f"<{code}", self.take(width))[0]
        return found

    def text(self, what: str) -> str:
        length = self.number("Q")
        if length > 65_535:
            raise BadHeader(f"{what} is {length:,} bytes long; at most 65,535 are allowed")
        return self.take(length).decode("utf-8", "backslashreplace")

    def value(self, kind: int) -> Value | None:
        """The value at this place, or None where it isn't worth keeping."""
        if kind in SCALARS:
            return self.scalar(SCALARS[kind])
        if kind == STRING:
            found = self.take(self.number("Q"))
            return found.decode("utf-8", "backslashreplace") if len(found) <= SHORT else None
        if kind == ARRAY:
            return self.array(self.number("I"), self.number("Q"))
        raise BadHeader(f"a metadata value has the unknown type {kind}")

    def array(self, kind: int, count: int) -> Value | None:
        """A short list of numbers; other lists are passed over."""
        if code := SCALARS.get(kind):
            found = self.take(count * struct.calcsize(f"<{code}"))
            return struct.unpack(f"<{count}{code}", found) if count <= SHORT else None
        if kind != STRING:
            raise BadHeader(
                f"a metadata list holds values of the type {kind}; only numbers and texts are known"
            )
        self.pass_over_texts(count)
        return None

    def pass_over_texts(self, count: int) -> None:
        """Step over a vocabulary: the one place where a header is long, so the loop is kept bare."""
        at, here, length_at = self.at, len(self.head) - 8, struct.Struct("<Q").unpack_from
        for _ in range(count):
            if at > here:
                self.reach(at + 8)  # raises
            at += 8 + length_at(self.head, at)[0]
        self.reach(at)
        self.at = at
