"""Resolution: laws over drawn backends, transforms, specs and facts, and the rules M01 to M06 and M10."""

from __future__ import annotations

import ast
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st
from tests.distributions import run

from llmengine_core.explanation import explain, summarize
from llmengine_core.recipes import Recipe, canonical, compose, owners
from llmengine_core.records import from_json, to_json
from llmengine_core.resolution import resolve
from llmengine_core.rules import RULES
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
from llmengine_core.types.models import ModelSpec
from llmengine_core.types.plan import (
    BackendFacts,
    Candidate,
    CheckpointFacts,
    EnvironmentFacts,
    Facts,
    HostFacts,
    Plan,
    PluginFault,
    Problem,
    Verdict,
)

GIB = 1 << 30

# -- what is drawn -----------------------------------------------------------------------------------------------

FORMATS = ["gguf", "safetensors", "pytorch"]
METHODS = ["q4_1", "q8_0", "awq"]
NAMES = ["alpha", "beta", "gamma", "delta"]
formats = st.sampled_from(FORMATS)
some_methods = st.frozensets(st.sampled_from(METHODS), max_size=2)
devices = st.sampled_from([frozenset({"cpu"}), frozenset({"cuda"}), frozenset({"cpu", "cuda"})])
architectures = st.sampled_from([None, frozenset({"llama"}), frozenset({"gemma"})])
NO_NUMPY = ("numpy; sys_platform == 'never'",)


@st.composite
def builds(draw: st.DrawFn, distribution: str) -> EnvironmentBuild:
    """One that may keep out what another asks for, or have pins that can't be read."""
    version = draw(st.sampled_from(["1.0", "2.0"]))
    return EnvironmentBuild(
        version=version,
        requirements=(f"{distribution}=={version}", *draw(st.sampled_from([(), (), ("numpy>=2",)]))),
        accelerators=draw(devices),
        pins=draw(st.sampled_from([None, None, None, "gone:pins.txt"])),
        overrides=draw(st.sampled_from([(), (), NO_NUMPY])),
    )


@st.composite
def environment_specs(draw: st.DrawFn, distribution: str) -> EnvironmentSpec:
    return EnvironmentSpec(
        distribution=distribution,
        module=distribution.replace("-", "_"),
        requirements=draw(st.sampled_from([(), (f"{distribution}>=1",)])),
        builds=tuple(draw(st.lists(builds(distribution), max_size=2))),
    )


@st.composite
def backends(draw: st.DrawFn, name: str) -> Declared[BackendInfo]:
    structured = Capabilities(structured=frozenset({"json"}), structured_dialect="lark")
    environment = draw(st.none() | environment_specs(f"{name}-engine"))
    info = BackendInfo(
        name=name,
        factory="x:Y",
        priority=draw(st.integers(-1, 1)),
        capabilities=draw(st.sampled_from([Capabilities(), Capabilities(logprobs=True), structured])),
        formats=draw(st.frozensets(formats, min_size=1, max_size=2)),
        architectures=draw(architectures),
        quantizations=draw(some_methods),
        loads_quantized=draw(st.none() | some_methods),
        accelerators=draw(devices),
        max_shards=draw(st.sampled_from([1, 4])),
        environment=environment,
        takes_masker=environment is not None and draw(st.booleans()),
        remote_code=draw(st.booleans()),
    )
    return Declared(info, f"plugin_{name}", f"llmengine-{name} 1.0")


@st.composite
def transforms(draw: st.DrawFn, name: str) -> Declared[TransformInfo]:
    source, target, methods = draw(formats), draw(formats), draw(some_methods)
    assume(source != target or methods)
    info = TransformInfo(
        name=name,
        factory="x:Y",
        priority=draw(st.integers(0, 1)),
        source_format=source,
        target_format=target,
        methods=methods,
        sources=draw(st.none() | some_methods),
        architectures=draw(architectures),
        environment=draw(st.none() | environment_specs("alpha-engine") | environment_specs(f"{name}-tool")),
    )
    return Declared(info, "transforms")


