"""A pool of several replicas is a session like any other, and keeps every law of one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from tests.contract.toy_contract import ADAPTERS, ToyContract

from llmengine_core.interfaces.backend import Backend, Session
from llmengine_core.interfaces.runtime import Replica, Runtime
from llmengine_core.pool import Pool
from llmengine_core.scaling import Bounds
from llmengine_core.testing.toy import ToySession
from llmengine_core.types.generation import SessionFacts
from llmengine_core.types.launch import Deployment, Endpoint, LaunchSpec
from llmengine_core.types.progress import OnProgress

BOUNDS = Bounds(min_workers=1, max_workers=2, per_worker=2)
DEPLOYMENT = Deployment(backend="toy", version="1", weights="/w", weights_digest="0" * 64, adapters=True)


class PooledToy(ToySession):
    """Says what a pool of it can do at once."""

    @property
    def facts(self) -> SessionFacts:
        return replace(super().facts, max_concurrent=BOUNDS.max_workers * BOUNDS.per_worker)


class Toys(Backend, Runtime):
    """Connects, and has nothing to start."""

    def launch(self, deployment: Deployment) -> LaunchSpec | None:
        return None

    async def connect(self, endpoint: Endpoint, deployment: Deployment) -> Session:
        return TestPool.made()

    async def start(self, spec: LaunchSpec, *, on_progress: OnProgress | None = None) -> Replica:
        raise AssertionError("there is nothing to start")

    def close_now(self) -> None:
        """Nothing is held here."""

    async def aclose(self) -> None:
        """Nothing is held here."""


class TestPool(ToyContract):
    """Two replicas, of which the second is started once the first is busy; more requests wait."""

    subject = "a pool of toys"
    session_type = PooledToy
    adapters = ADAPTERS

    @classmethod
    @asynccontextmanager
    async def shared(cls) -> AsyncIterator[Session]:
        async with cls.pool() as pool:
            yield pool

    @asynccontextmanager
    async def another(self) -> AsyncIterator[Session]:
        async with self.pool() as pool:
            yield pool

    @classmethod
    @asynccontextmanager
    async def pool(cls) -> AsyncIterator[Pool]:
        """One that is ready."""
        toys = Toys()
        async with Pool(DEPLOYMENT, toys, toys, BOUNDS) as pool:
            await pool.ready(None)
            yield pool
