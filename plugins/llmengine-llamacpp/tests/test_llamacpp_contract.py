"""llama.cpp under the contract kit, with a real model."""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path
from typing import ClassVar

import pytest

from llmengine_core.settings import Settings, load_settings
from llmengine_core.testing import BackendContract, BackendLifecycleContract, PluginContract
from llmengine_core.testing.profiles import PROFILE_VARIABLE


@pytest.fixture(autouse=True)
def smoke_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A real engine takes its time: more is tried by ``nox -s contract``, which names the profile."""
    monkeypatch.setenv(PROFILE_VARIABLE, os.environ.get(PROFILE_VARIABLE, "smoke"))


@cache
def _settings() -> Settings:
    return load_settings(home=Path(tempfile.mkdtemp(prefix="llamacpp-contract-")))


class TestPlugin(PluginContract):
    plugin = "llamacpp"


class TestLlamaCpp(BackendContract):
    backend = "llama_cpp"
    model = "smollm2-135m-instruct"
    spec: ClassVar = {"per_worker": 4, "cpus": 1}

    @classmethod
    def settings(cls) -> Settings:
        return _settings()


class TestLlamaCppLifecycle(BackendLifecycleContract):
    backend = "llama_cpp"
    model = "smollm2-135m-instruct"
    spec: ClassVar = {"per_worker": 2, "cpus": 1}

    @classmethod
    def settings(cls) -> Settings:
        return _settings()
