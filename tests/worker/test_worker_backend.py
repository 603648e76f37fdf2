"""How a worker is launched, and what of its backend's capabilities is left in its session."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.worker.toy_backend import CAPABILITIES, MASKER, ToyBackend, deployment, working

from llmengine_core.errors import BadRequestError
from llmengine_core.host import usable_memory
from llmengine_core.runtime_local import LocalRuntime
from llmengine_core.worker import bootstrap
from llmengine_core.worker_session import narrowed


def test_a_launch_names_interpreter_engine_and_packages() -> None:
    spec = ToyBackend(end_every=7).launch(deployment(python="/env/bin/python", masker=MASKER))
    assert spec.argv == ("/env/bin/python", "-I", bootstrap.__file__)
    assert spec.document["engine"] == "toy_worker:ToyEngine"
    assert spec.document["masker"] == MASKER
    assert spec.document["end_every"] == 7
    places = {name: Path(place).name for name, place in spec.document["packages"].items()}
    assert places == {"llmengine_core": "__init__.py", "toy_worker": "toy_worker.py"}
    assert (spec.subject, spec.resources.threads, spec.resources.gpus) == ("toy", 1, 0)
    json.dumps(dict(spec.document))


def test_without_an_environment_of_its_own_it_runs_in_ours() -> None:
    assert ToyBackend().launch(deployment()).argv[0] == sys.executable


def test_a_gpu_is_asked_for_each_shard() -> None:
    on_gpus = deployment(accelerator="cuda", tensor_parallel_size=2)
    assert ToyBackend().launch(on_gpus).resources.gpus == 2


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"speed": 1}, "toy has no launch option 'speed'; it has: cpus, threads, mode"),
        ({"threads": 0}, "threads is 0; it must be a whole number of at least 1"),
        ({"cpus": True}, "cpus is True; it must be a whole number of at least 1"),
    ],
)
def test_bad_launch_options_are_refused(options: dict[str, Any], reason: str) -> None:
    backend = ToyBackend()
    backend.options = frozenset({"mode"})  # type: ignore[misc]
    backend.launch(deployment(options={"mode": "any"}))
    with pytest.raises(BadRequestError, match=reason):
        backend.launch(deployment(options=options))


@pytest.mark.parametrize("options", [{"threads": 4, "cpus": 2}, {"threads": 2}, {"cpus": 2, "threads": 2}])
def test_threads_are_no_more_than_cpus(options: dict[str, int]) -> None:
    assert ToyBackend().launch(deployment(options=options)).resources.threads == 2


async def test_what_is_granted_reaches_the_engines_libraries(runtime: LocalRuntime, bare: str) -> None:
    memory = str(await asyncio.to_thread(usable_memory))
    async with working(runtime, python=bare) as worker:
        assert worker.session.facts.versions == {
            "toy": "1",
            "threads": "1",
            "memory": memory,
            "weights": "0" * 64,
        }
        assert (worker.session.facts.context_length, worker.session.facts.max_concurrent) == (1000, 4)
        assert worker.session.facts.prompt_token_overhead == 1
        assert worker.session.facts.longest_token is None
    async with working(runtime, ToyBackend(longest_token=3)) as worker:
        assert worker.session.facts.longest_token == 3


@pytest.mark.parametrize(
    ("deployed", "lacks", "left"),
    [
        ({"masker": MASKER, "adapters": True}, [], CAPABILITIES),
        ({"adapters": True}, [], replace(CAPABILITIES, structured=frozenset(), structured_dialect=None)),
        ({"masker": MASKER}, ["messages"], replace(CAPABILITIES, messages=False, adapters="none")),
        (
            {"masker": MASKER, "adapters": True},
            ["adapters", "structured"],
            replace(CAPABILITIES, adapters="none", structured=frozenset(), structured_dialect=None),
        ),
    ],
)
async def test_a_session_declares_what_its_engine_has(
    runtime: LocalRuntime, bare: str, deployed: dict[str, Any], lacks: list[str], left: object
) -> None:
    async with working(runtime, ToyBackend(lacks=lacks), python=bare, **deployed) as worker:
        assert worker.session.facts.capabilities == left
        assert worker.session.facts.capabilities.within(CAPABILITIES)


def test_what_is_narrowed_is_within() -> None:
    assert narrowed(CAPABILITIES, frozenset()) == CAPABILITIES
