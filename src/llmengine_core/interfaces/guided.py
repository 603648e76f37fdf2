"""Constraints: checked before anything runs, translated for an engine, verified afterwards."""

from __future__ import annotations

from abc import ABC, abstractmethod

from llmengine_core.types.sampling import StructuredOutput, Translation

__all__ = ["GuidedDecoder"]


class GuidedDecoder(ABC):
    """A checker of constraints on the core's side. Stateless to its callers; may cache; thread-safe.

    Input comes from outside: a constraint of any size or nesting is answered within bounded time and
    memory, by an error if need be.
    """

    @abstractmethod
    def check(self, structured: StructuredOutput) -> None:
        """Return where the constraint is valid and can be enforced in full.

        Raises ``BadRequestError`` quoting the compiler's reason where it is invalid, and
        ``UnsupportedFeatureError`` naming the keyword where it is valid but can't be enforced.
        """

    @abstractmethod
    def translate(self, structured: StructuredOutput, dialect: str) -> Translation:
        """A checked constraint in an engine's dialect (one of ``GuidedDecoderInfo.dialects``)."""

    @abstractmethod
    def verify(self, structured: StructuredOutput, text: str, *, complete: bool) -> bool:
        """Whether ``text`` obeys: in full where ``complete``, else as the start of one that could."""
