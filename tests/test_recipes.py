"""Merging what environments ask for: laws first, then each kind of conflict."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmengine_core.recipes import (
    Conflict,
    Recipe,
    canonical,
    compose,
    environment_specs,
    is_version,
    masker_for,
    merge,
    owners,
    parse_pins,
    pins_wanted,
    quantizer_for,
)
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

NEVER = "sys_platform == 'never'"
BOTH = frozenset({"cpu", "cuda"})

LIBRARIES = st.sampled_from(["torch", "numpy", "gears"])
VERSIONS = st.sampled_from(["1.0", "2.0", "2.0+cpu", "2.0+cu1", "3.0"])
REQUIREMENTS = st.builds(
    str.__add__, LIBRARIES, st.sampled_from(["", "==2.0", ">=2", "<3", f"; {NEVER}", f">=9; {NEVER}"])
)
OVERRIDES = st.builds(str.__add__, LIBRARIES, st.sampled_from(["==2.0", "<3", f"; {NEVER}"]))
PINS = st.dictionaries(LIBRARIES, VERSIONS)
FILES: Mapping[str, Mapping[str, str]] = {
    f"plugin:{name}-{version}.txt": {name: version}
    for name in ("torch", "numpy", "gears")
    for version in ("1.0", "2.0", "2.0+cpu", "2.0+cu1", "3.0")
}


@st.composite
def builds(draw: st.DrawFn) -> EnvironmentBuild:
    return EnvironmentBuild(
        version=draw(st.sampled_from(["1.0", "1.1"])),
        requirements=tuple(draw(st.lists(REQUIREMENTS, max_size=2))),
        accelerators=draw(st.sampled_from([BOTH, frozenset({"cpu"}), frozenset({"cuda"})])),
        pins=draw(st.none() | st.sampled_from(sorted(FILES))),
        overrides=tuple(draw(st.lists(OVERRIDES, max_size=1))),
    )


def specs(name: str, most: int = 2) -> st.SearchStrategy[EnvironmentSpec]:
    lists = st.lists(builds(), min_size=1, max_size=most)
    return lists.map(lambda found: EnvironmentSpec(distribution=name, module=name, builds=tuple(found)))


PARTS = st.tuples(specs("alpha"), specs("beta"), specs("gamma"))


def content(merged: Recipe | Conflict) -> object:
    """What a result is, its engine's name and version aside."""
    if isinstance(merged, Conflict):
        return merged
    pins = dict(merged.pins)
    return merged.distributions, merged.modules, merged.requirements, pins, merged.overrides


@given(own=specs("motor"), parts=PARTS, data=st.data())
def test_the_order_of_parts_and_their_repetition_mean_nothing(
    own: EnvironmentSpec, parts: tuple[EnvironmentSpec, ...], data: st.DataObject
) -> None:
    once = merge("motor", own, parts=parts, pins=FILES)
    shuffled = data.draw(st.permutations([*parts, *parts, own]))
    assert merge("motor", own, parts=shuffled, pins=FILES) == once


@given(own=specs("motor"), parts=PARTS)
def test_merging_what_is_merged_changes_nothing(
    own: EnvironmentSpec, parts: tuple[EnvironmentSpec, ...]
) -> None:
    merged = merge("motor", own, parts=parts, pins=FILES)
    if isinstance(merged, Recipe):
        build = EnvironmentBuild(
            version=merged.version, requirements=merged.requirements, pins="all", overrides=merged.overrides
        )
        again = merge("motor", replace(own, builds=(build,)), pins={"all": merged.pins})
        assert isinstance(again, Recipe)
        assert (again.requirements, again.pins, again.overrides) == (
            merged.requirements, merged.pins, merged.overrides,
        )  # fmt: skip


@given(one=specs("alpha", 1), other=specs("beta", 1))
def test_a_conflict_is_one_from_both_sides(one: EnvironmentSpec, other: EnvironmentSpec) -> None:
    usable = all("cpu" in spec.builds[0].accelerators for spec in (one, other))
    forth = merge("x", one, parts=[other], pins=FILES)
    back = merge("x", other, parts=[one], pins=FILES)
    assert isinstance(forth, Conflict) is isinstance(back, Conflict)
    if usable:
        assert content(forth) == content(back)


@given(own=specs("motor"), parts=PARTS)
def test_a_part_is_had_if_any_choice_of_builds_fits(
    own: EnvironmentSpec, parts: tuple[EnvironmentSpec, ...]
) -> None:
    chosen = next((build for build in own.builds if "cpu" in build.accelerators), None)
    fits = chosen is not None and any(
        isinstance(
            merge(
                "motor",
                replace(own, builds=(chosen,)),
                parts=[replace(a, builds=(x,)), replace(b, builds=(y,)), replace(c, builds=(z,))],
                pins=FILES,
            ),
            Recipe,
        )
        for (a, b, c) in [parts]
        for x in a.builds
        for y in b.builds
        for z in c.builds
    )
    assert isinstance(merge("motor", own, parts=parts, pins=FILES), Recipe) is fits


