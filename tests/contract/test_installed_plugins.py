"""Every plugin that is installed here, under the contract of plugins."""

from __future__ import annotations

import pytest

from llmengine_core.plugins import installed
from llmengine_core.testing.contracts.plugins.contract import PluginContract
from llmengine_core.testing.verdicts import run_contract


@pytest.mark.parametrize("plugin", [source.name for source in installed()])
def test_it_is_light_honest_and_no_trouble(plugin: str) -> None:
    verdicts = run_contract(type("Installed", (PluginContract,), {"plugin": plugin}))
    assert {each.law: each.reason for each in verdicts if each.outcome == "failed"} == {}
