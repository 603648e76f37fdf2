"""A hub on this machine, and an environment in which it is the only one."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.servers.hub import Hub, hub

from llmengine_core.urls import UrlPolicy
from llmengine_hub import routes, storage
from llmengine_hub.storage import HubStorage

sys.path.insert(0, str(Path(__file__).parent))

OPEN = UrlPolicy(("127.0.0.1",))
"""The hub's store is another server, on this machine."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub of its own, with a cache of its own."""
    for name in list(os.environ):
        if name.startswith(("HF_", "HUGGING", "TRANSFORMERS_OFFLINE", "XDG_CACHE_HOME")):
            monkeypatch.delenv(name)
    monkeypatch.setattr(storage, "_known", {})
    monkeypatch.setattr(routes, "PAUSE", 0.01)
    with hub() as found:
        monkeypatch.setenv("HF_ENDPOINT", found.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        yield found


@pytest.fixture
def cache(server: Hub, tmp_path: Path) -> Path:
    """Where the hub's library keeps what it fetches."""
    return tmp_path / "home" / "hub"


@pytest.fixture
def opened(server: Hub) -> Callable[[str], HubStorage]:
    """A storage that may go to the hub's store."""

    def open_storage(url: str) -> HubStorage:
        storage._known.clear()
        return HubStorage(url, policy=OPEN)

    return open_storage
