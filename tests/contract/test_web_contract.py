"""Web servers keep the storage contract, as far as it is about reading."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote, urlsplit

from tests.servers.web import Web, web

from llmengine_core.testing import StorageContract, strategies
from llmengine_core.testing.contracts.placed import Place
from llmengine_core.urls import UrlPolicy
from llmengine_core.web_storage import AS_THEY_ARE, WebStorage


class Served:
    """A web server on a thread of its own."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self.web = Web()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=[self._serve()])
        self._thread.start()
        self._ready.wait()

    async def _serve(self) -> None:
        async with web() as self.web:
            self._ready.set()
            await self._over.wait()

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()
        self._loop.close()


class TestWeb(StorageContract):
    """What lies on a web server is read."""

    storage = "web"
    not_key = strategies.not_keys().filter(lambda key: "?" not in key)
    """What follows a "?" is no part of the name."""
    served: ClassVar[Served]

    @classmethod
    def setup_class(cls) -> None:
        cls.served = Served()
        super().setup_class()

    @classmethod
    def teardown_class(cls) -> None:
        super().teardown_class()
        cls.served.end()

    def fresh_url(self, folder: Path) -> str:
        return self.served.web.url(f"/{uuid.uuid4().hex}", host="127.0.0.1")

    def made(self, url: str) -> WebStorage:
        return WebStorage(url, policy=UrlPolicy(("127.0.0.1",)))

    async def place(self, place: Place, objects: Mapping[str, bytes]) -> None:
        below = urlsplit(place.url).path
        self.served.web.files = {
            f"{below}/{quote(key, safe=AS_THEY_ARE)}".partition("?")[0]: whole
            for key, whole in objects.items()
        }
