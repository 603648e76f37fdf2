"""Homes of their own, for this process and for programs, and nothing left running in them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.e2e.procfs import processes_of, until
from tests.e2e.program import Program

from llmengine_core import home as home_engine

if TYPE_CHECKING:
    from tests.servers.seaweed import Identity, S3Server

    from llmengine_s3.storage import S3Storage


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home that doesn't exist yet. Whatever was started with it is gone 5 s after the test at the latest."""
    path = tmp_path / "home"
    yield path
    until(lambda: not processes_of(path), 5, f"nothing runs on in {path}")


@pytest.fixture
def program(home: Path) -> Program:
    """Programs in that home."""
    return Program(home)


@pytest.fixture(scope="module")
def own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home of this process's own calls, shared by the module's tests."""
    path = tmp_path_factory.mktemp("own") / "home"
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("LLMENGINE_", "LLM_ENGINE_")):
                patch.delenv(name)
        patch.setenv("LLMENGINE_HOME", str(path))
        home_engine.shutdown()
        yield path
        home_engine.shutdown()
    until(lambda: not processes_of(path), 5, f"nothing runs on in {path}")


@pytest.fixture(scope="module")
def opened(s3_server: S3Server) -> Iterator[Callable[..., S3Storage]]:
    """Opens S3 storages in this process, as one of the server's identities and by none of the machine's settings."""
    from tests.servers.seaweed import ADMIN

    from llmengine_s3.storage import S3Storage

    with pytest.MonkeyPatch.context() as patch:

        def open_storage(
            url: str, identity: Identity = ADMIN, endpoint: str | None = None, **more: str
        ) -> S3Storage:
            for name in list(os.environ):
                if name.startswith("AWS_"):
                    patch.delenv(name)
            for name, value in {**s3_server.environment(identity, endpoint), **more}.items():
                patch.setenv(name, value)
            return S3Storage(url)

        yield open_storage
