"""What constraints forbid, taken out of logits: one call of the masker for all rows that have one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
import torch

from llmengine_core.worker.contract import Constraint, Masker

__all__ = ["hide_forbidden"]


def hide_forbidden(
    masker: Masker, rows: Sequence[int], constraints: Sequence[Constraint], logits: torch.Tensor
) -> None:
    """Set to −∞, in the given rows of logits (rows, vocabulary), what each one's constraint doesn't allow next."""
    vocabulary = logits.shape[1]
    bits = numpy.zeros((len(rows), (vocabulary + 31) // 32), dtype="<u4")
    masker.fill(constraints, bits.data)
    allowed = numpy.unpackbits(bits.view(numpy.uint8), axis=1, count=vocabulary, bitorder="little")
    forbidden = torch.from_numpy(allowed == 0).to(logits.device)
    logits[list(rows)] = logits[list(rows)].masked_fill_(forbidden, float("-inf"))
