"""Plugins that are broken in every way break only themselves, and are named where they would have mattered."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.e2e.program import Program, install

pytestmark = pytest.mark.engine

BACKEND = """
from llmengine_core.hookspecs import hookimpl
from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.declarations import BackendInfo
CONTRACT = {contract}
@hookimpl
def register_backends():
    info = BackendInfo(
        name="{name}",
        factory="{factory}",
        capabilities=Capabilities(),
        formats=frozenset({{"gguf"}}),
        priority=-1,  # nobody gets it who hasn't asked for it
    )
    return [info{again}]
"""


def backend(name: str, *, contract: int = 1, factory: str = "json:loads", again: str = "") -> str:
    """The module of a plugin with one backend."""
    return BACKEND.format(name=name, contract=contract, factory=factory, again=again)


PLUGINS = {
    "broken_import": "raise ImportError('libnvinfer.so.10')",
    "broken_exit": "raise SystemExit(3)",
    "twice": backend("twice", again=", info"),
    "thief": backend("llama_cpp"),
    "zz_first": backend("wanted"),
    "zz_second": backend("wanted"),
    "no_module": backend("no_module", factory="no_such_module:Backend"),
    "no_name": backend("no_name", factory="json:NoSuchBackend"),
    "newer": backend("newer", contract=99),
}

CODE = """
def tried(framework):
    name = f"on-{framework}".replace("_", "-")
    try:
        Model.create(name, MODEL, "latest", inference_framework=framework)
        ask(model=name)
    except errors.LLMEngineError as error:
        say(framework, type(error).__name__, str(error))
    else:
        say(framework, "answered")
say(ask().output.text)
for framework in sys.argv[1:]:
    tried(framework)
from llmengine_core import home
say({fault.plugin: [fault.message, fault.mend] for fault in home.current().registry.faults})
say(ask().output.text)
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder on the module search path, in which each of the plugins is installed."""
    for name, source in PLUGINS.items():
        install(tmp_path / "site", name, module=f"{name}_plugin", source=source)
    return tmp_path / "site"


def test_completions_go_on_and_every_fault_is_told_with_its_mend(home: Path, site: Path) -> None:
    frameworks = ["broken_import", "twice", "newer", "no_module", "no_name"]
    program = Program(home, {"PYTHONPATH": str(site)})
    first, *tried, (faults,), last = program.run(CODE, *frameworks)
    assert first == last == [" Paris.\n"]
    told = {framework: (kind, text) for framework, kind, text in tried}
    expected = {
        "broken_import": ("ResolutionError", "ImportError: libnvinfer.so.10"),
        "twice": ("ResolutionError", "registers the backend 'twice' twice"),
        "newer": ("ResolutionError", "was written for contract 99"),
        "no_module": ("ServerError", "No module named 'no_such_module'"),
        "no_name": ("ServerError", "no attribute 'NoSuchBackend'"),
    }
    for framework, (kind, reason) in expected.items():
        assert told[framework][0] == kind
        assert reason in told[framework][1]
        assert framework in told[framework][1]
    reasons = {
        "broken_exit": "SystemExit: 3",
        "broken_import": "ImportError: libnvinfer.so.10",
        "newer": "was written for contract 99; this core speaks 1",
        "thief": "registers the backend 'llama_cpp', which the plugin 'llamacpp'",
        "twice": "registers the backend 'twice' twice",
        "zz_second": "registers the backend 'wanted', which the plugin 'zz_first'",
    }
    assert faults.keys() == reasons.keys()
    for plugin, reason in reasons.items():
        message, mend = faults[plugin]
        assert reason in message
        assert "pip" in mend
