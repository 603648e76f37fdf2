"""Resolution by example: engine environments, what runs beside an engine in them, and what ``auto`` prefers."""

from __future__ import annotations

from dataclasses import replace

from tests.resolving import GGUF, GIB, HERE, LAPTOP, LLAMA, SAFETENSORS, STRUCTURED, rule, spec

from llmengine_core.explanation import explain
from llmengine_core.resolution import resolve
from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.declarations import (
    BackendInfo,
    Declarations,
    Declared,
    EnvironmentBuild,
    EnvironmentSpec,
    GuidedDecoderInfo,
    QuantizationMethod,
    QuantizerInfo,
    TransformInfo,
)
from llmengine_core.types.plan import (
    BackendFacts,
    CheckpointFacts,
    EnvironmentFacts,
    Facts,
    HostFacts,
    Plan,
    Verdict,
)

TORCH = "torch==2.13.0"


def build(version: str, *accelerators: str, overrides: tuple[str, ...] = ()) -> EnvironmentBuild:
    return EnvironmentBuild(
        version=version,
        requirements=(f"transformers=={version}", TORCH),
        accelerators=frozenset(accelerators or {"cpu"}),
        overrides=overrides,
    )


TRANSFORMERS = BackendInfo(
    name="transformers",
    factory="x:Y",
    capabilities=STRUCTURED,
    formats=frozenset({"safetensors"}),
    architectures=frozenset({"llama"}),
    loads_quantized=frozenset(),
    accelerators=frozenset({"cpu", "cuda"}),
    environment=EnvironmentSpec(
        distribution="transformers",
        module="transformers",
        builds=(build("5.23.0"), build("5.20.0"), build("5.23.0", "cuda")),
    ),
    takes_masker=True,
    remote_code=True,
)
BITS = QuantizerInfo(
    name="bitsandbytes",
    factory="x:Y",
    methods=(QuantizationMethod(name="int8", bits=8), QuantizationMethod(name="nf4", bits=4.5)),
    backends=frozenset({"transformers"}),
    stored=frozenset({"bitsandbytes"}),
    environment=EnvironmentSpec(
        distribution="bitsandbytes",
        module="bitsandbytes",
        builds=(EnvironmentBuild(version="0.50.2", requirements=("bitsandbytes==0.50.2",)),),
    ),
)
GUIDE = GuidedDecoderInfo(
    name="guide",
    factory="x:Y",
    kinds=frozenset({"json"}),
    dialects=frozenset({"lark"}),
    masker="x:Masker",
    environment=EnvironmentSpec(
        distribution="guide",
        module="guide",
        builds=(EnvironmentBuild(version="1.0", requirements=("guide==1.0",)),),
    ),
)
OPEN = TransformInfo(
    name="gguf_to_safetensors",
    factory="x:Y",
    source_format="gguf",
    target_format="safetensors",
    environment=TRANSFORMERS.environment,
)


def declared(
    backend: BackendInfo = TRANSFORMERS, quantizer: QuantizerInfo = BITS, guide: GuidedDecoderInfo = GUIDE
) -> Declarations:
    return Declarations(
        backends=(LLAMA, Declared(backend, "transformers")),
        transforms=(Declared(OPEN, "transformers"),),
        quantizers=(Declared(quantizer, "bits"),),
        guided_decoders=(Declared(guide, "guide"),),
    )


def built(version: str, name: str, *beside: str, accelerator: str = "cpu") -> EnvironmentFacts:
    return EnvironmentFacts(
        python=f"/home/environments/{name}/bin/python",
        version=version,
        name=name,
        accelerators=frozenset({accelerator}),
        holds={"transformers": version, **dict.fromkeys(beside, "1.0")},
    )


def facts(
    *environments: EnvironmentFacts, checkpoint: CheckpointFacts = SAFETENSORS, gpus: int = 0, **more: object
) -> Facts:
    return Facts(
        checkpoint=checkpoint,
        host=HostFacts(cpus=8, memory=64 * GIB, gpus=gpus, gpu_memory=80 * GIB),
        backends=HERE | {"transformers": BackendFacts(environments=environments)},
        transforms={OPEN.name: environments},
        **more,  # type: ignore[arg-type]
    )


def told(plan: Plan, name: str) -> tuple[str, str | None]:
    """What a rule says of transformers, and its mend."""
    result = rule(plan, "transformers", name)
    return result.fact, result.mend


