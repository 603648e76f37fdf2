"""A runtime, and interpreters to run workers under: the tests' own, and one that has nothing."""

from __future__ import annotations

import os
import sys
import venv
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.worker.toy_backend import MASKER, ToyBackend, Worker, journal_of, working

from llmengine_core.runtime_local import LocalRuntime

sys.path.insert(0, str(Path(__file__).parent))  # the toy is found where it is installed: here


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter that has the standard library and nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    venv.EnvBuilder(symlinks=True).create(folder)
    return str(folder / "bin" / "python")


@pytest.fixture(scope="session", params=["ours", "bare"])
def python(request: pytest.FixtureRequest, bare: str) -> str:
    return {"ours": sys.executable, "bare": bare}[request.param]


@pytest.fixture(scope="module")
async def runtime(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalRuntime]:
    runtime = LocalRuntime(tmp_path_factory.mktemp("home"))
    yield runtime
    await runtime.aclose()


@pytest.fixture(scope="module")
async def worker(runtime: LocalRuntime, python: str) -> AsyncIterator[Worker]:
    """One that ends about every tenth token, and enforces constraints."""
    async with working(
        runtime, ToyBackend(end_every=10), python=python, masker=MASKER, adapters=True
    ) as worker:
        yield worker


@dataclass(frozen=True)
class Gated:
    """A worker whose every step waits to be let, and what it has noted."""

    worker: Worker
    gate: int
    notes: Path

    def let(self, steps: int = 1) -> None:
        os.write(self.gate, b"." * steps)

    @property
    def journal(self) -> list[list[str]]:
        return journal_of(self.notes)

    @property
    def steps(self) -> list[list[str]]:
        """The requests of each step that was made."""
        return [rest for what, *rest in self.journal if what == "step"]


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[int]:
    os.mkfifo(tmp_path / "gate")
    gate = os.open(tmp_path / "gate", os.O_RDWR)
    yield gate
    os.close(gate)


@pytest.fixture
async def gated(runtime: LocalRuntime, bare: str, tmp_path: Path, gate: int) -> AsyncIterator[Gated]:
    notes = tmp_path / "journal"
    notes.touch()
    backend = ToyBackend(gate=str(tmp_path / "gate"), journal=str(notes), max_concurrent=2)
    async with working(runtime, backend, python=bare, adapters=True) as worker:
        yield Gated(worker, gate, notes)
