"""What a GGUF file holds: all of its metadata, and where its tensors lie."""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

__all__ = ["Gguf", "NotFit", "Tensor", "read"]

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9


class NotFit(ValueError):
    """Why a checkpoint can't be worked on; for whoever gave it."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor as it is stored."""

    name: str
    shape: tuple[int, ...]
    """As models have it: the length of a row last."""
    type: int
    start: int
    """Byte of the file."""


@dataclass(frozen=True, slots=True)
class Gguf:
    """An open file."""

    metadata: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    """In the order of the file."""
    content: mmap.mmap

    def weights(self, tensor: Tensor) -> np.ndarray:
        """A tensor as 32-bit floats."""
        kind = gguf.GGMLQuantizationType(tensor.type)
        block, size = gguf.GGML_QUANT_SIZES[kind]
        *rows, length = tensor.shape
        width = length // block * size
        stored = np.frombuffer(self.content, np.uint8, math.prod(rows) * width, tensor.start)
        try:
            found: np.ndarray = gguf.quants.dequantize(stored.reshape(*rows, width), kind)
        except NotImplementedError:
            raise NotFit(
                f"{tensor.name} is stored as {kind.name.lower()}, which can't be read here"
            ) from None
        return found.astype(np.float32, copy=False)


def read(path: Path) -> Gguf:
    """Open a file. Raises ``NotFit`` for one that is no whole GGUF file, ``OSError``."""
    with path.open("rb") as file:
        try:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise NotFit("it is empty") from None
    cursor = Cursor(content)
    try:
        return cursor.file()
    except (struct.error, UnicodeDecodeError, KeyError, OverflowError, RecursionError) as error:
        raise NotFit(f"it is damaged: {error!r} at byte {cursor.at:,}") from None


class Cursor:
    """A place in a file."""

    def __init__(self, content: mmap.mmap) -> None:
        self.content, self.at = content, 0

    def file(self) -> Gguf:
        """Everything, from the start."""
        if self.content[:4] != b"GGUF":
            raise NotFit("it is no GGUF file")
        self.at = 4
        version, tensors, entries = self.scalar("I"), self.scalar("Q"), self.scalar("Q")
        if version not in (2, 3):
            raise NotFit(f"its GGUF version is {version}; 2 and 3 can be read")
        metadata = {}
        for _ in range(entries):
            name = self.text()
            metadata[name] = self.value(self.scalar("I"))
        described = [self.tensor() for _ in range(tensors)]
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or alignment < 1:
            raise NotFit(f"its general.alignment is {alignment!r}; it must be a whole number of at least 1")
        data = -(-self.at // alignment) * alignment
        placed = {name: Tensor(name, shape, kind, data + at) for name, shape, kind, at in described}
        for tensor in placed.values():
            self.check(tensor)
        return Gguf(metadata, placed, self.content)

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        """A description: name, shape, type, offset."""
        name = self.text()
        shape = tuple(self.scalar("Q") for _ in range(self.scalar("I")))
        return name, shape[::-1] or (1,), self.scalar("I"), self.scalar("Q")

    def check(self, tensor: Tensor) -> None:
        """Return where the tensor lies within the file."""
        try:
            block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(tensor.type)]
        except ValueError:
            raise NotFit(f"{tensor.name} is stored in the unknown type {tensor.type}") from None
        end = tensor.start + math.prod(tensor.shape) // block * size
        if tensor.shape[-1] % block or end > len(self.content):
            raise NotFit(
                f"it is truncated or damaged: {tensor.name} ends at byte {end:,}, the file at {len(self.content):,}"
            )

    def scalar(self, code: str) -> Any:
        (found,) = struct.unpack_from(f"<{code}", self.content, self.at)
        self.at += struct.calcsize(f"<{code}")
        return found

    def text(self) -> str:
        length = self.scalar("Q")
        if length > len(self.content) - self.at:
            raise struct.error("a text that goes on behind the end")
        self.at += length
        return self.content[self.at - length : self.at].decode()

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.text()
        if kind != ARRAY:
            return self.scalar(SCALARS[kind])
        inner, count = self.scalar("I"), self.scalar("Q")
        if count > len(self.content) - self.at:
            raise struct.error("a list that goes on behind the end")
        if inner in (STRING, ARRAY):
            return [self.value(inner) for _ in range(count)]
        found = list(struct.unpack_from(f"<{count}{SCALARS[inner]}", self.content, self.at))
        self.at += count * struct.calcsize(f"<{SCALARS[inner]}")
        return found
