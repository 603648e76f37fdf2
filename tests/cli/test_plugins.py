"""``llmengine plugins``."""

from __future__ import annotations

import json

import pytest
from tests.cli.program import Installed, Run


def test_what_loaded_is_shown_with_what_it_registers(run: Run) -> None:
    found = json.loads(run("plugins", "--json").stdout)
    echo = {
        "name": "echo",
        "distribution": "llmengine-echo 1.0",
        "registers": {"backend": ["echo"], "model": ["echo"]},
    }
    assert echo in found["plugins"]
    assert {each["name"] for each in found["plugins"]} >= {"core", "llamacpp", "localdisk", "sqlite"}
    assert "backend echo; model echo (llmengine-echo 1.0)" in run("plugins").stdout


def test_what_failed_is_shown_with_reason_and_mend(run: Run, installed: Installed) -> None:
    installed.add("tape", "tape_plugin", "import a_module_that_is_missing")
    (fault,) = json.loads(run("plugins", "--json").stdout)["failed"]
    assert (fault["plugin"], fault["distribution"]) == ("tape", "llmengine-tape 1.0")
    assert "a_module_that_is_missing" in fault["message"]
    text = run("plugins").stdout
    assert "failed: tape (llmengine-tape 1.0) failed to load: ModuleNotFoundError" in text
    assert f"mend: {fault['mend']}" in text


def test_what_the_settings_leave_out_is_shown(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMENGINE_DISABLED_PLUGINS", "echo")
    found = json.loads(run("plugins", "--json").stdout)
    assert [each["plugin"] for each in found["left_out"]] == ["echo"]
    assert "left out: echo" in run("plugins").stdout