def test_an_engine_with_environments_of_its_own_says_what_builds_one() -> None:
    for asked, command in (
        ({}, "llmengine engines install transformers"),
        ({"quantize": "nf4"}, "llmengine engines install transformers --quantize nf4"),
        ({"gpus": 1}, "llmengine engines install transformers --accelerator cuda"),
        (
            {"inference_framework_image_tag": "5.20.0"},
            "llmengine engines install transformers --version 5.20.0",
        ),
    ):
        plan = resolve(spec(inference_framework="transformers", **asked), declared(), facts(gpus=1))
        assert told(plan, "engine") == ("its engine transformers is not on this machine", command)
        assert plan.chosen is None


def test_m03_a_version_is_one_that_was_built_or_one_that_can_be() -> None:
    new, old = built("5.23.0", "new"), built("5.20.0", "old")

    def asked(tag: str, *here: EnvironmentFacts) -> Plan:
        return resolve(
            spec(inference_framework="transformers", inference_framework_image_tag=tag),
            declared(),
            facts(*here),
        )

    for tag, version in (("5.23.0", "5.23.0"), ("5.20.0", "5.20.0"), ("latest", "5.23.0")):
        choice = asked(tag, new, old).choice
        assert choice
        assert choice.environment
        assert (choice.version, choice.environment.version) == (version, version)
    latest = "inference_framework_image_tag='latest'"
    command = "llmengine engines install transformers --version 5.20.0"
    assert told(asked("5.20.0", new), "version") == (
        "version 5.20.0 is not here, but 5.23.0", f"{command}, or {latest}",
    )  # fmt: skip
    fact, mend = told(asked("4.0.0", new), "version")
    assert fact == (
        "version 4.0.0 is not here, but 5.23.0; transformers has no build of version 4.0.0 for accelerator 'cpu', "
        "only of 5.23.0, 5.20.0"
    )
    assert mend == latest


def test_of_several_environments_the_one_with_the_most_is_taken_and_the_plan_says_why() -> None:
    here = EnvironmentFacts(python="/usr/bin/python", version="5.1.0", holds={"transformers": "5.1.0"})
    plain, older = built("5.23.0", "plain"), built("5.20.0", "older")
    masked, bits = built("5.20.0", "masked", "guide"), built("5.20.0", "bits", "bitsandbytes")

    def chosen(*environments: EnvironmentFacts, **asked: object) -> tuple[str, str]:
        plan = resolve(spec(inference_framework="transformers", **asked), declared(), facts(*environments))
        assert plan.choice
        assert plan.choice.environment
        return plan.choice.environment.name, told(plan, "engine")[0].partition(": ")[2]

    assert chosen(here, plain, masked, bits, quantize="nf4") == ("bits", "it has bitsandbytes")
    assert chosen(here, plain, masked, bits) == ("masked", "it has guide")
    assert chosen(here, plain, bits) == ("", "llmengine itself runs in it")
    assert chosen(plain, older) == ("plain", "the newest of 2")
    assert chosen(plain) == ("plain", "")


def test_an_environment_for_another_device_does_not_do() -> None:
    plan = resolve(
        spec(inference_framework="transformers", gpus=1), declared(), facts(built("5.23.0", "cpu"), gpus=1)
    )
    assert told(plan, "engine") == (
        "no environment here has transformers for cuda",
        "llmengine engines install transformers --accelerator cuda",
    )
    cuda = facts(built("5.23.0", "both", accelerator="cuda"), gpus=1)
    assert resolve(spec(gpus=1), declared(), cuda).chosen == "transformers"
    idle = resolve(spec(), declared(), facts(built("5.23.0", "cpu"), gpus=1))
    assert "it runs on the processors; gpus=1 puts it on a GPU" in idle.notes


def test_what_cannot_be_installed_together_is_told_with_its_reason() -> None:
    without = replace(
        TRANSFORMERS,
        environment=EnvironmentSpec(
            distribution="transformers",
            module="transformers",
            builds=(build("5.23.0", overrides=("numpy; sys_platform == 'never'",)),),
        ),
    )
    wants = EnvironmentBuild(version="0.50.2", requirements=("bitsandbytes==0.50.2", "numpy"))
    assert BITS.environment
    bits = replace(BITS, environment=replace(BITS.environment, builds=(wants,)))
    reason = "bitsandbytes 0.50.2 requires numpy but transformers 5.23.0 leaves numpy out"
    for here, name in (((), "engine"), ((built("5.23.0", "plain"),), "quantization")):
        plan = resolve(
            spec(inference_framework="transformers", quantize="nf4"), declared(without, bits), facts(*here)
        )
        fact, mend = told(plan, name)
        assert fact.endswith(f", and can't be: {reason}")
        assert mend is None


