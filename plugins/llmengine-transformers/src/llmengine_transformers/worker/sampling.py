"""Which token comes next: every value of ``SamplingParams`` on float32 logits, for many rows at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from llmengine_core.worker.contract import Order

__all__ = ["Choice", "choose", "draw", "nucleus"]

CANDIDATES = 128
"""Likeliest tokens that are looked at first, where not all of them count."""
COLDEST = torch.finfo(torch.float32).tiny
"""A temperature below which nothing changes any more; the smallest ones would be 0 as float32, and 0 / 0 no number."""


@dataclass(slots=True)
class Choice:
    """How one request has its tokens chosen."""

    order: Order
    random: torch.Generator | None
    """Of its own, so that others don't disturb it; None where it is greedy."""
    penalties: torch.Tensor | None
    """What is taken off each logit for what was generated so far, (vocabulary,); None where nothing is."""

    @classmethod
    def of(cls, order: Order, vocabulary: int) -> Choice:
        """For a request that has generated nothing yet."""
        random = torch.Generator() if order.temperature > 0 else None
        if random is not None:
            if order.seed is None:
                random.seed()
            else:
                random.manual_seed(order.seed % (1 << 64))
        penalized = order.presence_penalty or order.frequency_penalty
        return cls(order, random, torch.zeros(vocabulary) if penalized else None)

    def chose(self, token: int) -> None:
        """Remember what was generated."""
        if self.penalties is not None:
            if self.penalties[token] == 0:
                self.penalties[token] = self.order.presence_penalty
            self.penalties[token] += self.order.frequency_penalty


def choose(
    logits: torch.Tensor, choices: Sequence[Choice], hide: Callable[[torch.Tensor], None] | None = None
) -> list[tuple[int, float | None]]:
    """A token for each row of logits (rows, vocabulary), float32, with its log probability where that was asked.

    Log probabilities are of the logits as they come: before penalties, constraints and temperature. ``hide`` takes
    what constraints forbid to −∞. The logits are overwritten. Raises ``ArithmeticError`` where they are no numbers.
    """
    asked = [at for at, each in enumerate(choices) if each.order.logprobs]
    raw = logits[asked].log_softmax(dim=-1) if asked else logits
    for row, each in enumerate(choices):
        if each.penalties is not None:
            logits[row] -= each.penalties
    if hide is not None:
        hide(logits)
    best = logits.max(dim=-1)
    if not bool(best.values.isfinite().all()):
        raise ArithmeticError("the model's logits are not numbers: its weights or its dtype don't suit it")
    tokens: list[int] = best.indices.tolist()
    for whole, sample in ((True, _sample), (False, _sample_likeliest)):
        at = [n for n, each in enumerate(choices) if each.random and _counts_whole(each.order) is whole]
        if at:
            # Less the maximum first: a tiny temperature then makes −∞ of the others, and no ∞ − ∞.
            scores = logits[at] - best.values[at, None]
            heats = [[max(choices[n].order.temperature, COLDEST)] for n in at]
            scores /= torch.tensor(heats, device=logits.device)
            for n, token in zip(at, sample(scores, [choices[n] for n in at]), strict=True):
                tokens[n] = token
    for each, token in zip(choices, tokens, strict=True):
        each.chose(token)
    logprobs: list[float | None] = [None] * len(choices)
    for row, n in enumerate(asked):
        logprobs[n] = min(0.0, float(raw[row, tokens[n]]))
    return list(zip(tokens, logprobs, strict=True))


def _counts_whole(order: Order) -> bool:
    """Whether all of the vocabulary counts."""
    return order.top_k is None and order.top_p >= 1


def _sample(scores: torch.Tensor, choices: Sequence[Choice]) -> list[int]:
    found: list[int] = draw(scores.softmax(dim=-1).double(), _uniforms(choices, scores)).tolist()
    return found


def _sample_likeliest(scores: torch.Tensor, choices: Sequence[Choice]) -> list[int]:
    vocabulary = scores.shape[-1]
    uniforms = _uniforms(choices, scores)
    kept = [min(each.order.top_k or vocabulary, vocabulary) for each in choices]
    masses = torch.tensor([[each.order.top_p] for each in choices], device=scores.device)
    norms = scores.logsumexp(dim=-1, keepdim=True)
    looked = max(CANDIDATES, *(k for k in kept if k < vocabulary), 0)
    while True:
        best, tokens = scores.topk(min(looked, vocabulary), dim=-1)
        weights = nucleus(best, norms, torch.tensor(kept, device=scores.device)[:, None], masses)
        if looked >= vocabulary or weights is not None:
            break
        looked *= 16
    assert weights is not None
    found: list[int] = tokens.gather(1, draw(weights, uniforms)[:, None])[:, 0].tolist()
    return found


def nucleus(
    best: torch.Tensor, norms: torch.Tensor, kept: torch.Tensor, masses: torch.Tensor
) -> torch.Tensor | None:
    """Weights of the candidates, 0 for those that don't count; None where more of them must be looked at.

    ``best`` (rows, candidates) are scores, the highest first, ``norms`` (rows, 1) the logarithm of the sum of
    exp(score) over the vocabulary. First the ``kept`` (rows, 1) likeliest count (top-k), all of which are among the
    candidates unless all of the vocabulary is kept. Of these, with probabilities that add up to 1 again, count the
    fewest likeliest whose sum reaches ``masses`` (rows, 1) (top-p; Holtzman et al., 2020, "The Curious Case of
    Neural Text Degeneration").
    """
    looked = best.shape[-1]
    weights = (best.double() - norms.double()).exp()
    weights *= torch.arange(looked, device=best.device) < kept
    sums = weights.cumsum(dim=-1)
    found = sums[:, -1:]
    needed = masses.double() * torch.where(kept <= looked, found, 1.0)
    if bool((found < needed).any()):
        return None
    return weights * (sums - weights < needed)


def draw(weights: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Where each uniform number of [0, 1) falls on its row's weights laid end to end; never on a weight of 0."""
    ends = weights.cumsum(dim=-1)
    whole = ends[:, -1:].contiguous()
    found = torch.searchsorted(ends, uniforms[:, None] * whole, right=True)
    # Rounding may take the product to the very end: then it is the last that has any weight.
    return torch.minimum(found, torch.searchsorted(ends, whole))[:, 0]


def _uniforms(choices: Sequence[Choice], like: torch.Tensor) -> torch.Tensor:
    return torch.cat([torch.rand(1, generator=each.random, dtype=torch.float64) for each in choices]).to(
        like.device
    )
