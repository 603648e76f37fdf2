"""The registry: declarations by kind, name and scheme, and the objects behind them."""

from __future__ import annotations

import itertools
import types
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.distributions import install, run, storage

from llmengine_core.errors import ServerError
from llmengine_core.hookspecs import hookimpl
from llmengine_core.plugins import DECLARING_HOOKS, PluginSource
from llmengine_core.registry import Registry
from llmengine_core.settings import Settings
from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.declarations import (
    BackendInfo,
    Declared,
    GuidedDecoderInfo,
    Info,
    ObserverInfo,
    RuntimeInfo,
    StorageInfo,
    StoreInfo,
    TransformInfo,
)
from llmengine_core.types.models import ModelCard, WeightsSource


def give(what: Any) -> Any:
    return what


def giving(hook: str, infos: list[Info | ModelCard]) -> Any:
    """An implementation of a hook."""

    def implementation() -> list[Info | ModelCard]:
        return infos

    implementation.__name__ = hook
    return hookimpl(implementation)


def plugin(name: str, *infos: Info | ModelCard) -> types.ModuleType:
    """A plugin module that declares these."""
    made = types.ModuleType(name)
    made.__dict__["CONTRACT"] = 1
    for hook, kind in DECLARING_HOOKS.items():
        if found := [info for info in infos if isinstance(info, kind)]:
            setattr(made, hook, giving(hook, found))
    return made


def build(*modules: types.ModuleType) -> Registry:
    sources = [
        PluginSource(each.__name__, f"dist-{each.__name__} 1.0", partial(give, each)) for each in modules
    ]
    return Registry.build(sources=sources)


def backend(name: str, **fields: Any) -> BackendInfo:
    given: dict[str, Any] = {
        "factory": "tests.test_registry:Thing",
        "capabilities": Capabilities(),
        "formats": frozenset({"gguf"}),
    }
    return BackendInfo(name=name, **given | fields)


class Thing:
    def __init__(self, *arguments: object) -> None:
        self.arguments = arguments


NOT_CALLABLE = 3
FACTORY = "tests.test_registry:Thing"
CARD = ModelCard(
    name="tiny",
    sources=(WeightsSource(url="package://tiny/model.gguf", format="gguf"),),
    parameters=1,
    context_length=1,
    license="MIT",
)
ONE_OF_EACH: list[Info | ModelCard] = [
    backend("engine"),
    TransformInfo(name="transform", factory=FACTORY, source_format="a", target_format="b"),
    GuidedDecoderInfo(
        name="guided", factory=FACTORY, kinds=frozenset({"json"}), dialects=frozenset({"lark"})
    ),
    StorageInfo(name="storage", factory=FACTORY, schemes=frozenset({"tape"})),
    StoreInfo(name="store", factory=FACTORY, schemes=frozenset({"cards"})),
    RuntimeInfo(name="runtime", factory=FACTORY),
    ObserverInfo(name="observer", factory=FACTORY),
    CARD,
]


def test_each_kind_is_found_under_its_name_or_scheme() -> None:
    registry = build(plugin("all", *ONE_OF_EACH))
    assert not registry.faults
    found = [
        registry.backends["engine"],
        registry.transforms["transform"],
        registry.guided_decoders["guided"],
        registry.storages_by_scheme["tape"],
        registry.stores_by_scheme["cards"],
        registry.runtimes["runtime"],
        registry.observers["observer"],
        registry.models["tiny"],
    ]
    assert found == ONE_OF_EACH
    assert registry.declarations.backends == (Declared(ONE_OF_EACH[0], "all", "dist-all 1.0"),)


def test_the_core_registers_its_own_runtime() -> None:
    registry = build()
    assert registry.runtimes["local"].factory == "llmengine_core.runtime_local:LocalRuntime"
    assert [each.name for each in registry.plugins] == ["core"]


def test_a_name_registered_twice_is_a_fault_of_the_second_and_costs_it_all() -> None:
    first = plugin("first", backend("engine", priority=-1))
    second = plugin("second", backend("other"), backend("engine", priority=9), CARD)
    registry = build(first, second)
    assert registry.backends == {"engine": backend("engine", priority=-1)}
    assert not registry.models
    (fault,) = registry.faults
    assert (fault.plugin, fault.distribution) == ("second", "dist-second 1.0")
    assert (
        fault.message
        == "registers the backend 'engine', which the plugin 'first' (dist-first 1.0) has registered"
    )
    assert set(fault.registers) == {"other", "engine", "tiny"}


