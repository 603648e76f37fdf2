"""What this plugin registers with llmengine."""

from __future__ import annotations

from llmengine_core.hookspecs import hookimpl
from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.declarations import BackendInfo, EnvironmentSpec, TransformInfo
from llmengine_core.types.models import ModelCard
from llmengine_llamacpp.card import SMOLLM2
from llmengine_llamacpp.worker.hf_model import ARCHITECTURES

__all__ = ["CAPABILITIES", "CONTRACT"]

CONTRACT = 1

CAPABILITIES = Capabilities(
    logprobs=True,
    presence_penalty=True,
    frequency_penalty=True,
    top_k=True,
    top_p=True,
    seed=True,
    structured=frozenset({"json", "regex", "choice", "grammar"}),
    structured_dialect="llguidance",
    structured_excludes=frozenset({"presence_penalty"}),  # see penalties
    token_ids=True,
    messages=True,
    cancels_prefill=True,
)
FEW_BITS = ("q5_1", "q5_0", "q4_1", "q4_0")
"""Ways to store weights that lose something, from more bits to fewer."""


@hookimpl
def register_backends() -> list[BackendInfo]:
    """llama.cpp, on the CPU."""
    return [
        BackendInfo(
            name="llama_cpp",
            priority=10,
            factory="llmengine_llamacpp.backend:LlamaCppBackend",
            capabilities=CAPABILITIES,
            formats=frozenset({"gguf"}),
            environment=EnvironmentSpec(
                distribution="xllamacpp", module="xllamacpp", requirements=("xllamacpp>=2026.10",)
            ),
            probe="llmengine_llamacpp.host:problems",
        )
    ]


@hookimpl
def register_transforms() -> list[TransformInfo]:
    """Safetensors converted, and checkpoints requantized; 8 bits are read faster than 4 on most CPUs."""
    return [
        TransformInfo(
            name="safetensors_to_gguf",
            factory="llmengine_llamacpp.convert:Convert",
            source_format="safetensors",
            target_format="gguf",
            sources=frozenset(),
            architectures=frozenset(ARCHITECTURES),
        ),
        _requantization("gguf_requantize", "f16", "q8_0", sources=None),
        # To quantize once more, to fewer bits, what has few already breaks models.
        *(
            _requantization(f"gguf_{method}", method, sources=frozenset({"q8_0", *FEW_BITS[at:]}))
            for at, method in enumerate(FEW_BITS)
        ),
    ]


def _requantization(name: str, *methods: str, sources: frozenset[str] | None) -> TransformInfo:
    return TransformInfo(
        name=name,
        factory="llmengine_llamacpp.requantize:Requantize",
        source_format="gguf",
        target_format="gguf",
        methods=frozenset(methods),
        sources=sources,
    )


@hookimpl
def register_models() -> list[ModelCard]:
    """The base models that come as packages."""
    return [SMOLLM2]
