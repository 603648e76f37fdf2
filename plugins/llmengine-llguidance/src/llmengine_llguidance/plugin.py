"""What this plugin registers with llmengine."""

from __future__ import annotations

from collections.abc import Sequence

from llmengine_core.hookspecs import hookimpl
from llmengine_core.types.declarations import EnvironmentBuild, EnvironmentSpec, GuidedDecoderInfo

__all__ = ["CONTRACT", "register_guided_decoders"]

CONTRACT = 1


@hookimpl
def register_guided_decoders() -> Sequence[GuidedDecoderInfo]:
    """The checker of every kind of constraint; what it translates into, llama.cpp and its masker read."""
    return [
        GuidedDecoderInfo(
            name="llguidance",
            factory="llmengine_llguidance.decoder:LLGuidanceDecoder",
            kinds=frozenset({"json", "regex", "choice", "grammar"}),
            dialects=frozenset({"llguidance"}),
            masker="llmengine_llguidance.worker.masker:LLGuidanceMasker",
            environment=EnvironmentSpec(
                distribution="llguidance",
                module="llguidance",
                requirements=("llguidance>=1.7",),
                builds=(
                    EnvironmentBuild(
                        version="1.9.1",
                        requirements=("llguidance==1.9.1",),
                        pins="llmengine_llguidance:pins/1.9.1.txt",
                    ),
                ),
            ),
        )
    ]
