"""Transformers under the contract kit: a little model with adapters, in float32."""

from __future__ import annotations

import os
import tempfile
import unicodedata
from functools import cache
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import strategies as st
from tests.e2e.test_adapters import adapter
from tests.e2e.torch_checkpoints import tiny_llama

from llmengine_core.settings import Settings, load_settings
from llmengine_core.testing import BackendContract, BackendLifecycleContract, PluginContract, strategies
from llmengine_core.testing.profiles import PROFILE_VARIABLE

pytestmark = pytest.mark.environment
HERE = "LLMENGINE_TEST_ENGINES" in os.environ
"""Whether there are environments; without one these tests are collected, and not run."""


@pytest.fixture(autouse=True)
def smoke_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A real engine takes its time: more is tried where a profile is named."""
    monkeypatch.setenv(PROFILE_VARIABLE, os.environ.get(PROFILE_VARIABLE, "smoke"))


@cache
def settings_of_environments() -> Settings:
    return load_settings(home=Path(os.environ["LLMENGINE_TEST_ENGINES"]))


@cache
def made() -> Path:
    """The little model, and two adapters of it."""
    folder = Path(tempfile.mkdtemp(prefix="transformers-kit-"))
    tiny_llama(folder / "tiny", Path(os.environ["LLMENGINE_TEST_WEIGHTS"]))
    for seed, name in enumerate(("one", "two")):
        adapter(folder / name, seed)
    return folder


class TestPlugin(PluginContract):
    plugin = "transformers"


def is_spelled(text: str) -> bool:
    """Whether the vocabulary has bytes for it: there are none for controls and for what Unicode hasn't assigned."""
    return all(unicodedata.category(each) not in ("Cc", "Cn", "Co") or each in "\n\t" for each in text)


class TestTinyLlama(BackendContract):
    prompt = strategies.prompts().filter(is_spelled)
    prompts = st.lists(strategies.prompts().filter(is_spelled), min_size=2, max_size=5)
    backend = "transformers"
    model = "tiny-llama"
    checkpoint = str(made() / "tiny") if HERE else None
    adapters: ClassVar = {name: str(made() / name) for name in ("one", "two")} if HERE else {}
    spec: ClassVar = {"per_worker": 3, "cpus": 1}

    @classmethod
    def settings(cls) -> Settings:
        return settings_of_environments()


class TestTinyLlamaLifecycle(BackendLifecycleContract):
    backend = "transformers"
    model = "tiny-llama"
    checkpoint = str(made() / "tiny") if HERE else None
    spec: ClassVar = {"per_worker": 2, "cpus": 1}

    @classmethod
    def settings(cls) -> Settings:
        return settings_of_environments()
