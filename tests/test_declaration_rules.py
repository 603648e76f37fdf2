"""Declarations: what is sound passes, and each field that isn't is named."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement

from llmengine_core.declaration_rules import PLAIN_REQUIREMENT, flaws
from llmengine_core.plugins import DECLARING_HOOKS
from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.declarations import (
    BackendInfo,
    EnvironmentBuild,
    EnvironmentSpec,
    GuidedDecoderInfo,
    Info,
    ObserverInfo,
    QuantizationMethod,
    QuantizerInfo,
    RuntimeInfo,
    StorageInfo,
    StoreInfo,
    TransformInfo,
)
from llmengine_core.types.models import ModelCard, WeightsSource

FACTORY = "package.module:Outer.Inner"
SOURCE = WeightsSource(url="package://tiny/model.gguf", format="gguf", sha256="0" * 64, size=1, mend="get it")
BACKEND = BackendInfo(
    name="engine_2",
    factory=FACTORY,
    priority=-3,
    capabilities=Capabilities(structured=frozenset({"json"}), structured_dialect="lark", adapters="dynamic"),
    formats=frozenset({"gguf"}),
    architectures=frozenset({"llama"}),
    environment=EnvironmentSpec(
        distribution="engine",
        module="engine.core",
        requirements=("engine>=1",),
        builds=(
            EnvironmentBuild(
                version="2.0+cpu",
                requirements=("engine == 2.0", "gears[oil]>=1,<2; python_version > '3'", "Belt.1"),
                accelerators=frozenset({"cpu"}),
                pins="engine_plugin.data:pins/2.0-cpu.txt",
                overrides=("vision; sys_platform == 'never'",),
            ),
            EnvironmentBuild(version="2.0+cpu", requirements=("engine",), accelerators=frozenset({"cuda"})),
            EnvironmentBuild(version="1.0", requirements=("engine~=1.0",)),
        ),
    ),
    probe="package.host:problems",
    memory_factor=2,
)
BUILT = BACKEND.environment
assert BUILT is not None
QUANTIZER = QuantizerInfo(
    name="q",
    factory=FACTORY,
    methods=(QuantizationMethod(name="nf4", bits=4.5), QuantizationMethod(name="int8", bits=8)),
    backends=frozenset({"engine_2"}),
    stored=frozenset({"bitsandbytes"}),
    environment=BUILT,
)
DECODER = GuidedDecoderInfo(
    name="g",
    factory=FACTORY,
    kinds=frozenset({"json"}),
    dialects=frozenset({"lark"}),
    masker="package.worker:Masker",
    environment=BUILT,
)
TRANSFORM = TransformInfo(name="t", factory=FACTORY, source_format="a", target_format="b")
STORAGE = StorageInfo(name="s", factory=FACTORY, schemes=frozenset({"s3", "git+ssh"}))
CARD = ModelCard(name="org/Tiny-1.5", sources=(SOURCE,), parameters=1, context_length=1, license="MIT")
SOUND: list[Info | ModelCard] = [
    BACKEND,
    TRANSFORM,
    QUANTIZER,
    DECODER,
    STORAGE,
    StoreInfo(name="s", factory=FACTORY, schemes=frozenset({"sqlite"})),
    RuntimeInfo(name="r", factory=FACTORY),
    ObserverInfo(name="o", factory=FACTORY),
    CARD,
]


def changed(declaration: Any, **change: object) -> list[str]:
    return flaws(replace(declaration, **change), type(declaration))


def test_there_is_a_sound_example_of_every_kind() -> None:
    assert {type(each) for each in SOUND} == set(DECLARING_HOOKS.values())
    for each in SOUND:
        assert flaws(each, type(each)) == []


@pytest.mark.parametrize("declaration", SOUND, ids=lambda each: type(each).__name__)
def test_a_field_of_the_wrong_type_is_named_with_what_it_must_be(declaration: Info | ModelCard) -> None:
    for field in fields(declaration):
        for wrong in (object(), b"bytes", ["a list"], {"a": "dict"}, 1j):
            (flaw,) = changed(declaration, **{field.name: wrong})
            assert flaw.startswith(f"{field.name} is ")
            assert "; it must be " in flaw


@pytest.mark.parametrize("declaration", SOUND, ids=lambda each: type(each).__name__)
def test_what_can_change_after_it_was_read_is_refused(declaration: Info | ModelCard) -> None:
    for field in fields(declaration):
        held = getattr(declaration, field.name)
        if isinstance(held, frozenset | tuple):
            assert changed(declaration, **{field.name: list(held)})
            assert changed(
                declaration, **{field.name: set(held)} if isinstance(held, frozenset) else {field.name: 1}
            )


@pytest.mark.parametrize("name", ["", "Engine", "an engine", "llama-cpp", "llama.cpp", "motör", "a\n"])
def test_a_name_is_lower_case_letters_digits_and_underscores(name: str) -> None:
    assert changed(BACKEND, name=name) == [f"name is {name!r}; it must be lower case letters, digits and '_'"]


@pytest.mark.parametrize(
    "path", ["", "module", "module.Class", ":Class", "module:", "a b:C", "1a:B", "a..b:C", "a:B()"]
)
def test_a_factory_is_a_module_and_a_name_in_it(path: str) -> None:
    assert "factory is" in changed(BACKEND, factory=path)[0]
    assert "probe is" in changed(BACKEND, probe=path)[0]


@pytest.mark.parametrize(
    ("declaration", "change", "said"),
    [
        (BACKEND, {"priority": True}, "priority is True; it must be int"),
        (BACKEND, {"formats": frozenset()}, "formats is empty"),
        (BACKEND, {"formats": frozenset({1})}, "it must be frozenset[str]"),
        (BACKEND, {"accelerators": frozenset()}, "accelerators is empty"),
        (BACKEND, {"max_shards": 0}, "max_shards is 0; it must be at least 1"),
        (BACKEND, {"takes_masker": True, "environment": None}, "takes_masker is set, but environment is not"),
        (BACKEND, {"memory_factor": 0.0}, "memory_factor is 0.0; it must be above 0"),
        (BACKEND, {"memory_factor": float("nan")}, "memory_factor is nan; it must be float"),
        (BACKEND, {"capabilities": Capabilities(adapters="often")}, "capabilities is"),  # type: ignore[arg-type]
        (
            BACKEND,
            {"capabilities": Capabilities(structured_excludes=frozenset({"top"}))},
            "holds 'top'; allowed",
        ),
        (BACKEND, {"environment": EnvironmentSpec(distribution="x", module=3)}, "environment is"),  # type: ignore[arg-type]
        (TRANSFORM, {"source_format": ""}, "must be named"),
        (TRANSFORM, {"source_format": "b"}, "neither converts nor quantizes"),
        (STORAGE, {"schemes": frozenset()}, "schemes is empty"),
        (STORAGE, {"schemes": frozenset({"S3"})}, "schemes holds 'S3'"),
        (STORAGE, {"schemes": frozenset({"s3://"})}, "schemes holds 's3://'"),
        (CARD, {"name": " tiny"}, "name is ' tiny'"),
        (CARD, {"name": "a\nb"}, "it must be printable text"),
        (CARD, {"sources": ()}, "sources is empty"),
        (CARD, {"parameters": 0}, "parameters is 0"),
        (CARD, {"context_length": -1}, "context_length is -1"),
        (CARD, {"sources": (replace(SOURCE, url="model.gguf"),)}, "is no URL"),
        (CARD, {"sources": (replace(SOURCE, sha256="A" * 64),)}, "64 lower case hex digits"),
        (CARD, {"sources": (replace(SOURCE, size="3"),)}, "sources is"),  # type: ignore[arg-type]
    ],
)
def test_what_types_cannot_say_is_checked_too(declaration: Any, change: dict[str, Any], said: str) -> None:
    assert any(said in flaw for flaw in changed(declaration, **change))


@pytest.mark.parametrize(
    ("declaration", "change", "said"),
    [
        (
            BACKEND,
            {"accelerators": frozenset({"cpu", "tpu"})},
            'accelerators holds \'tpu\'; allowed: "cpu", "cuda"',
        ),
        (QUANTIZER, {"methods": (), "stored": frozenset()}, "methods and stored are empty"),
        (QUANTIZER, {"backends": frozenset()}, "backends is empty"),
        (QUANTIZER, {"accelerators": frozenset()}, "accelerators is empty"),
        (QUANTIZER, {"methods": QUANTIZER.methods * 2}, "methods holds 'int8' twice"),
        (QUANTIZER, {"methods": (QuantizationMethod(name=" ", bits=1),)}, "a method must be named"),
        (QUANTIZER, {"methods": (QuantizationMethod(name="x", bits=0),)}, "the bits of 'x' are 0"),
        (DECODER, {"masker": "package.worker.Masker"}, 'it must be "package.module:Class"'),
        (DECODER, {"dialects": frozenset()}, "a masker reads at least one"),
    ],
)
def test_quantizers_and_maskers_are_checked(declaration: Any, change: dict[str, Any], said: str) -> None:
    assert any(said in flaw for flaw in changed(declaration, **change))


@pytest.mark.parametrize("declaration", [BACKEND, TRANSFORM, QUANTIZER, DECODER], ids=lambda each: each.name)
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"distribution": "-engine"}, "environment.distribution is '-engine'"),
        ({"distribution": "an engine"}, "must be the name of a distribution"),
        ({"module": "engine-core"}, "environment.module is 'engine-core'"),
        (
            {"requirements": ("engine>1..2",)},
            "environment.requirements holds 'engine>1..2', which is no requirement",
        ),
    ],
)
def test_an_environment_is_checked_wherever_it_is_declared(
    declaration: Any, change: dict[str, Any], said: str
) -> None:
    assert BUILT is not None
    (flaw,) = changed(declaration, environment=replace(BUILT, **change))
    assert said in flaw


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": ""}, "builds[0].version is ''"),
        ({"version": "latest"}, "builds[0].version is 'latest'; it must be a version"),
        ({"version": "1.0", "accelerators": frozenset({"cuda"})}, "holds version '1.0' for 'cuda' twice"),
        ({"requirements": ()}, "builds[0].requirements is empty"),
        ({"requirements": ("engine ; sometimes",)}, "'engine ; sometimes', which is no requirement"),
        ({"requirements": ("engine @ https://a.invalid/b.whl",)}, "it must not name an address"),
        (
            {"overrides": ("vision; never",)},
            "builds[0].overrides holds 'vision; never', which is no requirement",
        ),
        ({"accelerators": frozenset()}, "builds[0].accelerators is empty"),
        ({"accelerators": frozenset({"gpu"})}, "builds[0].accelerators holds 'gpu'"),
        *(
            ({"pins": pins}, f"builds[0].pins is {pins!r}")
            for pins in (
                "",
                "pins.txt",
                "package:",
                ":pins.txt",
                "a-b:p.txt",
                "a:/etc/pins",
                "a:../b.txt",
                "a:b\\c",
            )
        ),
    ],
)
def test_a_build_is_checked(change: dict[str, Any], said: str) -> None:
    assert BUILT is not None
    first, *others = BUILT.builds
    environment = replace(BUILT, builds=(replace(first, **change), *others))
    assert any(said in flaw for flaw in changed(BACKEND, environment=environment))


REQUIREMENTS = st.from_regex(PLAIN_REQUIREMENT, fullmatch=True)


@given(REQUIREMENTS)
def test_what_is_plainly_a_requirement_is_one(text: str) -> None:
    assert Requirement(text).url is None


def test_another_kind_or_a_subclass_is_refused() -> None:
    class MyRuntime(RuntimeInfo):
        """Could hold more than its declaration says."""

    assert flaws(CARD, BackendInfo) == ["it is a ModelCard; a BackendInfo is wanted"]
    assert flaws(None, BackendInfo) == ["it is a NoneType; a BackendInfo is wanted"]
    assert flaws(MyRuntime(name="r", factory=FACTORY), RuntimeInfo)