# -- quantizers --------------------------------------------------------------------------------------------------


def test_m05_a_quantizer_applies_its_methods_as_the_engine_loads() -> None:
    weights = replace(SAFETENSORS, parameters=7 * 10**9)
    here = facts(built("5.23.0", "bits", "bitsandbytes", "guide"), checkpoint=weights)
    plan = resolve(spec(inference_framework="transformers", quantize="nf4"), declared(), here)
    assert plan.choice
    assert (plan.choice.quantizer, plan.choice.masker) == ("bitsandbytes", "guide")
    assert told(plan, "quantization") == ("nf4, applied as it loads, by bitsandbytes", None)
    assert told(plan, "memory")[0].startswith("about 4.72 GB"), "7e9 weights of 4.5 bits, and a fifth more"


def test_m05_a_quantizer_that_is_not_in_the_environment_is_told_with_what_brings_it() -> None:
    plan = resolve(
        spec(inference_framework="transformers", quantize="nf4"), declared(), facts(built("5.23.0", "plain"))
    )
    assert told(plan, "quantization") == (
        "nf4 needs bitsandbytes, which is not in the environment plain",
        "llmengine engines install transformers --quantize nf4",
    )


def test_a_checkpoint_that_is_quantized_needs_somebody_who_reads_it() -> None:
    def of(stored: str, **asked: object) -> Plan:
        checkpoint = replace(SAFETENSORS, quantization=stored)
        here = facts(built("5.23.0", "bits", "bitsandbytes"), checkpoint=checkpoint)
        return resolve(spec(inference_framework="transformers", **asked), declared(), here)

    plan = of("bitsandbytes")
    assert plan.choice
    assert plan.choice.quantizer == "bitsandbytes"
    assert told(of("gptq"), "quantization") == ("the weights are stored in 'gptq' (loads none)", None)
    assert told(of("bitsandbytes", quantize="nf4"), "quantization") == (
        "quantization 'nf4' of weights that are stored in 'bitsandbytes' (offers bitsandbytes)",
        "quantize='bitsandbytes'",
    )
    checkpoint = replace(SAFETENSORS, quantization="bitsandbytes")
    bare = resolve(
        spec(inference_framework="transformers"),
        declared(),
        facts(built("5.23.0", "plain"), checkpoint=checkpoint),
    )
    assert told(bare, "quantization") == (
        "bitsandbytes needs bitsandbytes, which is not in the environment plain",
        "llmengine engines install transformers --quantize bitsandbytes",
    )


# -- maskers -----------------------------------------------------------------------------------------------------


def test_without_a_masker_guided_requests_are_refused_and_the_plan_says_what_brings_one() -> None:
    asked, bare = spec(inference_framework="transformers"), facts(built("5.23.0", "plain"))
    plan = resolve(asked, declared(), bare)
    assert plan.choice
    assert plan.choice.masker is None
    note = "guided requests are refused, since no masker is beside the engine: "
    assert f"{note}llmengine engines install transformers" in plan.notes
    silent = resolve(asked, declared(guide=replace(GUIDE, masker=None)), bare)
    assert f"{note}python -m pip install llmengine-llguidance" in silent.notes
    needs = Capabilities(structured=frozenset({"json"}))
    refused = resolve(asked, declared(), bare, needs=needs)
    assert told(refused, "capabilities") == (
        "can't do guided_json without a masker",
        "llmengine engines install transformers",
    )
    whole = facts(built("5.23.0", "whole", "guide"))
    assert resolve(asked, declared(), whole, needs=needs).chosen == "transformers"
    assert not resolve(asked, declared(), whole).notes[1:]


# -- code of a checkpoint's own ----------------------------------------------------------------------------------


