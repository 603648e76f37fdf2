"""Engines with real stores in a folder of their own, and the echo backend."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llmengine_core.engine import Engine
from llmengine_core.settings import Settings
from llmengine_core.testing import echo


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
async def engine(settings: Settings) -> AsyncIterator[Engine]:
    async with Engine(settings, plugins=[echo]) as engine:
        yield engine


@pytest.fixture(scope="module")
def shared_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(home=tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
async def shared(shared_settings: Settings) -> AsyncIterator[Engine]:
    """One for many examples."""
    async with Engine(shared_settings, plugins=[echo]) as engine:
        yield engine
