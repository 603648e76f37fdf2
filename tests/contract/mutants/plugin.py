"""Plugins that are trouble."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

from tests.contract.mutants import Mutant

from llmengine_core.testing.contracts.plugins.contract import PluginContract

_folder = Path(tempfile.mkdtemp(prefix="plugin-mutants-"))
atexit.register(shutil.rmtree, _folder, ignore_errors=True)

HEAD = """\
from llmengine_core.hookspecs import hookimpl
from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.declarations import *
from llmengine_core.types.plan import Problem
"""
CONTRACT = "CONTRACT = 1\n"
STORAGE = 'StorageInfo(name="tape", schemes=frozenset({"tape"}), factory="tape_objects:Tape")'
HOOK = f"""
@hookimpl
def register_storages():
    return [{STORAGE}]
"""
OBJECTS = """\
from llmengine_core.interfaces.storage import Storage

class Tape(Storage):
    def __init__(self, url):
        self.url = url

Tape.__abstractmethods__ = frozenset()
"""
BACKEND = """
MOTOR = EnvironmentSpec(
    distribution="motor", module="motor_engine", requirements=("motor>=1",),
    builds=({builds}),
)

def problems():
    {probe}

@hookimpl
def register_backends():
    return [BackendInfo(
        name="motor", factory="tape_objects:Motor", capabilities=Capabilities(), formats=frozenset({{"block"}}),
        environment=MOTOR, probe="tape:problems",
    )]

@hookimpl
def register_guided_decoders():
    return [GuidedDecoderInfo(
        name="judge", factory="tape_objects:Judge", kinds=frozenset({{"choice"}}), dialects=frozenset({{"motor"}}),
        masker="tape_worker:{masker}", environment=None,
    )]
"""
BUILD = 'EnvironmentBuild(version="2.0", requirements=("motor==2.0", "wheels>=1"), pins="tape_pins:{}.txt"),'
ENGINE = """\
from llmengine_core.interfaces.backend import Backend
from llmengine_core.interfaces.guided import GuidedDecoder

class Motor(Backend):
    def launch(self, deployment):
        return None

    async def connect(self, endpoint, deployment):
        raise NotImplementedError

class Judge(GuidedDecoder):
    def check(self, structured): ...
    def translate(self, structured, dialect): ...
    def verify(self, structured, text, *, complete): ...
"""
COMMAND = """
@hookimpl
def register_commands(cli):
    import click

    @cli.command("{name}")
    def tape():
        {help}
