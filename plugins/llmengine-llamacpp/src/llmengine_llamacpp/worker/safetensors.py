"""Weights in safetensors, as they lie in a folder's files."""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Tensor", "Weights"]

WIDTHS = {"F32": 4, "F16": 2, "BF16": 2}
"""Bytes of a weight, by the types that can be converted."""
HEADER_LIMIT = 64 << 20
"""Bytes; headers are a few hundred for each tensor."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor as it is stored."""

    name: str
    type: str
    shape: tuple[int, ...]
    content: mmap.mmap
    start: int
    """Byte of the file."""

    @property
    def row_bytes(self) -> int:
        """Bytes of a row, or of all where it is a vector."""
        return self.shape[-1] * WIDTHS[self.type]

    def row(self, number: int) -> bytes:
        """One row, as it is stored."""
        start = self.start + number * self.row_bytes
        return self.content[start : start + self.row_bytes]


class Weights(Mapping[str, Tensor]):
    """All tensors of a folder, by name. Raises ``ValueError`` for files that are damaged or not all there."""

    def __init__(self, folder: Path) -> None:
        self._tensors: dict[str, Tensor] = {}
        for name in shards(folder):
            try:
                with (folder / name).open("rb") as file:
                    content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except FileNotFoundError:
                raise ValueError(f"it has no {name}") from None
            for tensor in described(name, content):
                if tensor.name in self._tensors:
                    raise ValueError(f"it has the tensor {tensor.name} twice")
                self._tensors[tensor.name] = tensor

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Any:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def shards(folder: Path) -> list[str]:
    """The names of the files that hold the weights."""
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return ["model.safetensors"]
    placed = json.loads(index.read_bytes()).get("weight_map")
    if not isinstance(placed, dict) or any(Path(name).name != name for name in placed.values()):
        raise ValueError(f"its {index.name} has no weight_map of file names")
    return sorted(set(placed.values()))


def described(name: str, content: mmap.mmap) -> list[Tensor]:
    """The tensors of one file; each lies within it and can be converted."""
    length = int.from_bytes(content[:8], "little")
    if not 2 <= length <= min(HEADER_LIMIT, len(content) - 8):
        raise ValueError(f"{name} is no safetensors file, or is truncated")
    try:
        header = json.loads(content[8 : 8 + length])
        header.pop("__metadata__", None)
        return [_tensor(name, each, entry, content, 8 + length) for each, entry in header.items()]
    except (KeyError, TypeError, AttributeError, RecursionError, json.JSONDecodeError) as error:
        raise ValueError(f"the header of {name} is damaged: {error!r}") from None


def _tensor(file: str, name: str, entry: Any, content: mmap.mmap, data: int) -> Tensor:
    kind, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    if kind not in WIDTHS:
        raise ValueError(f"{name} is stored as {kind}; what can be converted is {', '.join(WIDTHS)}")
    if end - begin != math.prod(shape) * WIDTHS[kind] or not 0 <= begin <= end or not shape:
        raise ValueError(f"the header of {file} says of {name} what can't be")
    if data + end > len(content):
        raise ValueError(
            f"{file} is truncated: {name} ends at byte {data + end:,}, the file at {len(content):,}"
        )
    return Tensor(name, kind, shape, content, data + begin)
