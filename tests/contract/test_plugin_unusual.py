"""Plugins that are unusual, and keep their promises all the same; and our own."""

from __future__ import annotations

from typing import Any

import pytest
from tests.contract.mutants.plugin import BUILD, COMMAND, HOOK, engine, plugin_of

from llmengine_core.testing.contracts.plugins.contract import PluginContract
from llmengine_core.testing.verdicts import run_contract

UNUSUAL: dict[str, dict[str, Any]] = {
    "with_all": engine("with_all", builds=BUILD.format("good"), probe='return (Problem("no card"),)'),
    "nothing_to_declare": plugin_of(
        "nothing_to_declare", hook="@hookimpl\ndef register_storages(): return ()\n"
    ),
    "reads_its_own_and_imports_much": plugin_of(
        "reads_its_own_and_imports_much",
        """
        import argparse, asyncio, base64, collections, contextlib, dataclasses, enum, hashlib, json, logging, random
        import re, shutil, socket, subprocess, tempfile, threading, urllib.parse, uuid, warnings
        from importlib import metadata, resources
        __version__ = metadata.version("llmengine-tape")
        PINS = resources.files("tape_pins").joinpath("good.txt").read_text()
        log = logging.getLogger(__name__)
        log.addHandler(logging.NullHandler())
        log.info("here")
        warnings.filterwarnings("ignore", module="tape")
        LOCK = threading.Lock()
        """,
        hook=HOOK + COMMAND.format(name="tape", help="..."),
        range="~=0.1",
    ),
    "url_of_its_own": plugin_of(
        "url_of_its_own",
        objects="""
from llmengine_core.interfaces.storage import Storage

class Tape(Storage):
    def __init__(self, url):
        assert url == "tape://reel/1?speed=19", url

Tape.__abstractmethods__ = frozenset()
""",
    )
    | {"urls": {"tape": "tape://reel/1?speed=19"}},
    "overrides": engine(
        "overrides",
        builds=(
            'EnvironmentBuild(version="2.0", pins=None, '
            'requirements=("motor[fast]==2.0", "wheels>=3; sys_platform == \'never\'"), '
            'overrides=("wheels; sys_platform == \'never\'", "torch==2.13")),'
        ),
    ),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_it_keeps_its_promises(name: str) -> None:
    verdicts = run_contract(type("Unusual", (PluginContract,), UNUSUAL[name]))
    assert {each.law: each.reason for each in verdicts if each.outcome == "failed"} == {}


@pytest.mark.parametrize("plugin", ["llmengine_core.testing.echo", "llmengine_core.testing.toy"])
def test_ours_keep_theirs(plugin: str) -> None:
    verdicts = run_contract(type("Ours", (PluginContract,), {"plugin": plugin}))
    assert {each.law: each.reason for each in verdicts if each.outcome == "failed"} == {}


def test_a_distribution_is_found_by_any_of_its_names() -> None:
    for name in ("llmengine_localdisk", "llmengine_localdisk.plugin"):
        named: type[PluginContract] = type("Named", (PluginContract,), {"plugin": name})
        named.setup_class()
        try:
            assert named.looked("import").one("found").seen["name"] == "localdisk"
        finally:
            named.teardown_class()
