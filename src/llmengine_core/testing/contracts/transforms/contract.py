"""What every transform promises."""

from __future__ import annotations

from llmengine_core.testing.contracts.transforms.output import OutputLaws
from llmengine_core.testing.contracts.transforms.working import WorkingLaws

__all__ = ["TransformContract"]


class TransformContract(OutputLaws, WorkingLaws):
    """A transform by its name: what it makes, and how it behaves while it does."""