@st.composite
def quantizers(draw: st.DrawFn, name: str) -> Declared[QuantizerInfo]:
    methods = draw(st.sets(st.sampled_from(["nf4", "q8_0"]), min_size=1))
    info = QuantizerInfo(
        name=name,
        factory="x:Y",
        priority=draw(st.integers(0, 1)),
        methods=tuple(QuantizationMethod(name=each, bits=4.5) for each in sorted(methods)),
        backends=draw(st.frozensets(st.sampled_from(NAMES), min_size=1)),
        stored=draw(some_methods),
        accelerators=draw(devices),
        environment=draw(st.none() | environment_specs(name)),
    )
    return Declared(info, "quantizers")


@st.composite
def decoders(draw: st.DrawFn, name: str) -> Declared[GuidedDecoderInfo]:
    info = GuidedDecoderInfo(
        name=name,
        factory="x:Y",
        priority=draw(st.integers(0, 1)),
        kinds=frozenset({"json"}),
        dialects=draw(st.sampled_from([frozenset({"lark"}), frozenset({"gbnf"})])),
        masker=draw(st.sampled_from([None, "x:M"])),
        environment=draw(st.none() | environment_specs(name)),
    )
    return Declared(info, "decoders")


def fault(name: str, *registers: str) -> PluginFault:
    return PluginFault(
        name, f"llmengine-{name} 2.0", "failed to load: ImportError: no", "upgrade it", registers
    )


@st.composite
def declared(draw: st.DrawFn) -> Declarations:
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=4))
    broken = draw(st.lists(st.sampled_from(["trt", "vllm", "omega"]), unique=True, max_size=2))
    return Declarations(
        backends=tuple(draw(backends(name)) for name in names),
        transforms=tuple(draw(transforms(f"t{at}")) for at in range(draw(st.integers(0, 4)))),
        quantizers=tuple(draw(quantizers(name)) for name in draw(st.sampled_from([(), ("bits", "pack")]))),
        guided_decoders=tuple(
            draw(decoders(name)) for name in draw(st.sampled_from([(), ("guide", "rail")]))
        ),
        faults=tuple(fault(name, *draw(st.sampled_from([(), ("omega_engine",)]))) for name in broken),
        left_out=draw(st.sampled_from([(), (fault("quiet"),)])),
    )


PARTS = ("bits", "pack", "guide", "rail")


@st.composite
def places(draw: st.DrawFn, distribution: str) -> tuple[EnvironmentFacts, ...]:
    """Environments that hold a distribution, in the order that they are promised in."""
    found = []
    for python, version, accelerators in (
        ("/python", "1.5", None),
        ("/new/python", "2.0", draw(devices)),
        ("/old/python", "1.0", draw(devices)),
    ):
        if draw(st.booleans()):
            beside = {part: "1.0" for part in PARTS if draw(st.booleans())}
            name = python.split("/")[1] if accelerators else ""
            found.append(
                EnvironmentFacts(
                    python=python,
                    version=version,
                    name=name,
                    accelerators=accelerators,
                    holds={distribution: version, **beside},
                )
            )
    return tuple(found)


@st.composite
def seen(draw: st.DrawFn) -> Facts:
    problems = st.sampled_from([(), (), (Problem("no libgomp", "apt-get install libgomp1"),)])
    broken = st.sampled_from([None, None, None, Problem("there is no /x", "put it there")])
    return Facts(
        checkpoint=CheckpointFacts(
            url="file:///x",
            format=draw(st.sampled_from([*FORMATS, *FORMATS, "adapter", None])),
            path=draw(st.sampled_from(["/x", None])),
            size=draw(st.sampled_from([None, GIB, 100 * GIB])),
            quantization=draw(st.sampled_from([None, "f16", *METHODS])),
            architecture=draw(st.sampled_from([None, "llama", "gemma"])),
            parameters=draw(st.sampled_from([None, 10**9, 10**11])),
            heads=draw(st.sampled_from([None, 9, 32])),
            remote_code=draw(st.booleans()),
            base=draw(st.sampled_from([None, "llama-7b"])),
            problem=draw(broken),
        ),
        host=HostFacts(
            cpus=4,
            memory=16 * GIB,
            gpus=draw(st.sampled_from([0, 0, 1, 4])),
            gpu_memory=draw(st.sampled_from([0, 24 * GIB])),
        ),
        backends={
            name: BackendFacts(environments=draw(places(f"{name}-engine")), problems=draw(problems))
            for name in draw(st.sets(st.sampled_from(NAMES), min_size=2))
        },
        transforms={f"t{at}": draw(places(f"t{at}-tool")) for at in range(4)},
        allow_remote_code=draw(st.booleans()),
    )