def test_one_name_may_be_of_several_kinds() -> None:
    same = [
        StorageInfo(name="x", factory=FACTORY, schemes=frozenset({"x"})),
        RuntimeInfo(name="x", factory=FACTORY),
    ]
    assert not build(plugin("one", *same)).faults


@given(st.permutations(range(4)), st.lists(st.integers(-2, 2), min_size=4, max_size=4))
def test_a_scheme_belongs_to_the_highest_priority_and_then_the_first_name(
    order: list[int], priorities: list[int]
) -> None:
    infos = [
        StorageInfo(name=f"s{at}", factory=FACTORY, schemes=frozenset({"tape"}), priority=priority)
        for at, priority in enumerate(priorities)
    ]
    registry = build(*(plugin(f"p{at}", infos[at]) for at in order))
    best = max(priorities)
    assert registry.storages_by_scheme["tape"].name == f"s{priorities.index(best)}"


def test_the_best_checker_speaks_the_dialect_and_knows_the_kind() -> None:
    def decoder(name: str, kinds: set[Any], dialects: set[str], priority: int = 0) -> GuidedDecoderInfo:
        return GuidedDecoderInfo(
            name=name,
            factory=FACTORY,
            kinds=frozenset(kinds),
            dialects=frozenset(dialects),
            priority=priority,
        )

    decoders = [decoder("a", {"json"}, {"lark"}), decoder("b", {"json", "regex"}, {"lark", "gbnf"}, 1)]
    for pair in itertools.permutations(decoders):
        registry = build(*(plugin(each.name, each) for each in pair))
        assert registry.guided_decoder("json", "lark") == decoders[1]
        assert registry.guided_decoder("choice", "lark") is None
        assert registry.guided_decoder("json", "xgrammar") is None
        assert registry.guided_decoder("json", None) is None


def test_load_gives_what_the_factory_makes() -> None:
    registry = build(plugin("p", backend("engine"), RuntimeInfo(name="runtime", factory=FACTORY)))
    made = registry.load(registry.runtimes["runtime"], Path("/home"))
    assert (type(made).__name__, made.arguments) == ("Thing", (Path("/home"),))
    info = registry.backends["engine"]
    assert registry.load(info) is not registry.load(info)
    assert registry.load_once(info) is registry.load_once(info)


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        ("no_such_module:Thing", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("tests.test_registry:Nothing", "AttributeError"),
        ("tests.test_registry:NOT_CALLABLE", "is of type int, which can't be called"),
    ],
)
def test_a_factory_that_does_not_exist_is_told_with_plugin_and_mend(factory: str, said: str) -> None:
    registry = build(plugin("trt", backend("engine", factory=factory)))
    with pytest.raises(ServerError) as caught:
        registry.load(registry.backends["engine"])
    message = caught.value.message
    assert said in message
    assert f"the backend 'engine' of the plugin 'trt' can't be used: its factory '{factory}'" in message
    assert "Mend: python -m pip install --force-reinstall dist-trt" in message


def test_what_a_factory_raises_goes_through() -> None:
    registry = build(plugin("p", RuntimeInfo(name="strict", factory="builtins:int")))
    with pytest.raises(ValueError, match="invalid literal"):
        registry.load(registry.runtimes["strict"], "x")


def test_passed_modules_count_besides_the_installed_ones_and_no_list_leaves_them_out() -> None:
    module = plugin("my.package.echo", backend("echo"))
    settings = Settings(plugins=())
    registry = Registry.build(settings, modules=[module])
    assert "echo" in registry.backends
    assert {each.name for each in registry.plugins} >= {"core", "echo", "localdisk", "sqlite"}
    assert "llamacpp" in {each.plugin for each in registry.left_out}


def test_the_settings_storage_and_database_decide_which_plugins_stay(tmp_path: Path) -> None:
    install(tmp_path, "llmengine-tape", storage("tape"), plugin="tape")
    program = """
    import json
    from llmengine_core.registry import Registry
    from llmengine_core.settings import Settings
    registry = Registry.build(Settings(plugins=(), storage_url="tape://reel"))
    print(json.dumps([each.name for each in registry.plugins]))
    """
    assert set(run(tmp_path, program)) == {"core", "sqlite", "tape"}
