"""Resolution: laws over drawn backends, transforms, specs and facts, and the rules M01 to M06 and M10."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st
from tests.distributions import run

from llmengine_core.explanation import explain, summarize
from llmengine_core.records import from_json, to_json
from llmengine_core.resolution import resolve
from llmengine_core.rules import RULES
from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.declarations import (
    BackendInfo,
    Declarations,
    Declared,
    EnvironmentSpec,
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
HERE = (EnvironmentFacts(python="/python", version="1.0"),)
some_methods = st.frozensets(st.sampled_from(METHODS), max_size=2)


@st.composite
def backends(draw: st.DrawFn, name: str) -> Declared[BackendInfo]:
    environment = EnvironmentSpec(
        distribution=f"{name}-engine", module=name, requirements=(f"{name}-engine>=1",)
    )
    info = BackendInfo(
        name=name,
        factory="x:Y",
        priority=draw(st.integers(-1, 1)),
        capabilities=draw(st.sampled_from([Capabilities(), Capabilities(logprobs=True)])),
        formats=draw(st.frozensets(formats, min_size=1, max_size=2)),
        architectures=draw(st.sampled_from([None, frozenset({"llama"}), frozenset({"gemma"})])),
        quantizations=draw(some_methods),
        accelerators=draw(
            st.sampled_from([frozenset({"cpu"}), frozenset({"cuda"}), frozenset({"cpu", "cuda"})])
        ),
        max_shards=draw(st.sampled_from([1, 4])),
        environment=draw(st.sampled_from([environment, environment, None])),
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
    )
    return Declared(info, "transforms")


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
        faults=tuple(fault(name, *draw(st.sampled_from([(), ("omega_engine",)]))) for name in broken),
        left_out=draw(st.sampled_from([(), (fault("quiet"),)])),
    )


@st.composite
def seen(draw: st.DrawFn) -> Facts:
    problems = st.sampled_from([(), (), (Problem("no libgomp", "apt-get install libgomp1"),)])
    broken = st.sampled_from([None, None, None, Problem("there is no /x", "put it there")])
    return Facts(
        checkpoint=CheckpointFacts(
            url="file:///x",
            format=draw(st.sampled_from([*FORMATS, None])),
            path=draw(st.sampled_from(["/x", None])),
            size=draw(st.sampled_from([None, GIB, 100 * GIB])),
            quantization=draw(st.sampled_from([None, "f16", *METHODS])),
            architecture=draw(st.sampled_from([None, "llama", "gemma"])),
            parameters=draw(st.sampled_from([None, 10**9, 10**11])),
            heads=draw(st.sampled_from([None, 9, 32])),
            problem=draw(broken),
        ),
        host=HostFacts(
            cpus=4,
            memory=16 * GIB,
            gpus=draw(st.sampled_from([0, 0, 1, 4])),
            gpu_memory=draw(st.sampled_from([0, 24 * GIB])),
        ),
        backends={
            name: BackendFacts(
                environments=draw(st.sampled_from([(), HERE])),
                problems=draw(problems),
            )
            for name in draw(st.sets(st.sampled_from(NAMES), min_size=2))
        },
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


needs = st.sampled_from([Capabilities(), Capabilities(logprobs=True)])
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
        for field in ("backends", "transforms", "faults", "left_out")
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
    best = min(fitting, key=lambda each: (-each.priority, each.name), default=None)
    assert plan.choice == best
    assert plan.candidates[: len(fitting)] == tuple(
        sorted(fitting, key=lambda each: (-each.priority, each.name))
    )


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


def mended(case: Drawn, candidate: Candidate, rule: str, mend: str) -> Drawn | None:
    """The case after a mend was carried out; None where it lies outside of what is modelled here."""
    spec, declarations, facts, wanted = case
    if found := re.fullmatch(r"(\w+)=(\S+)", mend.rpartition(", or ")[2]):
        change: dict[str, Any] = {found[1]: ast.literal_eval(found[2])}
        return replace(spec, **change), declarations, facts, wanted
    if mend == "leave quantize out":
        return replace(spec, quantize=None), declarations, facts, wanted
    if mend.startswith(("python -m pip install", "apt-get install")) and candidate.name in facts.backends:
        there = BackendFacts(environments=HERE)
        return spec, declarations, replace(facts, backends={**facts.backends, candidate.name: there}), wanted
    if rule == "checkpoint" and mend == "put it there":
        return spec, declarations, replace(facts, checkpoint=replace(facts.checkpoint, problem=None)), wanted
    return None


@given(cases)
def test_a_mend_makes_its_rule_pass(case: Drawn) -> None:
    for candidate in plan_of(case).candidates:
        for rule in candidate.rules:
            if rule.rule == "plugin" or rule.mend is None:
                continue
            after = mended(case, candidate, rule.rule, rule.mend)
            assert after is not None, f"{rule} has a mend that nobody can carry out"
            again = next(each for each in plan_of(after).candidates if each.name == candidate.name)
            result = next(each for each in again.rules if each.rule == rule.rule)
            assert result.verdict is not Verdict.FAILED or (
                # The weights are there now, and are seen to be of the wrong kind.
                rule.fact == "there is no /x" and result.fact != rule.fact
            ), f"{rule} → {result}"


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
        backends={"alpha": BackendFacts(environments=HERE)},
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