@st.composite
def specs(draw: st.DrawFn) -> ModelSpec:
    gpus = draw(st.sampled_from([None, None, 0, 1, 4]))
    return ModelSpec(
        name="x",
        model="m",
        inference_framework=draw(st.sampled_from(["auto", "auto", *NAMES, "vllm", "omega_engine", "alpa"])),
        inference_framework_image_tag=draw(st.sampled_from(["latest", "latest", "1.0", "2.0"])),
        quantize=draw(st.sampled_from([None, None, *METHODS, "nf4"])),
        num_shards=draw(st.sampled_from([1, 1, 2, 3, 8])),
        gpus=gpus,
        cpus=draw(st.sampled_from([None, 2, 64])),
        memory=draw(st.sampled_from([None, "1Gi", "1Ti"])),
        gpu_type=draw(st.sampled_from([None, "nvidia-hopper-h100"])) if gpus else None,
        high_priority=draw(st.booleans()),
    )


needs = st.sampled_from(
    [Capabilities(), Capabilities(logprobs=True), Capabilities(structured=frozenset({"json"}))]
)
cases = st.tuples(specs(), declared(), seen(), needs)
Drawn = tuple[ModelSpec, Declarations, Facts, Capabilities]


def plan_of(case: Drawn) -> Plan:
    spec, declarations, facts, wanted = case
    return resolve(spec, declarations, facts, needs=wanted)


# -- laws --------------------------------------------------------------------------------------------------------


@given(cases, st.randoms(use_true_random=False))
def test_the_order_of_declarations_means_nothing(case: Drawn, random: Any) -> None:
    spec, declarations, facts, wanted = case
    shuffled = {
        field: tuple(random.sample(each := getattr(declarations, field), len(each)))
        for field in ("backends", "transforms", "quantizers", "guided_decoders", "faults", "left_out")
    }
    assert plan_of(case) == plan_of((spec, Declarations(**shuffled), facts, wanted))


@given(cases)
def test_every_candidate_is_held_against_every_rule(case: Drawn) -> None:
    plan = plan_of(case)
    assert {each.info.name for each in case[1].backends} <= {each.name for each in plan.candidates}
    for candidate in plan.candidates:
        assert [rule.rule for rule in candidate.rules] == list(RULES)
        assert all(rule.fact for rule in candidate.rules)
        assert all(rule.mend is None for rule in candidate.rules if rule.verdict is not Verdict.FAILED)


@given(cases)
def test_the_choice_is_the_best_of_those_that_fail_no_rule(case: Drawn) -> None:
    plan = plan_of(case)
    fitting = [
        each
        for each in plan.candidates
        if not [rule for rule in each.rules if rule.verdict is Verdict.FAILED]
    ]
    ranked = sorted(fitting, key=lambda each: (bool(each.transforms), -each.priority, each.name))
    assert plan.candidates[: len(fitting)] == tuple(ranked)
    assert plan.choice == (ranked[0] if ranked else None)
    assert bool(plan.why) == (plan.choice is not None)
    if plan.framework == "auto":
        assert all(each.name in plan.why for each in ranked[1:]), "it says over whom it was chosen"


