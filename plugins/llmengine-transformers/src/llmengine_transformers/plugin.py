"""What this plugin registers with llmengine."""

from __future__ import annotations

from llmengine_core.hookspecs import hookimpl
from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.declarations import BackendInfo, EnvironmentBuild, EnvironmentSpec, TransformInfo
from llmengine_transformers.gguf_architectures import CLASSES

__all__ = ["ARCHITECTURES", "CAPABILITIES", "CONTRACT", "ENVIRONMENT"]

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
    token_ids=True,
    messages=True,
    adapters="dynamic",
    cancels_prefill=True,
)
ARCHITECTURES = frozenset(
    {
        "cohere", "cohere2", "exaone4", "gemma", "gemma2", "gemma3_text", "glm", "glm4", "gpt2",
        "gpt_neox", "granite", "helium", "llama", "ministral", "mistral", "mixtral", "olmo",
        "olmo2", "olmo3", "opt", "phi", "phi3", "phimoe", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe",
        "smollm3", "starcoder2",
    }
)  # fmt: skip
"""As config.json has them in ``model_type``. Small models of each were held against the library's own ``generate()``,
at mixed lengths, with windows, while requests come and go: worker_tests/test_worker_architectures.py."""
BESIDES = ("accelerate", "gguf", "peft", "safetensors", "sentencepiece")
"""What comes along: loaders of other formats, and what quantizers and tests work on."""


def _build(transformers: str, torch: str, accelerator: str) -> EnvironmentBuild:
    return EnvironmentBuild(
        version=transformers,
        requirements=(f"torch=={torch}", f"transformers=={transformers}", *BESIDES),
        accelerators=frozenset({accelerator}),
        pins=f"llmengine_transformers:pins/{transformers}-{accelerator}.txt",
    )


ENVIRONMENT = EnvironmentSpec(
    distribution="transformers",
    module="transformers",
    requirements=("torch>=2.13", "transformers>=5.12.1,<6", *BESIDES),
    builds=(
        _build("5.23.0", "2.13.0", "cpu"),
        _build("5.12.1", "2.13.0", "cpu"),
        _build("5.23.0", "2.13.0", "cuda"),  # resolved, but nobody has run it
    ),
)


@hookimpl
def register_backends() -> list[BackendInfo]:
    """Hugging Face Transformers, on the CPU; nobody has run it on another device yet."""
    return [
        BackendInfo(
            name="transformers",
            factory="llmengine_transformers.backend:TransformersBackend",
            capabilities=CAPABILITIES,
            formats=frozenset({"safetensors", "pytorch"}),
            architectures=ARCHITECTURES,
            loads_quantized=frozenset(),
            accelerators=frozenset({"cpu"}),
            environment=ENVIRONMENT,
            probe="llmengine_transformers.host:problems",
            memory_factor=1.3,  # 1.05 at 1.5 GB of weights, 1.3 at 0.27 GB
            takes_masker=True,
            remote_code=True,
        )
    ]


@hookimpl
def register_transforms() -> list[TransformInfo]:
    """GGUF files opened up for Transformers, in its environment."""
    return [
        TransformInfo(
            name="gguf_to_safetensors",
            factory="llmengine_transformers.dequantize:Dequantize",
            source_format="gguf",
            target_format="safetensors",
            architectures=frozenset(CLASSES),
            environment=ENVIRONMENT,
        )
    ]
