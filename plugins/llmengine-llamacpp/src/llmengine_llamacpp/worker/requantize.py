"""Writes a GGUF checkpoint with its weights stored another way: ``python -I requantize.py``.

It reads one line with ``source``, ``target`` and ``method``, reports its progress, and ends with status 2 and
a reason where the checkpoint is not fit for it.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Callable
from ctypes import POINTER, c_char_p, c_float, c_int64
from typing import Any, BinaryIO

from llmengine_llamacpp.worker.ggml import Checkpoint, Tensor, declare

# By method: the type of its tensors, and of its files, as GGUF numbers them; the bits that a weight takes.
METHODS = {
    "f16": (1, 1, 16.0),
    "q8_0": (8, 7, 8.5),
    "q5_1": (7, 9, 6.0),
    "q5_0": (6, 8, 5.5),
    "q4_1": (3, 3, 5.0),
    "q4_0": (2, 2, 4.5),
}
EXACT = {"f32", "f16", "bf16"}
"""Types that were not quantized yet."""
ENOUGH = 8.0
"""Bits a weight that lose next to nothing, so that one may quantize from them."""
BLOCK = 32
"""Weights that share a scale; rows that are no multiple of it stay as they are."""
PIECE = 1 << 22
"""Weights that are worked on at a time."""
NOT_FIT = 2
"""Exit status for a checkpoint that can't be worked on."""


class Requantization:
    """One checkpoint on its way into another form."""

    def __init__(self, checkpoint: Checkpoint, method: str) -> None:
        self._lib = checkpoint.lib
        self._checkpoint = checkpoint
        self._type, self._file_type, self._bits = METHODS[method]
        self.tensors = list(checkpoint.tensors())
        self._types = {tensor.name: self._type_for(tensor, method) for tensor in self.tensors}

    def write(self, source: BinaryIO, target: BinaryIO, on_progress: Callable[[float], None]) -> None:
        """Metadata, descriptions, then the weights tensor by tensor."""
        total = sum(tensor.elements for tensor in self.tensors)
        head, alignment = self._head()
        target.write(head)
        done = 0
        for tensor in self.tensors:
            target.write(b"\0" * (-target.tell() % alignment))
            self._write_weights(tensor, source, target)
            done += tensor.elements
            on_progress(done / total)
        target.write(b"\0" * (-target.tell() % alignment))

    def _type_for(self, tensor: Tensor, method: str) -> int:
        """How a tensor is to be stored: vectors and odd shapes as they are, tokens' vectors in 8 bits at least."""
        if len(tensor.shape) < 2 or tensor.shape[0] % BLOCK or not tensor.name.endswith("weight"):
            return tensor.type
        stored = self._type_name(tensor.type)
        wanted = self._type
        if self._bits < METHODS["q8_0"][2] and tensor.name in ("token_embd.weight", "output.weight"):
            wanted = METHODS["q8_0"][0]
        has = 8 * tensor.size / tensor.elements
        takes = 8 * self._lib.ggml_row_size(wanted, tensor.shape[0]) / tensor.shape[0]
        if stored not in EXACT and takes < has < ENOUGH:
            raise ValueError(
                f"{tensor.name} is stored as {stored} ({has:g} bits a weight) and would be quantized once more, "
                f"to {method} ({takes:g} bits), which breaks models; start from a checkpoint of 8 bits or more"
            )
        return wanted

    def _type_name(self, number: int) -> str:
        name: bytes = self._lib.ggml_type_name(number)
        return name.decode()

    def _head(self) -> tuple[bytes, int]:
        """Everything before the weights, and to what they are aligned."""
        lib = self._lib
        file = lib.gguf_init_empty()
        try:
            lib.gguf_set_kv(file, self._checkpoint.pointer)
            lib.gguf_remove_key(file, b"general.alignment")  # the library aligns to its own default
            lib.gguf_set_val_u32(file, b"general.file_type", self._file_type)
            lib.gguf_set_val_u32(file, b"general.quantization_version", 2)
            for tensor in self.tensors:
                lib.gguf_add_tensor(file, tensor.pointer)
                lib.gguf_set_tensor_type(file, tensor.name.encode(), self._types[tensor.name])
            head = ctypes.create_string_buffer(lib.gguf_get_meta_size(file))
            lib.gguf_get_meta_data(file, head)
            return head.raw, lib.gguf_get_alignment(file)
        finally:
            lib.gguf_free(file)

    def _write_weights(self, tensor: Tensor, source: BinaryIO, target: BinaryIO) -> None:
        length = tensor.shape[0]
        rows = tensor.elements // length
        at_once = max(1, PIECE // length)
        convert = self._converter(tensor, at_once)
        source.seek(tensor.start)
        for first in range(0, rows, at_once):
            count = min(at_once, rows - first)
            stored = source.read(count * tensor.size // rows)
            if len(stored) < count * tensor.size // rows:
                raise ValueError(f"the file is truncated: it ends within {tensor.name}")
            target.write(stored if convert is None else convert(stored, count))

    def _converter(self, tensor: Tensor, at_once: int) -> Callable[[bytes, int], bytes] | None:
        """What turns so many stored rows into the wanted type; None where they stay as they are."""
        kind = self._types[tensor.name]
        if kind == tensor.type:
            return None
        lib, length = self._lib, tensor.shape[0]
        dequantize = self._dequantizer(tensor.type)
        weights = (c_float * (at_once * length))()
        quantized = ctypes.create_string_buffer(lib.ggml_row_size(kind, length) * at_once)

        def convert(stored: bytes, rows: int) -> bytes:
            dequantize(stored, weights, rows * length)
            size = lib.ggml_quantize_chunk(kind, weights, quantized, 0, rows, length, None)
            return quantized.raw[:size]

        return convert

    def _dequantizer(self, number: int) -> Callable[[bytes, ctypes.Array[c_float], int], object]:
        name = self._type_name(number)
        if name == "f32":
            return lambda stored, weights, count: ctypes.memmove(weights, stored, 4 * count)
        short = {"f16": "ggml_fp16_to_fp32_row", "bf16": "ggml_bf16_to_fp32_row"}
        function = short.get(name, f"dequantize_row_{name}")
        declared: Callable[..., None] = declare(
            self._lib, function, None, [c_char_p, POINTER(c_float), c_int64]
        )
        return declared


def report(**facts: Any) -> None:
    """Say one thing to whoever started us."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Do what the line on standard input says."""
    document = json.loads(sys.stdin.readline())
    try:
        with Checkpoint(document["source"]) as checkpoint:
            if (checkpoint.number("split.count") or 1) > 1:
                raise ValueError("it is one part of several; merge them into one file first")
            work = Requantization(checkpoint, document["method"])
            with open(document["source"], "rb") as source, open(document["target"], "xb") as target:
                work.write(source, target, lambda done: report(progress=done, phase="transform"))
                target.flush()
                os.fsync(target.fileno())
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(NOT_FIT)
    except (OSError, ImportError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
