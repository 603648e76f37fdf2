"""Writes a folder of safetensors as a GGUF file with 16-bit floats: ``python -I convert.py``.

It reads one line with ``source`` and ``target``, reports its progress, and ends with status 2 and a reason where
the checkpoint is not fit for it.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import struct
import sys
from collections.abc import Callable
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int, c_int64, c_size_t, c_void_p
from pathlib import Path
from typing import Any, BinaryIO

from llmengine_llamacpp.worker.ggml import declare, library
from llmengine_llamacpp.worker.gguf_head import ALIGNMENT, gguf_head
from llmengine_llamacpp.worker.hf_model import Weight, head_size, metadata_of, weights_of
from llmengine_llamacpp.worker.hf_rope import frequency_factors
from llmengine_llamacpp.worker.hf_tokenizer import tokenizer_of
from llmengine_llamacpp.worker.safetensors import Tensor, Weights

NOT_FIT = 2
"""Exit status for a checkpoint that can't be worked on."""
F32, F16 = 0, 1
"""Types of tensors, as GGUF numbers them."""
WIDTHS = {F32: 4, F16: 2}
FACTORS = "rope_freqs.weight"
"""What each rotary frequency is divided by; made of what config.json says."""
PIECE = 1 << 22
"""Weights that are worked on at a time."""


class Conversion:
    """One checkpoint on its way into a GGUF file."""

    def __init__(self, folder: Path) -> None:
        """Raises ``ValueError`` for a checkpoint that isn't known to come out right."""
        if not folder.is_dir():
            raise ValueError(
                "it is a single file; name the folder that holds it with config.json and tokenizer.json"
            )
        try:
            config = json.loads((folder / "config.json").read_bytes())
        except FileNotFoundError:
            raise ValueError("it has no config.json") from None
        self._stored = Weights(folder)
        self._metadata = metadata_of(config)
        if config["num_hidden_layers"] > len(self._stored):
            raise ValueError(f"it has {len(self._stored):,} tensors, too few for its layers")
        self._weights = weights_of(config)
        self._check()
        self._metadata |= tokenizer_of(folder, config)
        self._factors = frequency_factors(config, head_size(config)) or []
        self._lib = library()

    def write(self, out: BinaryIO, on_progress: Callable[[float], None]) -> None:
        """Metadata, descriptions, then the weights tensor by tensor."""
        described: dict[str, tuple[tuple[int, ...], int, int]] = {}
        if self._factors:
            described[FACTORS] = (len(self._factors),), F32, WIDTHS[F32] * len(self._factors)
        for name, weight in self._weights.items():
            kind = F16 if len(weight.shape) > 1 else F32  # vectors weigh little and matter much
            described[name] = weight.shape, kind, math.prod(weight.shape) * WIDTHS[kind]
        out.write(gguf_head(self._metadata, described))
        total = sum(size for _, _, size in described.values())
        done = 0
        for name, (_, kind, size) in described.items():
            if name == FACTORS:
                out.write(struct.pack(f"<{len(self._factors)}f", *self._factors))
            else:
                self._write_weights(self._weights[name], kind, out)
            out.write(b"\0" * (-size % ALIGNMENT))
            done += size
            on_progress(done / total)

    def _check(self) -> None:
        """Every tensor is there and has its shape, and there is none besides."""
        names = {weight.stored for weight in self._weights.values()}
        known = {*names, "lm_head.weight"}  # a copy of the embeddings, where they are tied
        if missing := sorted(names - set(self._stored)):
            raise ValueError(f"it has no tensor {missing[0]}")
        if unknown := sorted(set(self._stored) - known):
            raise ValueError(f"it has a tensor {unknown[0]}, which can't be carried over")
        for weight in self._weights.values():
            if (shape := self._stored[weight.stored].shape) != weight.shape:
                raise ValueError(
                    f"{weight.stored} has the shape {shape}; its config.json makes it {weight.shape}"
                )

    def _write_weights(self, weight: Weight, kind: int, out: BinaryIO) -> None:
        tensor = self._stored[weight.stored]
        length = tensor.shape[-1]
        rows = math.prod(tensor.shape) // length
        at_once = max(1, PIECE // length)
        convert = self._converter(tensor, kind, at_once * length)
        for first in range(0, rows, at_once):
            taken = range(first, min(first + at_once, rows))
            out.write(
                convert(b"".join([tensor.row(weight.row(number)) for number in taken]), len(taken) * length)
            )

    def _converter(self, tensor: Tensor, kind: int, most: int) -> Callable[[bytes, int], bytes]:
        """What turns stored weights, ``most`` at a time, into the wanted type. Raises ``ValueError`` for what
        isn't finite then."""
        widen = {"BF16": "ggml_bf16_to_fp32_row", "F16": "ggml_fp16_to_fp32_row"}.get(tensor.type)
        widened = declare(self._lib, widen, None, [c_char_p, POINTER(c_float), c_int64]) if widen else None
        narrow = declare(self._lib, "ggml_fp32_to_fp16_row", None, [POINTER(c_float), c_void_p, c_int64])
        finite = declare(self._lib, "ggml_validate_row_data", c_bool, [c_int, c_void_p, c_size_t])
        weights, halves = (c_float * most)(), ctypes.create_string_buffer(2 * most)

        def convert(stored: bytes, count: int) -> bytes:
            if widened is None:
                ctypes.memmove(weights, stored, 4 * count)
            else:
                widened(stored, weights, count)
            result: Any = weights
            if kind == F16:
                narrow(weights, halves, count)
                result = halves
            size = WIDTHS[kind] * count
            if not finite(kind, result, size):
                raise ValueError(f"{tensor.name} holds weights that are no numbers, or too large for 16 bits")
            return ctypes.string_at(result, size)

        return convert


def report(**facts: Any) -> None:
    """Say one thing to whoever started us."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Do what the line on standard input says."""
    document = json.loads(sys.stdin.readline())
    try:
        work = Conversion(Path(document["source"]))
        with open(document["target"], "xb") as target:
            work.write(target, lambda done: report(progress=done, phase="transform"))
            target.flush()
            os.fsync(target.fileno())
    except (ValueError, LookupError, ArithmeticError, TypeError, AttributeError, RecursionError) as error:
        odd = (
            ""
            if isinstance(error, ValueError)
            else f"its files are not as they should be: {type(error).__name__} "
        )
        sys.stderr.write(f"{odd}{error}\n")
        sys.exit(NOT_FIT)
    except (OSError, ImportError, MemoryError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
