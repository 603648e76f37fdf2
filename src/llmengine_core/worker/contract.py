"""What a plugin's worker modules implement: a model that is driven step by step, and masks beside its logits.

Such modules run under the environment's interpreter. They import the standard library, what their environment
holds, ``llmengine_core.worker`` and modules of their own package; nothing else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

__all__ = [
    "Constraint",
    "Emitted",
    "Engine",
    "EngineFacts",
    "Masker",
    "OnLoad",
    "Order",
    "Prompt",
    "Refused",
]

Prompt: TypeAlias = str | tuple[int, ...] | tuple[tuple[str, str], ...]
"""Text to be taken verbatim, token ids, or (role, content) pairs for the model's chat template; never empty."""
OnLoad: TypeAlias = Callable[[str, float], None]
"""Told a phase ("load", "quantize") and how much of it is done, 0 to 1."""


class Refused(Exception):
    """Something that the caller must change; the message goes to them as it is. Anything else that is raised is
    a fault of the worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One request, its values in range; see ``llmengine_core.types.sampling.SamplingParams``."""

    id: int
    """One of a kind among those that are there."""
    tokens: tuple[int, ...]
    """The prompt, as ``Engine.encode`` gave it; with ``max_tokens`` it fits the context."""
    max_tokens: int
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logprobs: bool = False
    seed: int | None = None
    grammar: str | None = None
    """A constraint in the dialect of the masker."""
    adapter: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Emitted:
    """One generated token of one request."""

    order: int
    token: int
    text: str = ""
    """Whole characters that it completes; "" for an end token and until a character is complete."""
    data: bytes = b""
    """What it stands for, byte for byte; empty for an end token."""
    logprob: float | None = None
    """Natural logarithm under the raw model distribution, ≤ 0 and finite; where it was asked for."""
    finish: Literal["stop", "length"] | None = None
    """Set on the last one of a request, which has left the batch then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """What a loaded engine knows of itself."""

    context_length: int
    """Most tokens that a prompt and its completion may have together."""
    max_concurrent: int
    """Most requests in its batch; ``Engine.join`` is not called beyond."""
    versions: Mapping[str, str] = field(default_factory=dict)
    prompt_token_overhead: int | None = None
    """k, where a text of n UTF-8 bytes never takes more than n + k tokens; None where that isn't known."""
    longest_token: int | None = None
    """k, where a text of n UTF-8 bytes never takes fewer than n / k tokens; None where that isn't known."""
    lacks: frozenset[str] = frozenset()
    """What it can't do after all of what its backend declares, as capabilities are called: "messages",
    "structured", "adapters"."""


class Engine(ABC):
    """A model in memory, generating for many requests at once, one step at a time.

    ``load``, ``join``, ``leave``, ``step`` and the adapters' methods are called from one thread, never two at
    once; ``encode`` from another, at any time.
    """

    @classmethod
    @abstractmethod
    def load(cls, document: Mapping[str, Any], masker: type[Masker] | None, on_load: OnLoad) -> Engine:
        """Load what the document says (``LaunchSpec.document``, with ``threads``) and make it ready.

        Raises ``Refused`` for a checkpoint that can't be served, saying what is wrong with it.
        """

    @property
    @abstractmethod
    def facts(self) -> EngineFacts:
        """Known once it is loaded; does not change."""

    @abstractmethod
    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        """The prompt's tokens, a start token included where the model has one. Raises ``Refused``."""

    @abstractmethod
    def join(self, order: Order) -> None:
        """Take a request into the batch; its prompt is read by the steps that follow.

        Raises ``Refused`` (a grammar that doesn't compile, an adapter that isn't there), and then it hasn't joined.
        """

    @abstractmethod
    def leave(self, order: int) -> None:
        """Drop a request at once, with all that it holds. Nothing happens where it isn't there (any more)."""

    @abstractmethod
    def step(self) -> Sequence[Emitted]:
        """Work for a short while on all that have joined: read a piece of prompts, or generate a token each.

        Bounded: well under a second on hardware that suits the model. Gives what was generated, in order for each
        request; empty where only prompts were read. Not called while nobody has joined.
        """

    def load_adapter(self, name: str, path: str) -> None:
        """Make the adapter in a folder usable as ``Order.adapter``. Raises ``Refused`` where it doesn't fit."""
        raise Refused("this engine takes no adapters")

    def unload_adapter(self, name: str) -> None:
        """Forget an adapter; nobody who is there uses it."""
        raise Refused("this engine takes no adapters")


class Constraint(ABC):
    """How far one request has come in obeying its grammar."""

    @abstractmethod
    def accept(self, token: int) -> None:
        """A token that the mask allowed was chosen."""


class Masker(ABC):
    """Compiles grammars for one model's vocabulary and says which tokens may come next."""

    @abstractmethod
    def __init__(self, folder: str, vocabulary: int, end_tokens: Sequence[int]) -> None:
        """For the tokenizer in ``folder`` (its ``tokenizer.json``), logits of ``vocabulary`` entries, and a model
        that ends with one of ``end_tokens``. Raises ``Refused`` for a tokenizer that it can't work with."""

    @abstractmethod
    def constraint(self, grammar: str) -> Constraint:
        """Start a grammar. Raises ``Refused`` where it doesn't compile."""

    @abstractmethod
    def fill(self, constraints: Sequence[Constraint], masks: memoryview) -> None:
        """Write which tokens may come next: a row for each constraint, of ceil(vocabulary / 32) 32-bit words.

        ``masks`` is contiguous, writable and has the shape (rows, words). Token t is allowed where bit t % 32 of
        word t // 32 is set, counted from the least significant. An end token is allowed exactly where the text
        may end; where it must, nothing else is. At least one token is always allowed.
        """
