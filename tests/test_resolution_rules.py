"""Resolution by example: the contract's rules, one machine, and the texts that people read."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.resolving import (
    BOTH,
    GIB,
    HERE,
    LAPTOP,
    LLAMA,
    REQUANTIZE,
    SAFETENSORS,
    SERVER,
    STRUCTURED,
    VLLM,
    failing,
    rule,
    spec,
)

from llmengine_core.errors import BadRequestError, ResolutionError
from llmengine_core.explanation import explain, resolution_error, summarize
from llmengine_core.resolution import resolve
from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.declarations import (
    Declarations,
    Declared,
    TransformInfo,
)
from llmengine_core.types.plan import (
    CheckpointFacts,
    Facts,
    PluginFault,
    Problem,
    TransformStep,
    Verdict,
)

# -- M01, M02 ----------------------------------------------------------------------------------------------------


def test_m01_what_can_be_served_has_a_choice_and_what_cannot_an_error_with_the_plan() -> None:
    plan = resolve(spec(), BOTH, LAPTOP)
    assert plan.chosen == "llama_cpp"
    assert plan.choice
    assert (plan.choice.plugin, plan.choice.version) == ("llamacpp", "2026.10.1")
    assert failing(plan, "vllm") == {"engine", "checkpoint", "device"}
    error = resolution_error(resolve(spec(inference_framework="vllm"), BOTH, LAPTOP))
    assert isinstance(error, ResolutionError)
    assert isinstance(error, BadRequestError)
    assert error.plan.chosen is None
    assert error.message == summarize(error.plan)


def test_m02_a_framework_of_the_reference_without_a_plugin_says_what_installs_it() -> None:
    only_llama = Declarations(backends=(LLAMA,))
    for framework, distribution in {
        "deepspeed": "llmengine-deepspeed",
        "text_generation_inference": "llmengine-tgi",
        "vllm": "llmengine-vllm",
        "lightllm": "llmengine-lightllm",
    }.items():
        plan = resolve(spec(inference_framework=framework), only_llama, LAPTOP)
        assert plan.chosen is None
        assert plan.candidates[0].name == framework
        told = rule(plan, framework, "plugin")
        assert told.fact == "no plugin for it is installed"
        assert told.mend == f"python -m pip install {distribution}"
        assert rule(plan, "llama_cpp", "framework").mend == "inference_framework='llama_cpp'"


def test_m02_an_unknown_framework_lists_what_there_is_and_what_is_close() -> None:
    plan = resolve(spec(inference_framework="lama_cpp"), BOTH, LAPTOP)
    told = rule(plan, "lama_cpp", "plugin")
    assert told.fact == "no plugin registers it (registered: auto, llama_cpp, vllm)"
    assert told.mend == "inference_framework='llama_cpp'"


def test_m02_a_named_framework_is_never_replaced() -> None:
    assert resolve(spec(inference_framework="vllm"), BOTH, LAPTOP).chosen is None
    assert resolve(spec(inference_framework="llama_cpp"), BOTH, LAPTOP).chosen == "llama_cpp"


# -- failed plugins ----------------------------------------------------------------------------------------------

TRT = PluginFault("trt", "llmengine-trt 0.3", "failed to load: ImportError: libnvinfer.so.10", "reinstall it")


def test_a_failed_plugin_is_named_where_it_would_have_mattered() -> None:
    with_trt = Declarations(backends=(LLAMA,), faults=(TRT,))

    def names(framework: str, declarations: Declarations = with_trt) -> list[str]:
        return [
            each.name
            for each in resolve(spec(inference_framework=framework), declarations, LAPTOP).candidates
        ]

    assert names("auto") == ["llama_cpp", "trt"]
    assert names("llama_cpp") == ["llama_cpp"], "it was served"
    assert names("trt") == ["trt", "llama_cpp"], "its own name needs no other explanation"
    assert names("vllm") == ["vllm", "llama_cpp", "trt"], "it might have been it"
    knows = Declarations(backends=(LLAMA,), faults=(PluginFault("p", "", "is bad", None, ("tensorrt_llm",)),))
    assert names("tensorrt_llm", knows) == ["tensorrt_llm", "llama_cpp"]
    assert names("vllm", knows) == ["vllm", "llama_cpp"], "it is known that it would have been another"
    fact = rule(resolve(spec(), with_trt, LAPTOP), "trt", "plugin").fact
    assert fact == "plugin llmengine-trt 0.3 failed to load: ImportError: libnvinfer.so.10"


def test_a_plugin_that_is_left_out_is_named_where_nobody_else_has_the_framework() -> None:
    quiet = PluginFault("llamacpp", "llmengine-llamacpp 0.1.0", "is left out by LLMENGINE_PLUGINS", "add it")
    declarations = Declarations(backends=(VLLM,), left_out=(quiet,))
    plan = resolve(spec(inference_framework="llama_cpp"), declarations, LAPTOP)
    assert rule(plan, "llamacpp", "plugin").mend == "add it"
    assert [each.name for each in resolve(spec(), declarations, LAPTOP).candidates] == ["vllm"]


# -- M03 ---------------------------------------------------------------------------------------------------------


def test_m03_a_tag_is_latest_or_exactly_the_version_that_is_here() -> None:
    for tag in ("latest", "2026.10.1"):
        assert resolve(spec(inference_framework_image_tag=tag), BOTH, LAPTOP).chosen == "llama_cpp"
    for tag in ("2026.10", "2026.10.10", "0.9.4"):
        plan = resolve(spec(inference_framework_image_tag=tag), BOTH, LAPTOP)
        assert plan.chosen is None
        told = rule(plan, "llama_cpp", "version")
        assert told.fact == f"version {tag} is not here, but 2026.10.1"
        assert (
            told.mend == f"python -m pip install xllamacpp=={tag}, or inference_framework_image_tag='latest'"
        )


# -- M04 ---------------------------------------------------------------------------------------------------------


def test_m04_a_format_that_nobody_loads_and_a_conversion_to_one() -> None:
    facts = Facts(checkpoint=SAFETENSORS, host=LAPTOP.host, backends=HERE)
    assert (
        rule(resolve(spec(), BOTH, facts), "llama_cpp", "checkpoint").fact
        == "format 'safetensors' (loads gguf)"
    )
    convert = Declared(
        TransformInfo(name="convert", factory="x:Y", source_format="safetensors", target_format="gguf"), "p"
    )
    more = Declarations(backends=(LLAMA,), transforms=(REQUANTIZE, convert))
    plan = resolve(spec(quantize="q8_0"), more, facts)
    assert plan.choice
    assert plan.choice.transforms == (
        TransformStep(transform="convert", source_format="safetensors", target_format="gguf"),
        TransformStep(
            transform="llama_cpp_quantize", source_format="gguf", target_format="gguf", method="q8_0"
        ),
    )
    assert not [note for note in plan.notes if "full precision" in note]


def test_m04_what_is_not_known_of_a_checkpoint_is_unknown_and_fits_for_now() -> None:
    archive = CheckpointFacts(url="s3://bucket/model.tar", size=GIB)
    plan = resolve(spec(), BOTH, Facts(checkpoint=archive, host=LAPTOP.host, backends=HERE))
    assert plan.chosen == "llama_cpp"
    assert rule(plan, "llama_cpp", "checkpoint").verdict is Verdict.UNKNOWN
    asked = resolve(spec(quantize="q8_0"), BOTH, Facts(checkpoint=archive, host=LAPTOP.host, backends=HERE))
    assert rule(asked, "llama_cpp", "quantization").verdict is Verdict.UNKNOWN
    assert rule(asked, "vllm", "quantization").fact == "quantization 'q8_0' (offers awq, fp8)"


# -- M05 ---------------------------------------------------------------------------------------------------------


def test_m05_quantize_takes_what_the_engine_or_a_transform_offers() -> None:
    made = resolve(spec(quantize="q8_0"), BOTH, LAPTOP)
    assert made.choice
    assert [step.method for step in made.choice.transforms] == ["q8_0"]
    assert "q8_0 is made of q4_1 weights, not of full precision" in made.notes
    stored = resolve(spec(quantize="q4_1"), BOTH, LAPTOP)
    assert stored.choice
    assert stored.choice.transforms == ()
    native = resolve(spec(quantize="awq", gpus=1), BOTH, SERVER)
    assert native.chosen == "vllm"
    assert rule(native, "vllm", "quantization").fact == "awq, applied as it loads"


def test_m05_another_quantization_names_those_that_are_offered() -> None:
    plan = resolve(spec(quantize="awq"), BOTH, LAPTOP)
    told = rule(plan, "llama_cpp", "quantization")
    assert told.fact == "quantization 'awq' (offers f16, q4_1, q8_0)"
    assert told.mend == "quantize='q4_1'"


def test_m05_an_engine_does_not_quantize_what_is_quantized() -> None:
    quantized = CheckpointFacts(url="/x", path="/x", format="safetensors", size=GIB, quantization="gptq")
    facts = Facts(checkpoint=quantized, host=SERVER.host, backends=SERVER.backends)
    told = rule(resolve(spec(quantize="awq"), BOTH, facts), "vllm", "quantization")
    assert told.fact == "quantization 'awq' of weights that are stored in 'gptq' (offers gptq)"


@pytest.mark.parametrize(
    ("fields", "fact", "mend"),
    [
        ({"num_shards": 2}, "num_shards=2 (splits over 1 at most)", "num_shards=1"),
        ({"num_shards": 3}, "num_shards=3 doesn't divide the model's 32 attention heads", "num_shards=2"),
        ({"num_shards": 4, "gpus": 2}, "num_shards=4 over gpus=2", "num_shards=2"),
        ({"num_shards": 16}, "num_shards=16 (splits over 8 at most)", "num_shards=8"),
    ],
)
def test_m05_shards_are_limited_by_engine_gpus_and_heads(
    fields: dict[str, int], fact: str, mend: str
) -> None:
    plan = resolve(spec(**fields), BOTH, SERVER)
    told = rule(plan, "llama_cpp" if fields == {"num_shards": 2} else "vllm", "shards")
    assert (told.fact, told.mend) == (fact, mend)


# -- M06 ---------------------------------------------------------------------------------------------------------


def test_m06_gpus_that_are_not_here_or_of_no_use_fail() -> None:
    assert rule(resolve(spec(gpus=1), BOTH, LAPTOP), "llama_cpp", "device").fact == "gpus=1 (runs on cpu)"
    told = rule(resolve(spec(gpus=8), BOTH, SERVER), "vllm", "device")
    assert (told.fact, told.mend) == ("gpus=8 (this machine has 4 GPUs)", "gpus=4")
    told = rule(resolve(spec(gpus=0), BOTH, SERVER), "vllm", "device")
    assert (told.fact, told.mend) == ("gpus=0 (runs on a GPU only)", "gpus=1")
    assert (
        rule(resolve(spec(), BOTH, LAPTOP), "vllm", "device").fact == "needs 1 GPU (this machine has no GPUs)"
    )
    assert resolve(spec(gpus=1), BOTH, SERVER).chosen == "vllm"


def test_m06_the_weights_must_fit_where_they_are_served() -> None:
    big = CheckpointFacts(url="/x", path="/x", format="gguf", size=40 * GIB, parameters=70 * 10**9)
    plan = resolve(spec(), BOTH, Facts(checkpoint=big, host=LAPTOP.host, backends=HERE))
    assert rule(plan, "llama_cpp", "memory").fact == "needs about 51.5 GB; this machine has 25.8 GB"
    on_gpus = Facts(
        checkpoint=CheckpointFacts(url="/x", path="/x", format="safetensors", size=60 * GIB, heads=32),
        host=SERVER.host,
        backends=SERVER.backends,
    )
    assert "memory" in failing(resolve(spec(gpus=2), BOTH, on_gpus), "vllm")
    assert "memory" not in failing(resolve(spec(gpus=4), BOTH, on_gpus), "vllm")
    assert rule(resolve(spec(quantize="awq"), BOTH, on_gpus), "vllm", "memory").verdict is Verdict.UNKNOWN


def test_m06_what_is_asked_for_and_not_enforced_here_is_said() -> None:
    plan = resolve(spec(high_priority=True, cpus=64, memory="96Gi"), BOTH, LAPTOP)
    notes = "\n".join(plan.notes)
    assert "no prewarmed pool" in notes
    assert "cpus=64 were asked for; this machine has 2" in notes
    assert "memory=96Gi was asked for; this machine has 24.0Gi" in notes
    assert plan.asked == {"cpus": "64", "memory": "96Gi"}
    typed = resolve(spec(gpus=1, gpu_type="nvidia-ampere-a10"), BOTH, SERVER)
    assert any("gpu_type=nvidia-ampere-a10 is not compared" in note for note in typed.notes)
    assert any("fetched from s3://bucket/llama-2-7b" in note for note in typed.notes)
    assert not resolve(spec(), BOTH, LAPTOP).notes


def test_missing_checkers_are_noted_and_missing_capabilities_fail() -> None:
    bare = Declarations(backends=(LLAMA,))
    assert any("llmengine-llguidance" in note for note in resolve(spec(), bare, LAPTOP).notes)
    plan = resolve(spec(), bare, LAPTOP, needs=Capabilities(logprobs=True, adapters="at_load"))
    told = rule(plan, "llama_cpp", "capabilities")
    assert told.fact == "can't do logprobs, adapters as it starts (they are loaded by none)"


def test_what_must_go_with_a_constraint_is_looked_for() -> None:
    apart = replace(LLAMA.info.capabilities, top_k=True, structured_excludes=frozenset({"top_k"}))
    backend = Declared(replace(LLAMA.info, capabilities=apart), "llamacpp")
    declarations = replace(BOTH, backends=(backend,))
    both = Capabilities(top_k=True, structured=frozenset({"json"}))
    refusal = rule(resolve(spec(), declarations, LAPTOP, needs=both), "llama_cpp", "capabilities")
    assert refusal.fact == "can't do top_k together with a constraint"
    for needs in (Capabilities(top_k=True), Capabilities(structured=frozenset({"json"}))):
        assert resolve(spec(), declarations, LAPTOP, needs=needs).choice


# -- adapters ----------------------------------------------------------------------------------------------------

ADAPTER = CheckpointFacts(url="/adapter", path="/adapter", format="adapter", size=4096, base="acme/SmolLM2")
TAKING = Declared(
    replace(LLAMA.info, name="choir", capabilities=replace(STRUCTURED, adapters="dynamic")), "choir"
)
ADAPTED = replace(LAPTOP, adapter=ADAPTER, backends=HERE | {"choir": HERE["llama_cpp"]})


def test_an_adapter_goes_to_a_backend_that_takes_it_while_it_runs() -> None:
    both = replace(BOTH, backends=(LLAMA, TAKING))
    plan = resolve(spec(), both, ADAPTED)
    assert plan.chosen == "choir"
    assert (plan.adapter, plan.checkpoint) == (ADAPTER, LAPTOP.checkpoint)
    assert not plan.notes
    assert failing(plan, "llama_cpp") == {"capabilities"}
    told = rule(plan, "llama_cpp", "capabilities")
    assert told.fact == "can't do adapters while it runs (they are loaded by choir)"
    at_load = Declared(replace(TAKING.info, capabilities=replace(STRUCTURED, adapters="at_load")), "choir")
    plan = resolve(spec(), replace(BOTH, backends=(at_load,)), ADAPTED)
    assert rule(plan, "choir", "capabilities").fact.endswith("(they are loaded by none)")


def test_the_base_of_an_adapter_is_held_against_the_rules() -> None:
    strange = replace(ADAPTED, checkpoint=replace(LAPTOP.checkpoint, format="safetensors"))
    told = rule(resolve(spec(), replace(BOTH, backends=(TAKING,)), strange), "choir", "checkpoint")
    assert told.fact == "format 'safetensors' (loads gguf)"


@pytest.mark.parametrize(
    ("base", "told"),
    [
        ("acme/SmolLM2", False),
        ("SmolLM2-135M-Instruct", False),
        ("acme/other-7b", True),
        ("/runs/3/checkpoint-500", False),
        (None, False),
    ],
)
def test_an_adapter_that_names_another_base_is_noted(base: str | None, told: bool) -> None:
    facts = replace(ADAPTED, adapter=replace(ADAPTER, base=base))
    plan = resolve(spec(), replace(BOTH, backends=(TAKING,)), facts)
    assert plan.chosen == "choir"
    assert [note for note in plan.notes if "adapter" in note] == [
        f"the adapter says that it was trained on {base!r}; whether it fits 'smollm2' shows when it is loaded"
    ] * told


def test_a_plan_in_words_shows_the_adapter_under_its_base() -> None:
    lines = explain(resolve(spec(), replace(BOTH, backends=(TAKING,)), ADAPTED)).splitlines()
    assert lines[1].startswith("  weights  /weights/model.gguf (gguf, ")
    assert lines[2] == "  adapter  /adapter (adapter, 4,096 bytes, trained on 'acme/SmolLM2')"


# -- M10 and the texts -------------------------------------------------------------------------------------------


def test_m10_an_unknown_model_is_a_resolution_error_that_says_so_once() -> None:
    problem = Problem("no base model is called 'smol', and there is no checkpoint_path", "model='smollm2'")
    facts = Facts(checkpoint=CheckpointFacts(url="", problem=problem), host=LAPTOP.host, backends=HERE)
    message = resolution_error(resolve(spec(model="smol"), BOTH, facts)).message
    assert message.count("no base model is called 'smol'") == 1
    assert message.splitlines() == [
        "nothing here can serve 'smol' with inference_framework='auto':",
        f"  weights    {problem.message}     mend: model='smollm2'",
        "  llama_cpp  fits, but for the weights",
        (
            "  vllm       its engine vllm is not in this environment; needs 1 GPU (this machine has no GPUs)"
            "     mend: python -m pip install 'vllm>=0.32'"
        ),
    ]


def test_the_error_reads_like_this() -> None:
    declarations = Declarations(backends=(LLAMA, VLLM), transforms=(REQUANTIZE,), faults=(TRT,))
    facts = Facts(checkpoint=SAFETENSORS, host=SERVER.host, backends=HERE)
    plan = resolve(spec(model="llama-2-7b", inference_framework="vllm", quantize="awq"), declarations, facts)
    assert summarize(plan).splitlines() == [
        "nothing here can serve 'llama-2-7b' with inference_framework='vllm', quantize='awq':",
        "  vllm       its engine vllm is not in this environment     mend: python -m pip install 'vllm>=0.32'",
        (
            "  llama_cpp  not asked for (framework is 'vllm'); would fail: format 'safetensors' (loads gguf); "
            "quantization 'awq' (offers none)"
        ),
        "  trt        plugin llmengine-trt 0.3 failed to load: ImportError: libnvinfer.so.10     mend: reinstall it",
    ]


def test_a_choice_reads_like_this() -> None:
    plan = resolve(spec(quantize="q8_0"), Declarations(backends=(LLAMA,), transforms=(REQUANTIZE,)), LAPTOP)
    assert summarize(plan).splitlines() == [
        "llama_cpp 2026.10.1 serves 'smollm2' with inference_framework='auto', quantize='q8_0':",
        "  llama_cpp  chosen",
    ]
    assert explain(plan).splitlines() == [
        "llama_cpp 2026.10.1 serves 'smollm2' with inference_framework='auto', quantize='q8_0'",
        "  weights    /weights/model.gguf (gguf, llama, q4_1, 98,362,432 bytes, 134,515,008 parameters)",
        "  transform  q8_0, by llama_cpp_quantize",
        "  chosen     nothing else fits",
        "  note       q8_0 is made of q4_1 weights, not of full precision",
        "  note       guided requests are refused until a checker is here: python -m pip install llmengine-llguidance",
        "",
        "llama_cpp 2026.10.1: chosen",
        "  passed   plugin        llmengine-llamacpp 0.1.0 is loaded",
        "  passed   framework     any will do",
        "  passed   engine        xllamacpp is here",
        "  passed   version       2026.10.1 is here",
        "  unknown  checkpoint    gguf → q8_0 by llama_cpp_quantize; architecture 'llama' is tried when it loads",
        "  passed   quantization  q8_0, made once by llama_cpp_quantize",
        "  passed   shards        1",
        "  passed   device        2 processors here",
        "  passed   memory        about 182 MB; this machine has 25.8 GB",
        "  passed   capabilities  none are asked for",
    ]


def test_nothing_to_choose_from_says_what_to_install() -> None:
    plan = resolve(spec(), Declarations(), LAPTOP)
    assert (
        "no plugin registers one     mend: python -m pip install llmengine" in resolution_error(plan).message
    )
