"""What this plugin registers with llmengine."""

from __future__ import annotations

from collections.abc import Sequence

from llmengine_core.hookspecs import hookimpl
from llmengine_core.types.declarations import (
    EnvironmentBuild,
    EnvironmentSpec,
    QuantizationMethod,
    QuantizerInfo,
)

__all__ = ["CONTRACT", "register_quantizers"]

CONTRACT = 1

METHODS = (
    QuantizationMethod(name="bitsandbytes", bits=8.0),
    QuantizationMethod(name="bitsandbytes-nf4", bits=4.5),
    QuantizationMethod(name="bitsandbytes-fp4", bits=4.5),
)
"""A scale of 32 bits goes with each row of weights in 8 bits, which is next to nothing, and with each 64 in 4 bits."""


@hookimpl
def register_quantizers() -> Sequence[QuantizerInfo]:
    """LLM.int8, NF4 and FP4, on the CPU; nobody has run them on another device here yet."""
    return [
        QuantizerInfo(
            name="bitsandbytes",
            factory="llmengine_bitsandbytes.quantizer:BitsAndBytes",
            methods=METHODS,
            backends=frozenset({"transformers"}),
            stored=frozenset(method.name for method in METHODS),
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
