"""What this plugin registers with llmengine."""

from __future__ import annotations

from collections.abc import Sequence

from llmengine_bitsandbytes.quantizer import BITS
from llmengine_core.hookspecs import hookimpl
from llmengine_core.types.declarations import (
    EnvironmentBuild,
    EnvironmentSpec,
    QuantizationMethod,
    QuantizerInfo,
)

__all__ = ["CONTRACT", "register_quantizers"]

CONTRACT = 1


@hookimpl
def register_quantizers() -> Sequence[QuantizerInfo]:
    """LLM.int8, NF4 and FP4, on the CPU; nobody has run them on another device here yet."""
    return [
        QuantizerInfo(
            name="bitsandbytes",
            factory="llmengine_bitsandbytes.quantizer:BitsAndBytes",
            methods=tuple(QuantizationMethod(name=name, bits=bits) for name, bits in BITS.items()),
            backends=frozenset({"transformers"}),
            stored=frozenset(BITS),
            accelerators=frozenset({"cpu"}),
            environment=EnvironmentSpec(
                distribution="bitsandbytes",
                module="bitsandbytes",
                requirements=("bitsandbytes>=0.50",),
                builds=(
                    EnvironmentBuild(
                        version="0.50.2",
                        requirements=("bitsandbytes==0.50.2",),
                        accelerators=frozenset({"cpu"}),
                        pins="llmengine_bitsandbytes:pins/0.50.2.txt",
                    ),
                ),
            ),
        )
    ]