@given(own=specs("motor"), parts=PARTS)
def test_what_is_merged_obeys_every_pin_and_requirement(
    own: EnvironmentSpec, parts: tuple[EnvironmentSpec, ...]
) -> None:
    """Judged by the installers' own library, with no code of ours."""
    from packaging.requirements import Requirement

    merged = merge("motor", own, parts=parts, pins=FILES)
    if isinstance(merged, Recipe):
        overridden = {Requirement(each).name for each in merged.overrides}
        for each in map(Requirement, merged.requirements):
            if each.name in merged.pins and each.name not in overridden and "never" not in str(each.marker):
                assert each.specifier.contains(merged.pins[each.name], prereleases=True)
        left_out = {each.name for each in map(Requirement, merged.overrides) if each.marker}
        assert merged.left_out == left_out
        assert not left_out & merged.pins.keys()


def spec(name: str, *found: EnvironmentBuild) -> EnvironmentSpec:
    return EnvironmentSpec(distribution=name, module=name, builds=found)


def build(
    version: str = "1.0",
    requirements: Iterable[str] = (),
    *,
    accelerators: frozenset[str] = BOTH,
    pins: str | None = None,
    overrides: Iterable[str] = (),
) -> EnvironmentBuild:
    return EnvironmentBuild(
        version=version,
        requirements=tuple(requirements),
        accelerators=accelerators,
        pins=pins,
        overrides=tuple(overrides),
    )


def test_the_digest_depends_on_the_content_and_on_all_of_it() -> None:
    recipe = merge("motor", spec("motor", build("1.0", ["b", "a>=1", "a >= 1"])), pins={})
    same = merge("motor", spec("motor", build("1.0", ["a>=1", "b"])), pins={})
    assert isinstance(recipe, Recipe)
    assert recipe == same
    assert recipe.requirements == ("a>=1", "b")
    fields: dict[str, Any] = {
        "engine": "x", "version": "2", "accelerator": "cuda", "python": "3.99", "distributions": ("x",),
        "modules": ("x",), "requirements": ("c",), "pins": {"c": "1"}, "overrides": ("c==1",),
    }  # fmt: skip
    digests = {recipe.digest, *(replace(recipe, **{name: value}).digest for name, value in fields.items())}
    assert len(digests) == 1 + len(fields)
    assert recipe.name == f"motor-1.0-cpu-{recipe.digest[:8]}"


def test_the_first_build_of_the_version_and_for_the_accelerator_is_taken() -> None:
    cpu = frozenset({"cpu"})
    own = spec(
        "motor", build("3", accelerators=frozenset({"cuda"})), build("2.0", accelerators=cpu), build("1.0")
    )
    for tag, accelerator, version in (
        ("latest", "cpu", "2.0"), ("latest", "cuda", "3"), ("2", "cpu", "2.0"), ("1.0", "cuda", "1.0"),
    ):  # fmt: skip
        merged = merge("motor", own, tag=tag, accelerator=accelerator, pins={})
        assert isinstance(merged, Recipe)
        assert (merged.version, merged.accelerator) == (version, accelerator)
    missing = merge("motor", own, tag="9", accelerator="cpu", pins={})
    assert missing == Conflict("motor has no build of version 9 for accelerator 'cpu', only of 2.0, 1.0")
    only = merge("motor", spec("motor", build(accelerators=cpu)), accelerator="cuda", pins={})
    assert only == Conflict("motor has no build for accelerator 'cuda', only for cpu")
    none = merge("motor", spec("motor"), pins={})
    assert none == Conflict("motor has no environment of its own: it lives where llmengine is installed")


def test_a_part_without_builds_is_installed_as_it_is_elsewhere() -> None:
    part = EnvironmentSpec(distribution="Oil_Can", module="oil", requirements=("oil-can>=2",))
    merged = merge("motor", spec("motor", build()), parts=[part, spec("gears")], pins={})
    assert isinstance(merged, Recipe)
    assert merged.requirements == ("gears", "oil-can>=2")
    assert merged.distributions == ("gears", "motor", "oil-can")
    assert merged.modules == ("gears", "motor", "oil")