def test_code_that_comes_with_a_checkpoint_runs_only_where_the_settings_allow_it() -> None:
    strange = replace(SAFETENSORS, architecture="strange", remote_code=True)
    here = built("5.23.0", "plain", "guide")
    asked = spec(inference_framework="transformers")
    fact, mend = told(resolve(asked, declared(), facts(here, checkpoint=strange)), "checkpoint")
    assert (
        fact
        == "architecture 'strange' is code that comes with the checkpoint, which the settings don't allow"
    )
    assert mend == "LLMENGINE_ALLOW_REMOTE_CODE=true, once you have read it"
    allowed = resolve(asked, declared(), facts(here, checkpoint=strange, allow_remote_code=True))
    assert rule(allowed, "transformers", "checkpoint").verdict is Verdict.UNKNOWN
    assert "the checkpoint brings code of its own, which may run with your rights" in allowed.notes
    never = declared(replace(TRANSFORMERS, remote_code=False))
    refused = resolve(asked, never, facts(here, checkpoint=strange, allow_remote_code=True))
    assert told(refused, "checkpoint") == ("architecture 'strange' (loads llama)", None)


def test_code_is_not_run_for_an_architecture_that_the_backend_knows() -> None:
    known = facts(
        built("5.23.0", "plain", "guide"),
        checkpoint=replace(SAFETENSORS, remote_code=True),
        allow_remote_code=True,
    )
    plan = resolve(spec(inference_framework="transformers"), declared(), known)
    assert plan.chosen == "transformers"
    assert "the checkpoint brings code of its own, which is not run" in plan.notes


# -- transforms in environments ----------------------------------------------------------------------------------


def test_a_gguf_model_on_transformers_goes_through_a_conversion_in_its_environment() -> None:
    here = built("5.23.0", "plain", "guide")
    plan = resolve(spec(inference_framework="transformers"), declared(), facts(here, checkpoint=GGUF))
    assert plan.choice
    (step,) = plan.choice.transforms
    assert (step.transform, step.python) == ("gguf_to_safetensors", here.python)
    assert "full precision is made of q4_1 weights; what they lost isn't won back" in plan.notes
    assert told(plan, "memory")[0].startswith("about 323 MB"), "16 bits for each of 134,515,008 weights"


def test_a_conversion_that_has_no_environment_yet_is_shown_with_what_builds_it() -> None:
    own = replace(OPEN, environment=EnvironmentSpec(distribution="tool", module="tool", builds=(build("1"),)))
    declarations = replace(declared(), transforms=(Declared(own, "tool"),))
    here = facts(built("5.23.0", "plain"), checkpoint=GGUF)
    here = replace(here, transforms={own.name: ()})
    plan = resolve(spec(inference_framework="transformers"), declarations, here)
    assert told(plan, "checkpoint") == (
        "gguf → safetensors by gguf_to_safetensors; no environment here runs gguf_to_safetensors",
        "llmengine engines install gguf_to_safetensors",
    )
    candidate = next(each for each in plan.candidates if each.name == "transformers")
    assert [step.transform for step in candidate.transforms] == ["gguf_to_safetensors"]


# -- auto --------------------------------------------------------------------------------------------------------


def test_auto_prefers_what_loads_the_checkpoint_as_it_is_and_says_over_whom() -> None:
    ahead = replace(TRANSFORMERS, priority=50)
    here = facts(built("5.23.0", "plain", "guide"), checkpoint=GGUF)
    plan = resolve(spec(), declared(ahead), here)
    assert plan.chosen == "llama_cpp"
    assert plan.why == "loads the checkpoint as it is, but transformers can only once it is transformed"
    assert "  chosen   loads" in explain(plan)
    assert plan.why in explain(plan)
    twin = Declared(replace(LLAMA.info, name="alpaca_cpp", priority=1), "alpaca")
    both = replace(declared(ahead), backends=(LLAMA, twin))
    seen = replace(here, backends=HERE | {"alpaca_cpp": HERE["llama_cpp"]})
    assert resolve(spec(), both, seen).why == "has priority 1, but llama_cpp 0"
    equal = replace(both, backends=(LLAMA, replace(twin, info=replace(twin.info, priority=0))))
    assert resolve(spec(), equal, seen).why == "comes by its name before llama_cpp, all else being equal"
    assert resolve(spec(inference_framework="llama_cpp"), equal, seen).why == "asked for by name"
    assert resolve(spec(), Declarations(backends=(LLAMA,)), LAPTOP).why == "nothing else fits"
