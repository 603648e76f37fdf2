"""The weights of small checkpoints as numbers, read by the formats' own arithmetic and by no code of an engine's."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

__all__ = ["Tensors", "Unreadable", "drift", "read_tensors"]

Tensors = Mapping[str, list[float]]
"""Weights by tensor, in the order in which they are stored."""
BLOCK = 32
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


class Unreadable(Exception):
    """Stored in a way that isn't read here."""


def read_tensors(path: Path) -> Tensors:
    """All weights of a file, or of the safetensors files of a folder. Raises ``Unreadable``."""
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if not files:
        raise Unreadable(f"{path.name} holds no safetensors files")
    found: dict[str, list[float]] = {}
    for file in files:
        content = file.read_bytes()
        found |= _gguf(content) if content.startswith(b"GGUF") else _safetensors(content)
    return found


def drift(before: Tensors, after: Tensors) -> Mapping[str, float]:
    """How far weights have moved: "largest", "mean", and "relative", the root of the squares over those before.

    Tensors of one name are compared number by number. Where names differ, as between formats, all numbers are
    compared in order of their size, which is as far as one can tell without knowing which became which.
    """
    if before.keys() == after.keys():
        pairs = [
            (one, other) for name in before for one, other in zip(before[name], after[name], strict=True)
        ]
    else:
        ones, others = (
            sorted(number for each in found.values() for number in each) for found in (before, after)
        )
        if len(ones) != len(others):
            raise Unreadable(f"there were {len(ones):,} weights, and there are {len(others):,}")
        pairs = list(zip(ones, others, strict=True))
    moved = [abs(one - other) for one, other in pairs]
    whole = math.fsum(one * one for one, _ in pairs)
    return {
        "largest": max(moved, default=0.0),
        "mean": math.fsum(moved) / max(len(moved), 1),
        "relative": math.sqrt(math.fsum(each * each for each in moved) / whole) if whole else 0.0,
    }


# -- safetensors ------------------------------------------------------------------------------------------------


def _safetensors(content: bytes) -> dict[str, list[float]]:
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    readers: Mapping[str, Callable[[bytes], list[float]]] = {"F32": _f32, "F16": _f16, "BF16": _bf16}
    found: dict[str, list[float]] = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in readers:
            raise Unreadable(f"{name} is stored as {entry['dtype']}")
        start, stop = entry["data_offsets"]
        found[name] = readers[entry["dtype"]](content[8 + length + start : 8 + length + stop])
    return found


def _f32(content: bytes) -> list[float]:
    return list(struct.unpack(f"<{len(content) // 4}f", content))


def _f16(content: bytes) -> list[float]:
    return list(struct.unpack(f"<{len(content) // 2}e", content))


def _bf16(content: bytes) -> list[float]:
    return _f32(b"".join(b"\0\0" + content[at : at + 2] for at in range(0, len(content), 2)))


# -- GGUF -------------------------------------------------------------------------------------------------------


def _q8_0(block: bytes) -> Iterator[float]:
    scale, *numbers = struct.unpack("<e32b", block)
    return (scale * number for number in numbers)


def _halves(stored: bytes) -> list[int]:
    """Sixteen low halves of bytes, then the high ones."""
    return [byte & 15 for byte in stored] + [byte >> 4 for byte in stored]


def _fifths(high: bytes, stored: bytes) -> list[int]:
    """The same with a fifth bit for each."""
    bits = int.from_bytes(high, "little")
    return [low | (bits >> n & 1) << 4 for n, low in enumerate(_halves(stored))]


def _q4_0(block: bytes) -> Iterator[float]:
    (scale,) = struct.unpack("<e", block[:2])
    return (scale * (number - 8) for number in _halves(block[2:]))


def _q4_1(block: bytes) -> Iterator[float]:
    scale, low = struct.unpack("<2e", block[:4])
    return (scale * number + low for number in _halves(block[4:]))


def _q5_0(block: bytes) -> Iterator[float]:
    (scale,) = struct.unpack("<e", block[:2])
    return (scale * (number - 16) for number in _fifths(block[2:6], block[6:]))


def _q5_1(block: bytes) -> Iterator[float]:
    scale, low = struct.unpack("<2e", block[:4])
    return (scale * number + low for number in _fifths(block[4:8], block[8:]))


WHOLE: Mapping[int, tuple[int, Callable[[bytes], list[float]]]] = {0: (4, _f32), 1: (2, _f16), 30: (2, _bf16)}
"""Types of one number each, by number: bytes, and how they are read."""
BLOCKS: Mapping[int, tuple[int, Callable[[bytes], Iterator[float]]]] = {
    2: (18, _q4_0), 3: (20, _q4_1), 6: (22, _q5_0), 7: (24, _q5_1), 8: (34, _q8_0),
}  # fmt: skip
"""Types of 32 numbers each."""


class _Reader:
    """A place in a file."""

    def __init__(self, content: bytes) -> None:
        self.content, self.at = content, 0

    def numbers(self, form: str) -> tuple[int, ...]:
        found = struct.unpack_from(f"<{form}", self.content, self.at)
        self.at += struct.calcsize(f"<{form}")
        return found

    def text(self) -> str:
        (length,) = self.numbers("Q")
        self.at += length
        return self.content[self.at - length : self.at].decode(errors="replace")

    def value(self, kind: int) -> object:
        if kind == 8:
            return self.text()
        if kind == 9:
            inner, count = self.numbers("IQ")
            for _ in range(count):
                self.value(inner)
            return None
        return self.numbers(SCALARS[kind])[0]


def _gguf(content: bytes) -> dict[str, list[float]]:
    reader = _Reader(content)
    _, _, tensors, entries = reader.numbers("IIQQ")
    alignment = 32
    for _ in range(entries):
        key = reader.text()
        (kind,) = reader.numbers("I")
        value = reader.value(kind)
        if key == "general.alignment" and isinstance(value, int):
            alignment = value
    described: list[tuple[str, int, int, int]] = []
    for _ in range(tensors):
        name = reader.text()
        (dimensions,) = reader.numbers("I")
        size = math.prod(reader.numbers(f"{dimensions}Q"))
        kind, at = reader.numbers("IQ")
        described.append((name, size, kind, at))
    start = -(-reader.at // alignment) * alignment
    return {name: _stored(content[start + at :], size, kind, name) for name, size, kind, at in described}


def _stored(content: bytes, size: int, kind: int, name: str) -> list[float]:
    if kind in WHOLE:
        width, read = WHOLE[kind]
        return read(content[: width * size])
    if kind not in BLOCKS:
        raise Unreadable(f"{name} is stored as GGUF's type {kind}")
    width, block = BLOCKS[kind]
    return [each for at in range(0, size // BLOCK * width, width) for each in block(content[at : at + width])]
