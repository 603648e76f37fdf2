"""GGUF files, read by the C functions that the engine's own library exports."""

from __future__ import annotations

import ctypes
import importlib.util
import math
from ctypes import POINTER, c_bool, c_char_p, c_int, c_int64, c_uint32, c_void_p
from pathlib import Path
from typing import Any, Self

__all__ = ["Header", "library"]

UINT32, STRING = 4, 8
"""Types of metadata values, as GGUF numbers them."""


class _InitParams(ctypes.Structure):
    _fields_ = [("no_alloc", c_bool), ("ctx", c_void_p)]


SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "gguf_init_from_file": (c_void_p, [c_char_p, _InitParams]),
    "gguf_free": (None, [c_void_p]),
    "gguf_find_key": (c_int64, [c_void_p, c_char_p]),
    "gguf_get_kv_type": (c_int, [c_void_p, c_int64]),
    "gguf_get_val_u32": (c_uint32, [c_void_p, c_int64]),
    "gguf_get_val_str": (c_char_p, [c_void_p, c_int64]),
    "gguf_get_n_tensors": (c_int64, [c_void_p]),
    "gguf_get_tensor_ne": (POINTER(c_int64), [c_void_p, c_int64]),
}


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
        try:
            function = lib[name]
        except AttributeError:
            raise ImportError(f"{files[0]} exports no {name}; mend: install another xllamacpp") from None
        function.restype, function.argtypes = result, arguments
        setattr(lib, name, function)
    return lib


class Header:
    """What a GGUF file says of its model."""

    def __init__(self, path: str) -> None:
        """Reads no weights. Raises ``ValueError`` for a bad file; the library logs why on standard error."""
        self._lib = library()
        self._file = self._lib.gguf_init_from_file(path.encode(), _InitParams(True, None))
        if not self._file:
            raise ValueError(f"{path} can't be read as a GGUF file")

    def number(self, key: str) -> int | None:
        """A whole number of the metadata; None where there is none."""
        index = self._find(key, UINT32)
        return None if index is None else int(self._lib.gguf_get_val_u32(self._file, index))

    def text(self, key: str) -> str | None:
        """A text of the metadata; None where there is none."""
        index = self._find(key, STRING)
        return (
            None if index is None else self._lib.gguf_get_val_str(self._file, index).decode(errors="replace")
        )

    @property
    def parameters(self) -> int:
        """How many weights the model has."""
        count = self._lib.gguf_get_n_tensors(self._file)
        return sum(math.prod(self._lib.gguf_get_tensor_ne(self._file, n)[:4]) for n in range(count))

    def _find(self, key: str, kind: int) -> int | None:
        index = self._lib.gguf_find_key(self._file, key.encode())
        return index if index >= 0 and self._lib.gguf_get_kv_type(self._file, index) == kind else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lib.gguf_free(self._file)
