"""What a backend can do, declared once and read by the resolver, the gate, the kit and the docs."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, TypeAlias

from llmengine_core.types.sampling import StructuredKind

__all__ = ["COMBINABLE", "AdapterSupport", "Capabilities"]

AdapterSupport: TypeAlias = Literal["none", "at_load", "dynamic"]
COMBINABLE = frozenset({"logprobs", "presence_penalty", "frequency_penalty", "top_k", "top_p", "seed"})
"""What a request may ask for besides a constraint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """Declared: it works, and the contract kit proves it. Not declared: refused, never dropped.

    Stop sequences, streaming, cancellation and usage are no capabilities: every backend has them.
    """

    logprobs: bool = False
    """Log probabilities of the generated tokens under the raw model distribution."""
    presence_penalty: bool = False
    frequency_penalty: bool = False
    top_k: bool = False
    top_p: bool = False
    seed: bool = False
    """The same seed gives the same sampled text, run alone."""
    structured: frozenset[StructuredKind] = frozenset()
    """The kinds of constraint that it enforces while it generates."""
    structured_dialect: str | None = None
    """The language that it wants constraints in (``GuidedDecoder.translate``)."""
    structured_excludes: frozenset[str] = frozenset()
    """Those above that can't be combined with a constraint, by name: "presence_penalty"."""
    token_ids: bool = False
    """Takes prompts as token ids."""
    messages: bool = False
    """Takes conversations and applies the model's chat template."""
    adapters: AdapterSupport = "none"
    """``at_load``: adapters named when it starts; ``dynamic``: also loaded and unloaded while it runs."""
    batch_invariant: bool = False
    """Greedy text is the same whatever else is running."""
    cancels_prefill: bool = False
    """A request cancelled while its prompt is being read stops within 2 s."""

    @property
    def combined(self) -> frozenset[str]:
        """What can be asked for together with a constraint, by name."""
        if not self.structured:
            return frozenset()
        return frozenset(name for name in COMBINABLE - self.structured_excludes if getattr(self, name))

    def within(self, other: Capabilities) -> bool:
        """Whether these are a narrowing of ``other``: nothing here that is not there."""
        order: dict[AdapterSupport, int] = {"none": 0, "at_load": 1, "dynamic": 2}
        flags = all(
            getattr(self, f.name) <= getattr(other, f.name)
            for f in fields(self)
            if isinstance(getattr(self, f.name), bool)
        )
        return (
            flags
            and self.structured <= other.structured
            and self.structured_dialect in (None, other.structured_dialect)
            and self.combined <= other.combined
            and order[self.adapters] <= order[other.adapters]
        )
