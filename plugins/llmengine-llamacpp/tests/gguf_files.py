"""Small GGUF files, written from the format's description."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

ALIGNMENT = 32


@dataclass(frozen=True)
class StoredTensor:
    shape: tuple[int, ...]
    """The length of a row first."""
    type: int
    content: bytes


def gguf_file(
    architecture: str,
    tensors: Mapping[str, StoredTensor],
    *,
    alignment: int | None = None,
    parts: int | None = None,
    **numbers: int,
) -> bytes:
    """A file with these tensors; ``numbers`` are metadata under the architecture."""
    entries = [_text("general.architecture") + struct.pack("<I", 8) + _text(architecture)]
    metadata = {f"{architecture}.{name}": number for name, number in numbers.items()}
    if alignment is not None:
        metadata["general.alignment"] = alignment
    for name, number in metadata.items():
        entries.append(_text(name) + struct.pack("<II", 4, number))
    if parts is not None:
        entries.append(_text("split.count") + struct.pack("<IH", 2, parts))
    described, data = b"", b""
    for name, tensor in tensors.items():
        data += b"\0" * (-len(data) % (alignment or ALIGNMENT))
        described += _text(name) + struct.pack("<I", len(tensor.shape))
        described += struct.pack(f"<{len(tensor.shape)}Q", *tensor.shape)
        described += struct.pack("<IQ", tensor.type, len(data))
        data += tensor.content
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(entries)) + b"".join(entries) + described
    head += b"\0" * (-len(head) % (alignment or ALIGNMENT))
    return head + data + b"\0" * (-len(data) % (alignment or ALIGNMENT))


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()
