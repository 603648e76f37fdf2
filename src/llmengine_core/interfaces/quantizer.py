"""Quantization while an engine loads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

__all__ = ["Quantizer"]


class Quantizer(ABC):
    """Says how a backend is told to quantize the weights that it loads. Pure and quick; imports no engine."""

    @abstractmethod
    def load_options(self, method: str, backend: str) -> Mapping[str, Any]:
        """What the backend's own loader takes, as JSON values.

        ``method`` is one of ``QuantizerInfo.methods`` by name, or of ``QuantizerInfo.stored`` for a checkpoint
        that is quantized already (then often nothing is to be said); ``backend`` one of
        ``QuantizerInfo.backends``. For the backend ``transformers`` these are keyword arguments of
        ``from_pretrained``: ``{"quantization_config": {"quant_method": ...}}``.
        """