@given(cases)
def test_what_is_chosen_has_all_that_it_runs_on(case: Drawn) -> None:
    spec, declarations, facts, _ = case
    choice = plan_of(case).choice
    if choice is None:
        return
    info = next(each.info for each in declarations.backends if each.info.name == choice.name)
    here = facts.backends[choice.name].environments if choice.name in facts.backends else ()
    place = choice.environment
    assert (place is None) == (info.environment is None or not here) or choice.name not in facts.backends
    assert place is None or place in here
    if place is not None:
        assert spec.inference_framework_image_tag in ("latest", place.version)
        assert choice.version == place.version
        wanted = "cuda" if spec.gpus else "cpu" if "cpu" in info.accelerators else "cuda"
        assert place.accelerators is None or wanted in place.accelerators
    by_name: dict[str, QuantizerInfo | GuidedDecoderInfo] = {
        each.info.name: each.info for each in declarations.quantizers
    }
    by_name |= {each.info.name: each.info for each in declarations.guided_decoders}
    for part in filter(None, (choice.quantizer, choice.masker)):
        needed = by_name[part].environment
        assert place is None or needed is None or needed.distribution in place.holds
    if choice.masker is not None:
        decoder = by_name[choice.masker]
        assert isinstance(decoder, GuidedDecoderInfo)
        assert decoder.masker is not None
        assert info.takes_masker
        assert info.capabilities.structured_dialect in decoder.dialects
    for step in choice.transforms:
        transform = next(each.info for each in declarations.transforms if each.info.name == step.transform)
        if transform.environment is not None:
            able = {each.python if each.name else "" for each in facts.transforms[step.transform]}
            assert step.python in able


@given(
    st.lists(
        st.tuples(st.sampled_from(NAMES), st.integers(-3, 3)), unique_by=lambda each: each[0], min_size=1
    )
)
def test_priority_decides_among_those_that_fit_and_then_the_name(ranked: list[tuple[str, int]]) -> None:
    infos = [
        BackendInfo(
            name=name,
            factory="x:Y",
            priority=priority,
            capabilities=Capabilities(),
            formats=frozenset({"gguf"}),
        )
        for name, priority in ranked
    ]
    declarations = Declarations(backends=tuple(Declared(info, "p") for info in infos))
    facts = Facts(
        checkpoint=CheckpointFacts(url="/x", path="/x", format="gguf"), host=HostFacts(cpus=1, memory=GIB)
    )
    plan = resolve(ModelSpec(name="x", model="m", inference_framework="auto"), declarations, facts)
    assert [each.name for each in plan.candidates] == [
        name for name, _ in sorted(ranked, key=lambda each: (-each[1], each[0]))
    ]
    assert plan.chosen == plan.candidates[0].name


@given(cases, st.data())
def test_a_backend_that_does_not_fit_never_changes_the_choice(case: Drawn, data: st.DataObject) -> None:
    spec, declarations, facts, wanted = case
    before = plan_of(case)
    newcomer = data.draw(backends("epsilon"))
    more = replace(declarations, backends=(*declarations.backends, newcomer))
    after = plan_of((spec, more, facts, wanted))
    added = next(each for each in after.candidates if each.name == "epsilon")
    assert after.chosen == (before.chosen if not added.fits else after.chosen)
    assert [
        each for each in after.candidates if each is not added and each.rules[0].verdict is Verdict.PASSED
    ] == [each for each in before.candidates if each.rules[0].verdict is Verdict.PASSED]


NEW_MASKER = GuidedDecoderInfo(
    name="new",
    factory="x:Y",
    priority=9,
    kinds=frozenset({"json"}),
    dialects=frozenset({"lark"}),
    masker="x:M",
)


