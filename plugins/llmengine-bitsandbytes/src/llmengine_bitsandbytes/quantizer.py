"""How Transformers is told to quantize with bitsandbytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmengine_core.errors import BadRequestError
from llmengine_core.interfaces.quantizer import Quantizer

__all__ = ["BITS", "BitsAndBytes"]

BITS = {"bitsandbytes": 8.0, "bitsandbytes-nf4": 4.5, "bitsandbytes-fp4": 4.5}
"""That a weight takes, by method. A scale of 32 bits goes with each row of weights in 8 bits, which is next to
nothing, and with each 64 weights in 4 bits."""


class BitsAndBytes(Quantizer):
    """LLM.int8 (arXiv:2208.07339), NF4 (arXiv:2305.14314) and FP4.

    Linear layers are quantized, but for the head; activations stay as they are, and 4-bit weights are multiplied in
    bfloat16. A checkpoint that is stored in one of these forms is told the same again, which changes nothing.
    """

    def load_options(self, method: str, backend: str) -> Mapping[str, Any]:
        """What ``from_pretrained`` takes. Raises ``BadRequestError`` for a method that isn't one of ``BITS``."""
        if method not in BITS:
            raise BadRequestError(f"bitsandbytes has no method {method!r}; it has {', '.join(BITS)}")
        config: dict[str, Any] = {"quant_method": "bitsandbytes"}
        if method == "bitsandbytes":
            config["load_in_8bit"] = True
        else:
            config["load_in_4bit"] = True
            config["bnb_4bit_quant_type"] = method.removeprefix("bitsandbytes-")
            config["bnb_4bit_compute_dtype"] = "bfloat16"
        return {"quantization_config": config}
