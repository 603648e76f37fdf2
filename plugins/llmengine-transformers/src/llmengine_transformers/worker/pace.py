"""How much of a prompt is read in one step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Pace"]

WORK = 1.8e10
"""Weights × tokens that are worked on in one step: some 0.5 s of one slow core."""
LEAST, MOST = 16, 2048
LOOK = 2.7
"""What looking at one earlier token costs in one layer, in weights, for each number of its hidden state: a product
for its key and one for its value, both slower than those with weights."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Tokens of prompt that fit into a step.

    Between two steps other requests get their next token, and cancelled ones are noticed. It depends on the model and
    on the place in the prompt, on nothing else: greedy text is repeatable because prompts are cut at the same places.
    """

    weights: int
    """That each token goes through."""
    per_earlier: int
    """What looking at one earlier token costs, in weights."""

    @classmethod
    def of(cls, model: Any) -> Pace:
        """For a ``PreTrainedModel``."""
        config = model.config.get_text_config(decoder=True)
        hidden = getattr(config, "num_hidden_layers", 0) * getattr(config, "hidden_size", 0)
        return cls(sum(each.numel() for each in model.parameters()), int(LOOK * hidden))

    def tokens(self, start: int) -> int:
        """How many are read at once after ``start`` others; a power of two."""
        found = int(WORK / max(1, self.weights + self.per_earlier * start))
        return min(MOST, max(LEAST, 1 << max(0, found.bit_length() - 1)))
