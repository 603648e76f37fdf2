"""An engine on a thread of its own, as the home engine is, that the facade's calls go to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from anyio.from_thread import start_blocking_portal

import llmengine
from llmengine import api_engine
from llmengine_core.engine import Engine
from llmengine_core.settings import Settings
from llmengine_core.testing import scripted


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The process's default engine while a module's tests run."""
    settings = Settings(home=tmp_path_factory.mktemp("home"))
    with (
        start_blocking_portal("asyncio") as portal,
        portal.wrap_async_context_manager(Engine(settings, plugins=[scripted])) as engine,
    ):
        llmengine.set_default_engine(engine)
        yield engine
        llmengine.set_default_engine(None)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No key and no server from outside, and none left behind."""
    monkeypatch.delenv("SCALE_API_KEY", raising=False)
    monkeypatch.delenv("LLM_ENGINE_BASE_PATH", raising=False)
    yield
    api_engine.set_api_key(None)
    api_engine.set_base_path(None)
