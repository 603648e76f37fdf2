"""Linear layers with 16-bit weights on processors that multiply 32-bit numbers only.

There PyTorch goes through 16-bit weights once for each row of the input. From a few rows on it is faster to widen the
weights, a block that fits the processor's cache at a time, and to multiply that: 2 times for 8 rows and 4 times for
128 (layers of SmolLM2-135M and of a 1B model, AVX2). The sums are exact to 32 bits either way.
"""

from __future__ import annotations

import torch
from torch.nn.functional import linear

__all__ = ["multiplies", "widen"]

NARROW = (torch.bfloat16, torch.float16)
BLOCK = 1 << 20
"""Weights that are widened at a time: 4 MiB."""
LEAST_ROWS = 4
"""Rows from which on it is worth it."""


def multiplies(dtype: torch.dtype) -> bool:
    """Whether this processor multiplies matrices of a type by itself, as far as PyTorch makes use of it."""
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if dtype == torch.float16:
        return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
    return True


def widen(model: torch.nn.Module) -> None:
    """Make the linear layers of a model on the CPU, those of 16 bits, compute as said above.

    Layers of 4 bits, which bitsandbytes opens up into the type that they compute in, are told to take 32 bits: 2 times
    as fast for 1 row and 7 times for 8.
    """
    with torch.inference_mode(False):
        block = torch.empty(BLOCK)
    for module in model.modules():
        if type(module) is torch.nn.Linear and module.weight.dtype in NARROW:
            module.__class__ = _WideLinear
            module.block = block
        elif getattr(module, "compute_dtype", None) in NARROW:
            module.compute_dtype = torch.float32


class _WideLinear(torch.nn.Linear):  # type: ignore[misc]
    block: torch.Tensor
    """Where weights are widened, shared by all layers."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  # the library's name
        """What ``torch.nn.Linear`` computes."""
        if input.numel() < LEAST_ROWS * self.in_features:
            return linear(input, self.weight, self.bias)
        rows = input.reshape(-1, self.in_features).to(torch.float32)
        output = input.new_empty(rows.shape[0], self.out_features)
        step = max(1, BLOCK // self.in_features)
        for first in range(0, self.out_features, step):
            narrow = self.weight[first : first + step]
            wide = self.block[: narrow.numel()].view(narrow.shape).copy_(narrow)
            bias = None if self.bias is None else self.bias[first : first + step].to(torch.float32)
            output[:, first : first + step] = linear(rows, wide, bias)
        return output.view(*input.shape[:-1], self.out_features)
