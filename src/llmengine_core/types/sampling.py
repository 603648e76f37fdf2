"""How tokens are chosen, and what shape the text must have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["SamplingParams", "StructuredKind", "StructuredOutput", "Translation"]

StructuredKind: TypeAlias = Literal["json", "regex", "choice", "grammar"]


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """The effective sampling values of one request.

    Nothing is left to an engine's own defaults: a backend sends every value, also the neutral ones.
    Values are already in range when a backend sees them.
    """

    max_tokens: int = 20
    """Most tokens to generate, end and stop tokens included; ≥ 1."""
    temperature: float = 0.2
    """0 to 1; 0 is greedy, and then ``top_k`` and ``top_p`` have no effect."""
    top_k: int | None = None
    """Sample among this many likeliest tokens, ≥ 1; None is all of them."""
    top_p: float = 1.0
    """Sample among the likeliest tokens whose probabilities reach this sum; in (0, 1]."""
    presence_penalty: float = 0.0
    """Subtracted from the logit of every token generated so far; 0 to 2."""
    frequency_penalty: float = 0.0
    """Subtracted from a token's logit once for each time it was generated so far; 0 to 2."""
    stop: tuple[str, ...] = ()
    """Texts that end generation; none is empty."""
    include_stop: bool = False
    """Keep the stop text at the end of the output."""
    logprobs: bool = False
    """Give each token's log probability under the raw model distribution."""
    seed: int | None = None
    """Makes sampling repeatable where the backend declares ``seed``; None is random."""


@dataclass(frozen=True, slots=True)
class Translation:
    """A constraint in the words of one engine."""

    dialect: str
    """The language that the text is in, as the backend names it in its capabilities."""
    text: str


@dataclass(frozen=True, slots=True)
class StructuredOutput:
    """A constraint that the generated text obeys.

    ``value`` is the JSON Schema as JSON text (``json``), the pattern that the whole text matches
    (``regex``), the texts to choose from (``choice``), or a Lark or GBNF grammar (``grammar``).
    """

    kind: StructuredKind
    value: str | tuple[str, ...]
    translation: Translation | None = None
    """The checked constraint in the dialect that the session declares; filled by the core."""
