"""The laws of storages, on repositories of a hub on this machine."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest
from tests.servers.hub import Hub

from llmengine_core.testing import StorageContract
from llmengine_core.testing.contracts.placed import Place
from llmengine_core.urls import UrlPolicy
from llmengine_hub.storage import HubStorage


class TestHub(StorageContract):
    storage = "hub"
    server: ClassVar[Hub]
    patch: ClassVar[pytest.MonkeyPatch]

    @classmethod
    def setup_class(cls) -> None:
        cls.server = Hub(page=5)
        cls.patch = pytest.MonkeyPatch()
        cls.patch.setenv("HF_ENDPOINT", cls.server.url)
        cls.patch.setenv("HF_HOME", "/nowhere/at/all")
        super().setup_class()

    @classmethod
    def teardown_class(cls) -> None:
        super().teardown_class()
        cls.patch.undo()
        cls.server.close()

    def fresh_url(self, folder: Path) -> str:
        return f"hf://laws/{uuid.uuid4().hex}"

    def made(self, url: str) -> HubStorage:
        return HubStorage(url, policy=UrlPolicy(("127.0.0.1",)))

    async def place(self, place: Place, objects: Mapping[str, bytes]) -> None:
        self.server.put(place.url.removeprefix("hf://"), objects)