def mended(case: Drawn, candidate: Candidate, mend: str) -> Drawn | None:
    """The case after a mend was carried out; None where it lies outside of what is modelled here."""
    spec, declarations, facts, wanted = case
    if found := re.fullmatch(r"([a-z]\w*)=(\S+)", mend):
        change: dict[str, Any] = {found[1]: ast.literal_eval(found[2])}
        return replace(spec, **change), declarations, facts, wanted
    if mend == "leave quantize out":
        return replace(spec, quantize=None), declarations, facts, wanted
    if mend.startswith("LLMENGINE_ALLOW_REMOTE_CODE=true"):
        return spec, declarations, replace(facts, allow_remote_code=True), wanted
    if mend == "reinstall its plugin":
        return spec, declarations, replace(facts, pins={"gone:pins.txt": {}}), wanted
    if mend == "put it there":
        return spec, declarations, replace(facts, checkpoint=replace(facts.checkpoint, problem=None)), wanted
    if mend == "python -m pip install llmengine-llguidance":
        more = (*declarations.guided_decoders, Declared(NEW_MASKER, "new"))
        return spec, replace(declarations, guided_decoders=more), facts, wanted
    for command in mend.split(" && "):
        words = shlex.split(command)
        if words[:4] == ["python", "-m", "pip", "install"]:
            facts = installed(facts, declarations, {}, words[4:])
        elif words[:3] == ["llmengine", "engines", "install"]:
            name, options = words[3], dict(zip(words[4::2], words[5::2], strict=True))
            facts = installed(facts, declarations, options, name)
        elif words[:2] == ["apt-get", "install"]:
            there = replace(facts.backends[candidate.name], problems=())
            facts = replace(facts, backends={**facts.backends, candidate.name: there})
        else:
            return None
    return spec, declarations, facts, wanted


def installed(
    facts: Facts, declarations: Declarations, options: dict[str, str], what: str | list[str]
) -> Facts:
    """What is seen once requirements are in the current environment, or the environment of ``what`` was built."""
    if isinstance(what, str):
        owner = owners(declarations)[what]
        methods = [options["--quantize"]] if "--quantize" in options else []
        recipe = compose(
            owner,
            declarations,
            tag=options.get("--version", "latest"),
            accelerator=options.get("--accelerator", "cpu"),
            methods=methods,
            pins=facts.pins,
        )
        assert isinstance(recipe, Recipe), f"{what} {options} can't be installed: {recipe}"
        python, name, accelerators = f"/{recipe.name}/python", recipe.name, frozenset({recipe.accelerator})
        versions = dict.fromkeys(recipe.distributions, "1.0")
        versions[canonical(owner.environment.distribution if owner.environment else "")] = recipe.version
    else:
        python, name, accelerators = "/python", "", None
        parsed = [re.fullmatch(r"([\w-]+)(?:[>=]=(\S+))?", each) for each in what]
        versions = {each[1]: each[2] or "1.0" for each in parsed if each}

    def more(distribution: str, there: tuple[EnvironmentFacts, ...]) -> tuple[EnvironmentFacts, ...]:
        before = next((each for each in there if each.python == python), None)
        holds = {**(before.holds if before else {}), **versions}
        if distribution not in holds:
            return there
        new = EnvironmentFacts(
            python=python, version=holds[distribution], name=name, accelerators=accelerators, holds=holds
        )
        others = [each for each in there if each is not before]
        return tuple(sorted((new, *others), key=lambda each: (each.name == "", each.version), reverse=True))

    return replace(
        facts,
        backends={
            each: replace(found, environments=more(f"{each}-engine", found.environments))
            for each, found in facts.backends.items()
        },
        transforms={
            info.name: more(info.environment.distribution, facts.transforms.get(info.name, ()))
            for info in (each.info for each in declarations.transforms)
            if info.environment is not None
        },
    )


@given(cases)
def test_a_mend_makes_its_rule_pass(case: Drawn) -> None:
    for candidate in plan_of(case).candidates:
        for rule in candidate.rules:
            if rule.rule == "plugin" or rule.mend is None:
                continue
            for mend in rule.mend.split(", or "):
                after = mended(case, candidate, mend)
                assert after is not None, f"{rule} has a mend that nobody can carry out"
                again = next(each for each in plan_of(after).candidates if each.name == candidate.name)
                result = next(each for each in again.rules if each.rule == rule.rule)
                # Weights that are there now may be seen to be of the wrong kind; a plugin that is whole again says
                # what is still to be installed.
                first_of_two = mend in ("put it there", "reinstall its plugin") and result.fact != rule.fact
                assert result.verdict is not Verdict.FAILED or first_of_two, f"{rule} → {result}"


