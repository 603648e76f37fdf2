"""Adapters of one base model: side by side on one worker, each for itself."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from tests.e2e.facade import answer, endless
from tests.e2e.procfs import processes_of, until
from tests.e2e.test_transformers import create, plan_of, workers_of
from tests.e2e.torch_checkpoints import HIDDEN, INNER, LAYERS, save, tiny_llama

from llmengine import CompletionStreamResponse, Model, errors, set_default_engine
from llmengine_core.engine import Engine
from llmengine_core.hookspecs import hookimpl
from llmengine_core.types.models import ModelCard, WeightsSource

pytestmark = pytest.mark.environment
BASE = "tiny-llama"
"""In float32: what is computed beside it changes no text."""
RANK = 4
PROMPTS = ("The capital of France is", "Once upon a time", "To bake bread you need")
LENGTH, LONG = 16, 200
NAMES = ("one", "two", "plain")


def adapter(folder: Path, seed: int, *, base: str = BASE, inner: int = INNER) -> Path:
    """A LoRA adapter of random weights, large enough that the model says something else."""
    random = np.random.default_rng(seed)
    tensors = {}
    for layer in range(LAYERS):
        name = f"base_model.model.model.layers.{layer}.mlp.down_proj"
        tensors[f"{name}.lora_A.weight"] = random.normal(0, 1, (RANK, inner)).astype(np.float32)
        tensors[f"{name}.lora_B.weight"] = random.normal(0, 1, (HIDDEN, RANK)).astype(np.float32)
    folder.mkdir(parents=True)
    save(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": RANK,
        "lora_alpha": RANK,
        "target_modules": ["down_proj"],
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def knowing(base: Path) -> ModuleType:
    """A plugin whose card is of the weights in a folder."""

    @hookimpl
    def register_models() -> list[ModelCard]:
        source = WeightsSource(url=base.as_uri(), format="safetensors")
        return [ModelCard(name=BASE, sources=(source,), parameters=1, context_length=256, license="MIT")]

    plugin = ModuleType("cards")
    vars(plugin).update(CONTRACT=1, register_models=register_models)
    return plugin


@contextmanager
def default_engine(engine: Engine) -> Iterator[None]:
    """Send this process's calls to an engine, opened on a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(engine.__aenter__(), loop).result()
        set_default_engine(engine)
        yield
    finally:
        set_default_engine(None)
        asyncio.run_coroutine_threadsafe(engine.aclose(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def put(name: str, folder: Path | None) -> None:
    """A model of the base, with an adapter or none; four requests at once."""
    create(name, folder, model=BASE, per_worker=4)


@pytest.fixture(scope="module")
def torch_home(
    engines_home: Path, smollm2_folder: Path, own_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """The home of this process's own calls: two adapters, and their plain base."""
    own_home.mkdir(parents=True)
    (own_home / "environments").symlink_to(engines_home / "environments")
    folders = tmp_path_factory.mktemp("models")
    with default_engine(Engine(plugins=[knowing(tiny_llama(folders / "base", smollm2_folder))])):
        for seed, name in enumerate(("one", "two")):
            put(name, adapter(folders / name, seed))
        put("plain", None)
        yield own_home


@pytest.fixture(scope="module")
def alone(torch_home: Path) -> dict[tuple[str, str], str]:
    """What each says to each prompt, one at a time."""
    return {
        (name, prompt): answer(prompt, name, max_new_tokens=LENGTH) for name in NAMES for prompt in PROMPTS
    }


@pytest.fixture
def worker(torch_home: Path, alone: dict[tuple[str, str], str]) -> int:
    """The one process that serves them all."""
    (pid,) = workers_of(torch_home)
    return pid


def at_once(asked: list[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """The answers to all of these, asked at the same time."""
    with ThreadPoolExecutor(len(asked)) as threads:
        answers = threads.map(lambda each: answer(each[1], each[0], max_new_tokens=LENGTH), asked)
        return dict(zip(asked, answers, strict=True))


def test_adapters_and_their_base_answer_at_once_as_they_do_alone(
    worker: int, alone: dict[tuple[str, str], str], torch_home: Path
) -> None:
    assert len({alone[name, PROMPTS[0]] for name in NAMES}) == len(NAMES)
    assert at_once(list(alone)) == alone
    assert workers_of(torch_home) == {worker}


@pytest.fixture
def third(tmp_path: Path, worker: int) -> Iterator[str]:
    """One more adapter, which is the test's own to change."""
    put("third", adapter(tmp_path / "third", 3))
    yield "third"
    if any(each.name == "third" for each in Model.list().model_endpoints):
        Model.delete("third")


def joined(chunks: Iterator[CompletionStreamResponse]) -> str:
    """The text of an answer, or of what is left of it."""
    return "".join(chunk.output.text for chunk in chunks if chunk.output)


def test_one_is_deleted_while_all_of_them_answer(
    worker: int, third: str, alone: dict[tuple[str, str], str], torch_home: Path
) -> None:
    expected = {name: answer(PROMPTS[1], name, max_new_tokens=LONG) for name in (*NAMES, third)}
    with ExitStack() as opened:
        running = {
            name: opened.enter_context(endless(PROMPTS[1], name, max_new_tokens=LONG)) for name in expected
        }
        begun = {name: joined(iter([next(stream)])) for name, stream in running.items()}
        assert Model.delete(third).deleted
        assert {name: begun[name] + joined(stream) for name, stream in running.items()} == expected
    with pytest.raises(errors.NotFoundError):
        answer(model=third)
    assert at_once(list(alone)) == alone
    assert workers_of(torch_home) == {worker}


def test_an_update_brings_another_adapter_and_running_requests_keep_theirs(
    worker: int, third: str, tmp_path: Path, torch_home: Path
) -> None:
    before = answer(PROMPTS[1], third, max_new_tokens=LONG)
    with endless(PROMPTS[1], third, max_new_tokens=LONG) as running:
        text = joined(iter([next(running)]))
        Model.update(third, checkpoint_path=str(adapter(tmp_path / "fourth", 4)))
        until(lambda: Model.get(third).status == "READY", 20, "the update is carried out")
        text += joined(running)
    assert text == before
    assert answer(PROMPTS[1], third, max_new_tokens=LONG) != before
    assert workers_of(torch_home) == {worker}


def test_a_new_worker_has_them_all_again(
    worker: int, alone: dict[tuple[str, str], str], torch_home: Path
) -> None:
    os.kill(worker, signal.SIGKILL)
    until(lambda: worker not in processes_of(torch_home), 5, "the worker is gone")
    assert at_once(list(alone)) == alone
    assert len(workers_of(torch_home)) == 1


@pytest.mark.usefixtures("worker")
def test_an_adapter_of_another_base_is_refused_with_what_does_not_fit(
    alone: dict[tuple[str, str], str], tmp_path: Path
) -> None:
    put("stranger", adapter(tmp_path / "stranger", 5, base="acme/other-7b", inner=48))
    try:
        with pytest.raises(errors.BadRequestError, match=r"down_proj takes 64 .*48\).*acme/other-7b"):
            answer(model="stranger")
        model = Model.get("stranger")
        assert model.status == "UPDATE_FAILED"
        assert "down_proj takes 64" in str(model.reason)
        assert any("acme/other-7b" in note for note in plan_of("stranger")["notes"])
        assert at_once(list(alone)) == alone
    finally:
        Model.delete("stranger")


def test_one_whose_folder_is_gone_fails_alone(
    worker: int, third: str, tmp_path: Path, alone: dict[tuple[str, str], str], torch_home: Path
) -> None:
    expected = answer(model=third)
    (tmp_path / "third").rename(tmp_path / "away")
    os.kill(worker, signal.SIGKILL)
    until(lambda: worker not in processes_of(torch_home), 5, "the worker is gone")
    assert at_once(list(alone)) == alone
    with pytest.raises(errors.BadRequestError, match="third"):
        answer(model=third)
    (tmp_path / "away").rename(tmp_path / "third")
    assert answer(model=third) == expected