def test_a_version_that_says_how_it_was_built_is_closer_than_one_that_does_not() -> None:
    own = spec("motor", build(pins="a"))
    for parts, pins in (
        ({"torch": "2.0"}, {"torch": "2.0+cpu"}),
        ({"torch": "2.0+cpu"}, {"torch": "2.0"}),
        ({"torch": "2"}, {"torch": "2.0+cpu"}),
    ):
        merged = merge("motor", own, parts=[spec("bits", build(pins="b"))], pins={"a": parts, "b": pins})
        assert isinstance(merged, Recipe)
        assert merged.pins["torch"] == "2.0+cpu"


@pytest.mark.parametrize(
    ("own", "part", "reason"),
    [
        (build(pins="torch1"), build(pins="torch2"), "bits 1.0 pins torch 2.0 but motor 1.0 pins torch 1.0"),
        (
            build(pins="torch1"),
            build("1.0", ["torch>=2"]),
            "bits 1.0 requires torch>=2 but motor 1.0 pins torch 1.0",
        ),
        (
            build("1.0", ["torch<2"]),
            build(pins="torch2"),
            "motor 1.0 requires torch<2 but bits 1.0 pins torch 2.0",
        ),
        (
            build(pins="bits2"),
            build("1.0"),
            "bits 1.0 pins bits 1.0 but motor 1.0 pins bits 2.0",
        ),
        (
            build(overrides=[f"torch; {NEVER}"]),
            build("1.0", ["torch"]),
            "bits 1.0 requires torch but motor 1.0 leaves torch out",
        ),
        (
            build(overrides=["torch==1.0"]),
            build("1.0", ["torch>=2"]),
            "bits 1.0 requires torch>=2 but motor 1.0 overrides it with torch==1.0",
        ),
        (
            build(overrides=["torch==1.0"]),
            build(overrides=["torch==2.0"]),
            "torch: motor 1.0 overrides it with torch==1.0 but bits 1.0 overrides it with torch==2.0",
        ),
        (
            build(overrides=["torch==1.0"]),
            build(pins="torch2"),
            "motor 1.0 requires torch==1.0 but bits 1.0 pins torch 2.0",
        ),
        (build(pins="nowhere"), build(), "the pins of motor 1.0, nowhere, can't be read"),
    ],
)
def test_a_conflict_says_who_wants_what(own: EnvironmentBuild, part: EnvironmentBuild, reason: str) -> None:
    pins = {"torch1": {"torch": "1.0"}, "torch2": {"torch": "2.0"}, "bits2": {"bits": "2.0"}}
    merged = merge("motor", spec("motor", own), parts=[spec("bits", part)], pins=pins)
    assert isinstance(merged, Conflict)
    assert merged.reason == reason


@pytest.mark.parametrize(
    ("own", "part"),
    [
        (build(overrides=["torch==1.0"]), build(overrides=["torch==1.0"])),
        (build(overrides=["torch==1.0"], pins="torch1"), build("1.0", ["torch<2"])),
        (build("1.0", ["torch>=2"], overrides=["torch==1.0"]), build(pins="torch1")),
        (build(overrides=[f"vision; {NEVER}"], pins="torch1"), build("1.0", [f"vision; {NEVER}"])),
        (build("1.0", ["vision"], overrides=[f"vision; {NEVER}"]), build()),
    ],
)
def test_an_override_of_ones_own_or_that_agrees_is_none(
    own: EnvironmentBuild, part: EnvironmentBuild
) -> None:
    merged = merge("motor", spec("motor", own), parts=[spec("bits", part)], pins={"torch1": {"torch": "1.0"}})
    assert isinstance(merged, Recipe)


def test_pins_are_lines_of_name_and_version() -> None:
    text = f"# made by hand\nA_b.C==1.0+cpu\n\n  numpy == 2.0  # why\nleft==1; {NEVER}\nhere==2; python_version > '3'\n"
    assert parse_pins(text) == {"a-b-c": "1.0+cpu", "numpy": "2.0", "here": "2"}
    for line in (
        "numpy",
        "numpy>=1",
        "numpy==1.*",
        "numpy==1,<2",
        "-r other.txt",
        "numpy==1;",
        "numpy==1; never",
    ):
        with pytest.raises(ValueError, match=r"no pin|no requirement"):
            parse_pins(f"fine==1\n{line}\n")


def test_spellings_of_a_version_and_a_name() -> None:
    assert is_version("latest", "anything")
    assert is_version("2.13", "2.13.0+cpu")
    assert is_version("b10549", "b10549")
    assert not is_version("2.13.0+cpu", "2.13.0")
    assert not is_version("2.13.0+cu1", "2.13.0+cpu")
    assert not is_version("b1", "b2")
    assert canonical("A__b.-C") == "a-b-c"


