"""Backends, checkpoints and machines that examples of resolution are made of."""

from __future__ import annotations

from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.declarations import (
    BackendInfo,
    Declarations,
    Declared,
    EnvironmentSpec,
    GuidedDecoderInfo,
    TransformInfo,
)
from llmengine_core.types.models import ModelSpec
from llmengine_core.types.plan import (
    BackendFacts,
    CheckpointFacts,
    EnvironmentFacts,
    Facts,
    HostFacts,
    Plan,
    RuleResult,
    Verdict,
)

GIB = 1 << 30
STRUCTURED = Capabilities(structured=frozenset({"json"}), structured_dialect="lark")

LLAMA = Declared(
    BackendInfo(
        name="llama_cpp",
        factory="x:Y",
        capabilities=STRUCTURED,
        formats=frozenset({"gguf"}),
        environment=EnvironmentSpec(
            distribution="xllamacpp", module="xllamacpp", requirements=("xllamacpp>=2026.10",)
        ),
    ),
    "llamacpp",
    "llmengine-llamacpp 0.1.0",
)
VLLM = Declared(
    BackendInfo(
        name="vllm",
        factory="x:Y",
        capabilities=STRUCTURED,
        formats=frozenset({"safetensors"}),
        quantizations=frozenset({"awq", "fp8"}),
        accelerators=frozenset({"cuda"}),
        max_shards=8,
        environment=EnvironmentSpec(distribution="vllm", module="vllm", requirements=("vllm>=0.32",)),
    ),
    "vllm",
    "llmengine-vllm 0.1.0",
)
REQUANTIZE = Declared(
    TransformInfo(
        name="llama_cpp_quantize",
        factory="x:Y",
        source_format="gguf",
        target_format="gguf",
        methods=frozenset({"q8_0", "f16"}),
    ),
    "llamacpp",
)
CHECKER = Declared(
    GuidedDecoderInfo(name="checker", factory="x:Y", kinds=frozenset({"json"}), dialects=frozenset({"lark"})),
    "checker",
)
BOTH = Declarations(backends=(LLAMA, VLLM), transforms=(REQUANTIZE,), guided_decoders=(CHECKER,))
GGUF = CheckpointFacts(
    url="package://weights/model.gguf",
    path="/weights/model.gguf",
    format="gguf",
    size=98_362_432,
    quantization="q4_1",
    architecture="llama",
    parameters=134_515_008,
    heads=9,
)
SAFETENSORS = CheckpointFacts(
    url="s3://bucket/llama-2-7b", format="safetensors", size=13 * GIB, architecture="llama", heads=32
)


def current(distribution: str, version: str) -> EnvironmentFacts:
    """The environment that this process runs in, where it holds a distribution."""
    return EnvironmentFacts(python="/usr/bin/python", version=version, holds={distribution: version})


HERE = {
    "llama_cpp": BackendFacts(environments=(current("xllamacpp", "2026.10.1"),)),
    "vllm": BackendFacts(),
}
LAPTOP = Facts(checkpoint=GGUF, host=HostFacts(cpus=2, memory=24 * GIB), backends=HERE)
SERVER = Facts(
    checkpoint=SAFETENSORS,
    host=HostFacts(cpus=64, memory=512 * GIB, gpus=4, gpu_memory=24 * GIB),
    backends=HERE | {"vllm": BackendFacts(environments=(current("vllm", "0.32.0"),))},
)


def spec(**fields: object) -> ModelSpec:
    given: dict[str, object] = {"name": "mine", "model": "smollm2", "inference_framework": "auto", **fields}
    return ModelSpec(**given)  # type: ignore[arg-type]


def rule(plan: Plan, candidate: str, name: str) -> RuleResult:
    found = next(each for each in plan.candidates if each.name == candidate)
    return next(each for each in found.rules if each.rule == name)


def failing(plan: Plan, candidate: str) -> set[str]:
    found = next(each for each in plan.candidates if each.name == candidate)
    return {each.rule for each in found.rules if each.verdict is Verdict.FAILED}
