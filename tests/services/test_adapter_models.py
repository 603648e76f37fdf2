"""Models that are adapters: on one base's pool together, each for itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tests.services import choir
from tests.services.choir import SESSIONS, adapter

from llmengine_core.arguments.completion import parse_completion
from llmengine_core.arguments.model import parse_model
from llmengine_core.engine import Engine
from llmengine_core.errors import BadRequestError, ResolutionError, UnsupportedFeatureError
from llmengine_core.settings import Settings
from llmengine_core.testing import echo
from llmengine_core.types.models import ModelStatus


@pytest.fixture
async def engine(settings: Settings) -> AsyncIterator[Engine]:
    SESSIONS.clear()
    async with Engine(settings, plugins=[echo, choir]) as engine:
        yield engine


async def create(engine: Engine, name: str, folder: Path | None = None, **fields: object) -> ModelStatus:
    given: dict[str, object] = {"model": "choir", "inference_framework": "auto", **fields}
    path = None if folder is None else str(folder)
    await engine.models.create(
        parse_model(name=name, checkpoint_path=path, inference_framework_image_tag="latest", **given)
    )
    return (await engine.models.wait(name)).status


async def complete(engine: Engine, model: str) -> str:
    arguments = parse_completion(model=model, prompt="la", temperature=0)
    return (await engine.completions.create(arguments)).text


async def becomes(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.001)


async def test_adapters_and_their_base_share_a_replica(engine: Engine, tmp_path: Path) -> None:
    await create(engine, "high", adapter(tmp_path / "high", "soprano"))
    await create(engine, "low", adapter(tmp_path / "low", "bass"))
    await create(engine, "plain")
    names = ["high", "low", "plain", "low", "high"]
    answers = await asyncio.gather(*(complete(engine, name) for name in names))
    assert answers == ["soprano: la", "bass: la", "la", "bass: la", "soprano: la"]
    (session,) = SESSIONS
    assert session.loads == 2


async def test_plain_models_without_adapters_around_start_what_takes_none(engine: Engine) -> None:
    await create(engine, "plain")
    assert await complete(engine, "plain") == "la"
    (session,) = SESSIONS
    assert not session.deployment.adapters


async def test_many_who_want_one_adapter_load_it_once_and_the_last_unloads_it(
    engine: Engine, tmp_path: Path
) -> None:
    folder = adapter(tmp_path / "high", "soprano")
    for name in ("one", "two"):
        assert await create(engine, name, folder) is ModelStatus.READY
    answers = await asyncio.gather(*(complete(engine, name) for name in ("one", "two", "one", "two")))
    assert set(answers) == {"soprano: la"}
    await create(engine, "low", adapter(tmp_path / "low", "bass"))
    (session,) = SESSIONS
    assert session.loads == 2
    await engine.models.delete("one")
    assert await complete(engine, "two") == "soprano: la"
    assert session.loads == 2
    await engine.models.delete("two")
    await becomes(lambda: list(session.voices.values()) == ["bass"])


async def test_m10_an_update_brings_another_adapter_and_what_runs_keeps_its_own(
    engine: Engine, tmp_path: Path
) -> None:
    await create(engine, "mine", adapter(tmp_path / "high", "soprano"))
    (session,) = SESSIONS
    session.gate = asyncio.Event()
    stream = await engine.completions.stream(parse_completion(model="mine", prompt="la", temperature=0))
    texts = [(await anext(stream)).text]
    low = adapter(tmp_path / "low", "bass")
    await engine.models.update("mine", {"checkpoint_path": str(low)})
    assert (await engine.models.wait("mine")).status is ModelStatus.READY
    assert sorted(session.voices.values()) == ["bass", "soprano"]
    session.gate.set()
    texts += [chunk.text async for chunk in stream]
    assert "".join(texts) == "soprano: la"
    assert await complete(engine, "mine") == "bass: la"
    await becomes(lambda: list(session.voices.values()) == ["bass"])
    assert len(SESSIONS) == 1


async def test_m10_an_update_to_the_same_folder_takes_what_lies_there_now(
    engine: Engine, tmp_path: Path
) -> None:
    folder = adapter(tmp_path / "mine", "soprano")
    await create(engine, "mine", folder)
    assert await complete(engine, "mine") == "soprano: la"
    (folder / "voice").write_text("baritone")
    assert await complete(engine, "mine") == "soprano: la"
    await engine.models.update("mine", {"checkpoint_path": str(folder)})
    assert (await engine.models.wait("mine")).status is ModelStatus.READY
    assert await complete(engine, "mine") == "baritone: la"
    (session,) = SESSIONS
    await becomes(lambda: list(session.voices.values()) == ["baritone"])
    (folder / "voice").unlink()
    await engine.models.update("mine", {"checkpoint_path": str(folder)})
    assert (await engine.models.wait("mine")).status is ModelStatus.UPDATE_FAILED
    assert await complete(engine, "mine") == "baritone: la"


async def test_another_process_serves_what_one_created(settings: Settings, tmp_path: Path) -> None:
    async with Engine(settings, plugins=[echo, choir]) as one:
        await create(one, "mine", adapter(tmp_path / "high", "soprano"))
    async with Engine(settings, plugins=[echo, choir]) as two:
        assert await complete(two, "mine") == "soprano: la"


async def test_a_request_that_is_about_to_begin_finds_the_adapter_it_was_promised(
    engine: Engine, tmp_path: Path
) -> None:
    await create(engine, "mine", adapter(tmp_path / "high", "soprano"))
    await create(engine, "other", adapter(tmp_path / "low", "bass"))
    (session,) = SESSIONS
    stream = await engine.completions.stream(parse_completion(model="mine", prompt="la", temperature=0))
    await engine.models.delete("mine")
    assert "".join([chunk.text async for chunk in stream]) == "soprano: la"
    await becomes(lambda: list(session.voices.values()) == ["bass"])


async def test_one_that_the_engine_refuses_fails_with_its_reason_and_alone(
    engine: Engine, tmp_path: Path
) -> None:
    await create(engine, "high", adapter(tmp_path / "high", "soprano"))
    stranger = adapter(tmp_path / "stranger", "tenor", base="acme/other-7b")
    assert await create(engine, "stranger", stranger) is ModelStatus.UPDATE_FAILED
    record = await engine.models.get("stranger")
    assert record.reason == f"{stranger} doesn't fit this model: it has other shapes"
    assert any("'acme/other-7b'" in note for note in record.plan.notes)
    with pytest.raises(BadRequestError, match="other shapes"):
        await complete(engine, "stranger")
    assert await complete(engine, "high") == "soprano: la"
    await engine.models.update("high", {"checkpoint_path": str(stranger)})
    assert (await engine.models.wait("high")).status is ModelStatus.UPDATE_FAILED
    assert await complete(engine, "high") == "soprano: la"
    assert len(SESSIONS) == 1


async def test_a_new_replica_has_them_again_and_one_that_is_gone_fails_alone(
    engine: Engine, tmp_path: Path
) -> None:
    for name, voice in {"high": "soprano", "low": "bass"}.items():
        await create(engine, name, adapter(tmp_path / name, voice))
    (tmp_path / "low" / "voice").unlink()
    SESSIONS[0].lost = True
    assert await complete(engine, "high") == "soprano: la"
    assert list(SESSIONS[-1].voices.values()) == ["soprano"]
    with pytest.raises(BadRequestError, match=r"there is no .*voice"):
        await complete(engine, "low")
    (tmp_path / "low" / "voice").write_text("bass")
    assert await complete(engine, "low") == "bass: la"


async def test_an_adapter_needs_a_base_that_is_known_and_a_backend_that_takes_it(
    engine: Engine, tmp_path: Path
) -> None:
    folder = adapter(tmp_path / "high", "soprano")
    with pytest.raises(
        ResolutionError, match=r"no base model is called 'quire', and the checkpoint_path is only an"
    ):
        await create(engine, "mine", folder, model="quire")
    with pytest.raises(ResolutionError, match=r"can't do adapters while it runs \(they are loaded by choir"):
        await create(engine, "mine", folder, model="echo", inference_framework="echo")


async def test_c13_an_engine_that_turns_out_to_take_none_refuses_the_request(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create(engine, "mine", adapter(tmp_path / "high", "soprano"))
    pool = (await engine._serving.serve("mine", "root")).pool
    monkeypatch.setattr(pool, "_facts", echo.EchoSession().facts)
    with pytest.raises(UnsupportedFeatureError, match="an adapter; choir"):
        await complete(engine, "mine")