"""
METADATA = "Metadata-Version: 2.1\nName: llmengine-tape\nVersion: 1.0\nRequires-Dist: llmengine-core{range}\n"
RANGE = ">=0.1,<0.2"


def plugin_of(
    name: str,
    body: str = "",
    *,
    hook: str = HOOK,
    contract: str = CONTRACT,
    objects: str = OBJECTS,
    range: str = RANGE,  # noqa: A002 - of versions
    value: str = "tape",
) -> dict[str, Any]:
    """A plugin ``tape`` in a folder of its own, installed as a distribution: the attributes of its contract."""
    site = _folder / name
    site.mkdir()
    info = site / "llmengine_tape-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA.format(range=range))
    (info / "entry_points.txt").write_text(f"[llmengine]\ntape = {value}\n")
    (site / "tape.py").write_text(HEAD + contract + dedent(body) + hook)
    (site / "tape_objects.py").write_text(objects)
    (site / "tape_worker.py").write_text("class Masker: ...\n")
    (site / "torch.py").write_text("")
    pins = site / "tape_pins"
    pins.mkdir()
    (pins / "__init__.py").write_text("")
    (pins / "good.txt").write_text("motor==2.0\nwheels==1.4\n")
    (pins / "stale.txt").write_text("motor==2.0\nwheels==0.9\n")
    return {"plugin": "tape", "subject": name, "search_path": (str(site),)}


def engine(
    name: str, *, builds: str = BUILD.format("good"), probe: str = "return ()", masker: str = "Masker"
) -> Any:
    hook = BACKEND.format(builds=builds, probe=indent(probe, "    ").strip(), masker=masker)
    return plugin_of(name, hook=hook, objects=ENGINE)


def mutant(name: str, bug: str, attributes: dict[str, Any], *killers: str, shipped: str = "") -> Mutant:
    contract = type(name.title().replace("_", ""), (PluginContract,), attributes)
    return Mutant(name, bug, contract, killers, shipped)


MUTANTS: list[Mutant] = [
    mutant(
        "imports_its_engine",
        "its module imports torch",
        plugin_of("imports_its_engine", "import torch"),
        "test_import_loads_nothing_heavy",
        shipped="simonw/llm#732",
    ),
    mutant(
        "slow_import",
        "its module computes for as long as the core takes to start, and more",
        plugin_of(
            "slow_import",
            """
            import time
            end = 2 * time.process_time() + 0.15
            while time.process_time() < end:
                pass
            """,
        ),
        "test_import_is_quick",
        shipped="BerriAI/litellm#6175",
    ),
    mutant(
        "banner",
        "its module greets",
        plugin_of("banner", "print('Tape 1.0, at your service')"),
        "test_import_prints_nothing",
    ),
    mutant(
        "calls_home",
        "its module asks a server as it is imported",
        plugin_of(
            "calls_home",
            """
            import socket
            try:
                socket.create_connection(("127.0.0.1", 9), 0.1)
            except OSError:
                pass
            """,
        ),
        "test_import_starts_nothing",
        shipped="BerriAI/litellm#22159",
    ),
    mutant(
        "watches_in_a_thread",
        "its module starts a thread as it is imported",
        plugin_of(
            "watches_in_a_thread",
            """
            import threading
            threading.Thread(target=threading.Event().wait, daemon=True).start()
            """,
        ),
        "test_import_starts_nothing",
    ),
    mutant(
        "asks_a_program",
        "its module runs nvidia-smi as it is imported",
        plugin_of(
            "asks_a_program",
            """
            import subprocess
            try:
                subprocess.run(["nvidia-smi"], capture_output=True)
            except OSError:
                pass
            """,
        ),
        "test_import_starts_nothing",
    ),
    mutant(
        "makes_its_cache",
        "its module makes a folder as it is imported",
        plugin_of(
            "makes_its_cache",
            """
            import pathlib
            (pathlib.Path(__file__).parent / ".cache").mkdir(exist_ok=True)
            """,
        ),
        "test_import_touches_no_files",
    ),
    mutant(
        "configures_logging",
        "its module configures the root logger",
        plugin_of("configures_logging", "import logging; logging.basicConfig(level=logging.INFO)"),
        "test_import_leaves_the_process_as_it_was",
    ),
    mutant(
        "written_for_the_future",
        "it states a contract that there isn't yet",
        plugin_of("written_for_the_future", contract="CONTRACT = 2\n"),
        "test_contract_is_one_that_this_core_speaks",
    ),
    mutant(
        "misspelt_hook",
        "it implements register_storage",
        plugin_of("misspelt_hook", hook=HOOK.replace("register_storages", "register_storage")),
        "test_hooks_are_ones_that_there_are",
    ),
    mutant(
        "unmarked_hook",
        "one of its hooks is not marked",
        plugin_of("unmarked_hook", hook=HOOK + "\ndef register_stores():\n    return []\n"),
        "test_hooks_are_ones_that_there_are",
    ),
    mutant(
        "unsound",
        "its storage's schemes are a list",
        plugin_of("unsound", hook=HOOK.replace('frozenset({"tape"})', '["tape"]')),
        "test_declarations_are_sound",
    ),
    mutant(
        "never_the_same",
        "the priority that it declares depends on how often it was asked",
        plugin_of(
            "never_the_same",
            "asked = [0]",
            hook=HOOK.replace("    return", "    asked[0] += 1\n    return").replace(
                'name="tape"', 'priority=asked[0], name="tape"'
            ),
        ),
        "test_declarations_are_the_same_each_time",
    ),
    mutant(
        "looks_around_in_a_hook",
        "it runs a program when it is asked what it declares",
        plugin_of(
            "looks_around_in_a_hook",
            hook=HOOK.replace("    return", "    import os; os.system('true')\n    return"),
        ),
        "test_hooks_have_no_side_effects",
    ),
    mutant(
        "engine_in_a_hook",
        "it imports its engine when it is asked what it declares, for its version",
        plugin_of("engine_in_a_hook", hook=HOOK.replace("    return", "    import torch\n    return")),
        "test_hooks_are_quick_and_import_no_engine",
    ),
    mutant(
        "takes_a_name",
        "it registers a storage of a name that another plugin has registered",
        plugin_of("takes_a_name", hook=HOOK.replace('name="tape"', 'name="localdisk"')),
        "test_it_loads_beside_all_others",
    ),
    mutant(
        "only_once",
        "it keeps a register of its own, and fails when it is loaded once more",
        plugin_of(
            "only_once",
            "asked = []",
            hook=HOOK.replace("    return", "    assert len(asked) < 2; asked.append(1)\n    return"),
        ),
        "test_it_can_be_loaded_twice",
    ),
    mutant(
        "engine_behind_its_factory",
        "the module of its storage imports torch",
        plugin_of("engine_behind_its_factory", objects=f"import torch\n{OBJECTS}"),
        "test_factories_can_be_imported_without_engines",
    ),
    mutant(
        "wants_more",
        "its storage can't be made of a URL alone",
        plugin_of("wants_more", objects=OBJECTS.replace("self, url)", "self, url, region)")),
        "test_factories_give_what_they_are_for",
    ),
    mutant(
        "no_storage",
        "what it gives for a storage is none",
        plugin_of("no_storage", objects="def Tape(url): return url"),
        "test_factories_give_what_they_are_for",
    ),
    mutant(
        "probe_tells_texts",
        "its probe gives a list of texts",
        engine("probe_tells_texts", probe='return ["no card"]'),
        "test_probes_give_problems_at_once",
    ),
    mutant(
        "masker_of_another_name",
        "the masker that it names isn't in the module",
        engine("masker_of_another_name", masker="MotorMasker"),
        "test_maskers_are_where_they_are_said_to_be",
    ),
    mutant(
        "contradicts_itself",
        "a build requires two versions of one distribution",
        engine(
            "contradicts_itself",
            builds='EnvironmentBuild(version="2.0", requirements=("motor==2.0", "wheels==1.0", "wheels>=2")),',
        ),
        "test_requirements_can_be_read_and_met",
    ),
    mutant(
        "build_of_another_version",
        "a build installs another version than it says",
        engine(
            "build_of_another_version",
            builds='EnvironmentBuild(version="2.1", requirements=("motor==2.0",)),',
        ),
        "test_environments_install_what_they_are_for",
        shipped="kserve/kserve#6065",
    ),
    mutant(
        "pins_left_at_home",
        "the pins of a build are not among its files",
        engine("pins_left_at_home", builds=BUILD.format("missing")),
        "test_pins_are_there_and_hold_what_is_required",
    ),
    mutant(
        "stale_pins",
        "the pins of a build hold a version that it refuses",
        engine("stale_pins", builds=BUILD.format("stale")),
        "test_pins_are_there_and_hold_what_is_required",
    ),
    mutant(
        "pins_the_core",
        "its distribution requires one version of the core",
        plugin_of("pins_the_core", range="==0.1.0"),
        "test_distribution_requires_the_core_in_a_range",
    ),
    mutant(
        "any_core",
        "its distribution takes any core that ever comes",
        plugin_of("any_core", range=">=0.1"),
        "test_distribution_requires_the_core_in_a_range",
        shipped="vllm-project/vllm#19161",
    ),
    mutant(
        "entry_point_of_an_object",
        "its entry point names an object in a module",
        plugin_of("entry_point_of_an_object", "import sys; here = sys.modules[__name__]", value="tape:here"),
        "test_entry_point_names_a_module",
    ),
    mutant(
        "foreign_command",
        "its command has another name than it",
        plugin_of("foreign_command", hook=HOOK + COMMAND.format(name="rewind", help="...")),
        "test_command_is_its_own_and_has_help",
    ),
]