@given(cases)
def test_an_engine_that_is_missing_has_a_mend_or_a_reason_why_not(case: Drawn) -> None:
    for candidate in plan_of(case).candidates:
        for rule in candidate.rules:
            if rule.rule == "engine" and rule.verdict is Verdict.FAILED:
                assert (rule.mend is not None) != ("and can't be: " in rule.fact and "pins" not in rule.fact)


@given(cases)
def test_a_plan_in_words_names_every_candidate_with_its_reasons(case: Drawn) -> None:
    plan = plan_of(case)
    brief, full = summarize(plan), explain(plan)
    lines = brief.splitlines()
    rows = [line.split()[0] for line in lines[1:]]
    for candidate in plan.candidates:
        assert candidate.name in rows
        for rule in candidate.rules:
            assert rule.fact in full
            if rule.verdict is Verdict.FAILED:
                assert rule.fact in brief
                assert rule.mend is None or rule.mend in full
    assert all(note in full for note in plan.notes)
    assert lines[0].endswith(":")
    assert repr(plan.framework) in lines[0]


@given(cases)
def test_plans_survive_being_stored(case: Drawn) -> None:
    plan = plan_of(case)
    assert from_json(Plan, to_json(plan)) == plan


def test_resolving_touches_nothing() -> None:
    """No file, process, socket, thread or import: Python's own audit sees nothing."""
    program = """
    import json, sys
    sys.path.insert(0, "benchmarks")
    from bench_resolution import DECLARATIONS, FACTS, SPEC, resolve, replace
    resolve(SPEC, DECLARATIONS, FACTS)
    events = []
    on = [False]
    sys.addaudithook(lambda event, _: on[0] and events.append(event))
    on[0] = True
    for framework in ("auto", "vllm", "engin1"):
        resolve(replace(SPEC, inference_framework=framework), DECLARATIONS, FACTS)
    on[0] = False
    print(json.dumps([event for event in events if not event.startswith("object.")]))
    """
    root = Path(__file__).parents[1]
    assert run(root, program.replace('"benchmarks"', repr(str(root / "benchmarks")))) == []


# -- resources ---------------------------------------------------------------------------------------------------


@given(st.integers(1, 4 << 30), st.integers(1, 4 << 30), st.sampled_from(["memory", "storage"]))
def test_m06_less_than_the_weights_take_is_refused_with_what_would_do(
    size: int, asked: int, field: str
) -> None:
    info = BackendInfo(
        name="alpha", factory="x:Y", capabilities=Capabilities(), formats=frozenset({"gguf"}),
        environment=EnvironmentSpec(distribution="a", module="a"),
    )  # fmt: skip
    facts = Facts(
        checkpoint=CheckpointFacts(url="/m.gguf", path="/m.gguf", format="gguf", size=size),
        host=HostFacts(cpus=2, memory=64 * GIB),
        backends={"alpha": BackendFacts(environments=(EnvironmentFacts(python="/python", version="1.0"),))},
    )
    spec = ModelSpec(name="m", model="m", inference_framework="alpha", checkpoint_path="/m.gguf")
    declarations = Declarations(backends=(Declared(info, "plugin"),))
    plan = resolve(replace(spec, **{field: str(asked)}), declarations, facts)  # type: ignore[arg-type]
    least = int(size * info.memory_factor) if field == "memory" else size
    assert (plan.chosen is None) == (asked < least)
    rule = next(rule for rule in plan.candidates[0].rules if rule.rule == "memory")
    if rule.mend is not None:
        name, value = rule.mend.split("=")
        mended = resolve(replace(spec, **{name: value.strip("'")}), declarations, facts)  # type: ignore[arg-type]
        assert mended.chosen == "alpha"
