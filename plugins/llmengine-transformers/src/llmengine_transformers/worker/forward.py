"""One forward of a model over the tokens of a step, with our cache and our attention, proved against the library's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from llmengine_core.worker.contract import Refused
from llmengine_transformers.worker.attention import NAME, Layout, Piece
from llmengine_transformers.worker.cache import RowCache

__all__ = ["Forward"]

TRIAL = 20
"""Tokens that the model is tried with."""
CLOSE = 0.3
"""How far the trial's logits may be from the library's, as a share of how far they spread; 1.4 for unrelated ones.
Rounding in bfloat16 makes 0.06 of it."""


class Forward:
    """A model whose rows are at different places in their texts."""

    def __init__(self, model: Any) -> None:
        """Prove and prepare a ``PreTrainedModel``; from now on it takes no cache but this one's.

        Raises ``Refused`` where it computes attention in a way that can't be done row by row.
        """
        self._model, self._device = model, model.device
        self.cache = RowCache()
        name = type(model).__name__
        if not model._supports_attention_backend:
            raise Refused(
                f"{name} computes attention in its own way, which can't be done for rows of several lengths"
            )
        tokens = [(7 * at + 3) % model.config.get_text_config(decoder=True).vocab_size for at in range(TRIAL)]
        model.set_attn_implementation("eager")  # the library's own reference; others may leave something out
        theirs = torch.cat([self._library(tokens[:-1])[-3:], self._library(tokens[5:-3])[-2:]])
        model.set_attn_implementation(NAME)
        ours = self._trial(tokens)
        spread = (theirs - theirs.mean(dim=-1, keepdim=True)).norm(dim=-1)
        if not bool(((ours - theirs).norm(dim=-1) / spread).mean() <= CLOSE):
            raise Refused(
                f"{name} gives other logits when its requests are of different lengths; it can't be batched"
            )

    def __call__(self, tokens: Sequence[int], layout: Layout, kept: Sequence[int]) -> torch.Tensor:
        """Logits (len(kept), vocabulary), float32, of those among the tokens whose places are ``kept``."""
        self.cache.use(layout)
        found = self._model(
            input_ids=torch.tensor([tokens], device=self._device),
            position_ids=layout.positions[None].to(self._device),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=torch.tensor(kept, dtype=torch.long, device=self._device),
        )
        logits: torch.Tensor = found.logits[0]
        return logits.to("cpu", torch.float32)

    def _library(self, tokens: Sequence[int]) -> torch.Tensor:
        found = self._model(input_ids=torch.tensor([tokens], device=self._device), use_cache=False)
        logits: torch.Tensor = found.logits[0]
        return logits.to("cpu", torch.float32)

    def _trial(self, tokens: Sequence[int]) -> torch.Tensor:
        """One row reads in two pieces, then generates; another, three tokens shorter, is read beside it."""
        self.cache.reserve(2, TRIAL, most_rows=2, most_capacity=TRIAL)
        first = TRIAL - 3
        self(tokens[:7], Layout([], [Piece(0, 0, 7)]), [])
        parts = [self(tokens[7:first], Layout([], [Piece(0, 7, first - 7)]), [first - 8])]
        other = tokens[5:]
        count = TRIAL - 9
        pieces = Layout([first], [Piece(1, 0, count)])
        parts.append(self([tokens[first], *other[:count]], pieces, [0, count]))
        parts.append(self([tokens[first + 1], other[count]], Layout([first + 1, count], []), [0, 1]))
        flat = torch.cat(parts)  # row 0, row 0, row 1, row 0, row 1
        return flat[[0, 1, 3, 2, 4]]
