"""GGUF files, through the C functions that the engine's own library exports."""

from __future__ import annotations

import ctypes
import importlib.util
import math
from collections.abc import Iterator
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int, c_int64, c_size_t, c_uint16, c_uint32, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

__all__ = ["Checkpoint", "Tensor", "declare", "library"]

NUMBERS = {2: "gguf_get_val_u16", 4: "gguf_get_val_u32"}
"""How whole numbers are read, by the type that they have in the metadata."""


class InitParams(ctypes.Structure):
    """How a file is opened: without the weights, and where the tensors' descriptions go."""

    _fields_ = [("no_alloc", c_bool), ("ctx", POINTER(c_void_p))]


SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "ggml_free": (None, [c_void_p]),
    "ggml_get_first_tensor": (c_void_p, [c_void_p]),
    "ggml_get_next_tensor": (c_void_p, [c_void_p, c_void_p]),
    "ggml_get_name": (c_char_p, [c_void_p]),
    "ggml_n_dims": (c_int, [c_void_p]),
    "ggml_quantize_chunk": (
        c_size_t, [c_int, POINTER(c_float), c_char_p, c_int64, c_int64, c_int64, c_void_p],
    ),
    "ggml_row_size": (c_size_t, [c_int, c_int64]),
    "ggml_type_name": (c_char_p, [c_int]),
    "gguf_add_tensor": (None, [c_void_p, c_void_p]),
    "gguf_find_key": (c_int64, [c_void_p, c_char_p]),
    "gguf_find_tensor": (c_int64, [c_void_p, c_char_p]),
    "gguf_free": (None, [c_void_p]),
    "gguf_get_alignment": (c_size_t, [c_void_p]),
    "gguf_get_data_offset": (c_size_t, [c_void_p]),
    "gguf_get_kv_type": (c_int, [c_void_p, c_int64]),
    "gguf_get_meta_data": (None, [c_void_p, c_char_p]),
    "gguf_get_meta_size": (c_size_t, [c_void_p]),
    "gguf_get_tensor_ne": (POINTER(c_int64), [c_void_p, c_int64]),
    "gguf_get_tensor_offset": (c_size_t, [c_void_p, c_int64]),
    "gguf_get_tensor_size": (c_size_t, [c_void_p, c_int64]),
    "gguf_get_tensor_type": (c_int, [c_void_p, c_int64]),
    "gguf_get_val_u16": (c_uint16, [c_void_p, c_int64]),
    "gguf_get_val_u32": (c_uint32, [c_void_p, c_int64]),
    "gguf_init_empty": (c_void_p, []),
    "gguf_init_from_file": (c_void_p, [c_char_p, InitParams]),
    "gguf_remove_key": (c_int64, [c_void_p, c_char_p]),
    "gguf_set_kv": (None, [c_void_p, c_void_p]),
    "gguf_set_tensor_type": (None, [c_void_p, c_char_p, c_int]),
    "gguf_set_val_u32": (None, [c_void_p, c_char_p, c_uint32]),
}  # fmt: skip


def library() -> ctypes.CDLL:
    """The engine's library. Raises ``ImportError`` where it isn't installed, or lacks a function."""
    spec = importlib.util.find_spec("xllamacpp")
    if spec is None or spec.origin is None:
        raise ImportError("xllamacpp is not installed; mend: python -m pip install xllamacpp")
    files = sorted(Path(spec.origin).parent.glob("xllamacpp*.so"))
    if not files:
        raise ImportError(f"there is no library beside {spec.origin}; mend: reinstall xllamacpp")
    lib = ctypes.CDLL(str(files[0]))
    for name, (result, arguments) in SIGNATURES.items():
        declare(lib, name, result, arguments)
    return lib


def declare(lib: ctypes.CDLL, name: str, result: Any, arguments: list[Any]) -> Any:
    """A function of the library, its types declared."""
    try:
        function = getattr(lib, name)
    except AttributeError:
        raise ImportError(f"this build of xllamacpp exports no {name}; mend: install another") from None
    function.restype, function.argtypes = result, arguments
    return function


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where a tensor lies, and what it is."""

    pointer: int
    """Of the description that the library holds."""
    name: str
    type: int
    shape: tuple[int, ...]
    """The length of a row first."""
    start: int
    """Byte of the file."""
    size: int
    """Bytes."""

    @property
    def elements(self) -> int:
        """How many weights it has."""
        return math.prod(self.shape)


class Checkpoint:
    """An open GGUF file, its weights unread."""

    def __init__(self, path: str) -> None:
        """Raises ``ValueError`` for a file that can't be read; the library says why on standard error."""
        self.lib = library()
        self._tensors = c_void_p()
        self.pointer = self.lib.gguf_init_from_file(
            path.encode(), InitParams(True, ctypes.pointer(self._tensors))
        )
        if not self.pointer:
            raise ValueError(f"{path} can't be read as a GGUF file")

    def number(self, key: str) -> int | None:
        """A whole number of the metadata, of 16 or 32 bits; None where there is none."""
        index = self.lib.gguf_find_key(self.pointer, key.encode())
        read = NUMBERS.get(self.lib.gguf_get_kv_type(self.pointer, index)) if index >= 0 else None
        return None if read is None else int(getattr(self.lib, read)(self.pointer, index))

    def tensors(self) -> Iterator[Tensor]:
        """In the order of the file."""
        lib, file = self.lib, self.pointer
        data = lib.gguf_get_data_offset(file)
        each = lib.ggml_get_first_tensor(self._tensors)
        while each:
            name = lib.ggml_get_name(each)
            index = lib.gguf_find_tensor(file, name)
            yield Tensor(
                each,
                name.decode(errors="replace"),
                lib.gguf_get_tensor_type(file, index),
                tuple(lib.gguf_get_tensor_ne(file, index)[: lib.ggml_n_dims(each)]),
                data + lib.gguf_get_tensor_offset(file, index),
                lib.gguf_get_tensor_size(file, index),
            )
            each = lib.ggml_get_next_tensor(self._tensors, each)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.lib.gguf_free(self.pointer)
        self.lib.ggml_free(self._tensors)