def backend(name: str = "motor", **more: object) -> BackendInfo:
    given: dict[str, object] = {
        "capabilities": Capabilities(structured_dialect="lark"),
        "environment": spec("motor", build("2.0", ["motor==2.0"], pins="motor:pins")),
        "takes_masker": True,
        **more,
    }
    return BackendInfo(name=name, factory="a:B", formats=frozenset({"gguf"}), **given)  # type: ignore[arg-type]


def decoder(name: str, priority: int, dialect: str = "lark", masker: str | None = "a:B") -> GuidedDecoderInfo:
    return GuidedDecoderInfo(
        name=name, factory="a:B", priority=priority, kinds=frozenset({"json"}), dialects=frozenset({dialect}),
        masker=masker, environment=spec(name, build()),
    )  # fmt: skip


def quantizer(name: str, *methods: str, priority: int = 0) -> QuantizerInfo:
    return QuantizerInfo(
        name=name, factory="a:B", priority=priority, backends=frozenset({"motor"}), stored=frozenset({f"{name}-old"}),
        methods=tuple(QuantizationMethod(name=each, bits=4.5) for each in methods), environment=spec(name, build()),
    )  # fmt: skip


TRANSFORM = TransformInfo(
    name="to_gguf", factory="a:B", source_format="a", target_format="gguf", environment=spec("motor", build())
)
DECLARATIONS = Declarations(
    backends=(Declared(backend(), "p"), Declared(backend("plain", environment=spec("plain")), "p")),
    transforms=(Declared(TRANSFORM, "p"), Declared(replace(TRANSFORM, name="here", environment=None), "p")),
    quantizers=(
        Declared(quantizer("bits", "nf4", "int8"), "p"),
        Declared(quantizer("best", "nf4", priority=1), "p"),
    ),
    guided_decoders=tuple(
        Declared(each, "p")
        for each in (decoder("a", 1), decoder("b", 2), decoder("c", 3, "ebnf"), decoder("d", 4, masker=None))
    ),
)
MOTOR_PINS = {"motor:pins": {"motor": "2.0"}}


def test_a_backend_is_composed_with_its_masker_and_quantizers() -> None:
    merged = compose(backend(), DECLARATIONS, methods=["nf4", "int8"], pins=MOTOR_PINS)
    assert isinstance(merged, Recipe)
    assert merged.distributions == ("b", "best", "bits", "motor")
    plain = compose(backend(takes_masker=False), DECLARATIONS, pins=MOTOR_PINS)
    assert isinstance(plain, Recipe)
    assert plain.distributions == ("motor",)
    own = compose(backend(quantizations=frozenset({"own"})), DECLARATIONS, methods=["own"], pins=MOTOR_PINS)
    assert isinstance(own, Recipe)
    assert own.distributions == ("b", "motor")


def test_a_transform_is_composed_alone() -> None:
    merged = compose(TRANSFORM, DECLARATIONS, pins={})
    assert isinstance(merged, Recipe)
    assert (merged.engine, merged.distributions) == ("to_gguf", ("motor",))
    assert isinstance(compose(TRANSFORM, DECLARATIONS, methods=["nf4"], pins={}), Conflict)


def test_a_method_that_nobody_brings_is_a_conflict_that_names_those_there_are() -> None:
    merged = compose(backend(), DECLARATIONS, methods=["awq"], pins=MOTOR_PINS)
    assert merged == Conflict("no quantizer gives motor the method 'awq'; known are int8, nf4")
    merged = compose(
        backend("plain", environment=spec("plain", build())), Declarations(), methods=["awq"], pins={}
    )
    assert merged == Conflict("no quantizer gives plain the method 'awq'; no plugin here brings one")


def test_the_best_part_is_chosen_by_priority_and_a_quantizer_also_by_its_own_name() -> None:
    masker = masker_for(backend(), DECLARATIONS.guided_decoders)
    assert masker is not None
    assert masker.name == "b"
    for asked, name in (("nf4", "best"), ("int8", "bits"), ("bits", "bits"), ("best-old", "best")):
        found = quantizer_for("motor", asked, DECLARATIONS.quantizers)
        assert found is not None
        assert found.name == name
    assert quantizer_for("plain", "nf4", DECLARATIONS.quantizers) is None


def test_owners_and_specs_and_pins_of_what_is_registered() -> None:
    assert set(owners(DECLARATIONS)) == {"motor", "to_gguf"}
    found = environment_specs(DECLARATIONS)
    assert [each.distribution for each in found] == [
        "motor",
        "plain",
        "motor",
        "bits",
        "best",
        "a",
        "b",
        "c",
        "d",
    ]
    assert pins_wanted(found) == {"motor:pins"}


def test_importing_takes_no_requirement_apart() -> None:
    modules = "llmengine, llmengine_core.recipes, llmengine_core.environments"
    code = f"import sys, {modules}; print('packaging' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
