"""Models whose engine has an environment of its own: what becomes of them when it goes, and comes back."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests import motor
from tests.motor import put_environment

from llmengine_core.arguments.completion import parse_completion
from llmengine_core.arguments.model import parse_model
from llmengine_core.engine import Engine
from llmengine_core.errors import ServerError, UnsupportedFeatureError
from llmengine_core.settings import Settings
from llmengine_core.types.models import ModelStatus


@pytest.fixture
async def engine(settings: Settings) -> AsyncIterator[Engine]:
    async with Engine(settings, plugins=[motor]) as engine:
        yield engine


async def built(settings: Settings, name: str, *beside: str) -> None:
    await asyncio.to_thread(put_environment, settings.home, name, "2.0", *beside)


async def removed(settings: Settings, name: str) -> None:
    await asyncio.to_thread(shutil.rmtree, settings.home / "environments" / name)


async def created(engine: Engine) -> None:
    spec = parse_model(
        name="mine",
        model="block",
        inference_framework="motor",
        inference_framework_image_tag="latest",
    )
    await engine.models.create(spec)
    assert (await engine.models.wait("mine")).status is ModelStatus.READY


async def complete(engine: Engine, **arguments: Any) -> str:
    asked = parse_completion(model="mine", prompt="a b", temperature=0, **arguments)
    return (await engine.completions.create(asked)).text


async def test_a_constraint_is_refused_with_what_brings_a_masker(engine: Engine, settings: Settings) -> None:
    await built(settings, "motor-2.0")
    await created(engine)
    assert await complete(engine) == "a b"
    refusal = "enforces guided_choice by a masker beside it, and none is in its environment"
    with pytest.raises(UnsupportedFeatureError, match=refusal) as caught:
        await complete(engine, guided_choice=["a b"])
    assert "Mend: llmengine engines install motor" in caught.value.message


async def test_a_constraint_is_taken_where_a_masker_is_beside_the_engine(
    engine: Engine, settings: Settings
) -> None:
    await built(settings, "motor-2.0", "judge")
    await created(engine)
    assert await complete(engine, guided_choice=["a b"]) == "a b"


async def test_a_model_outlives_its_environment_where_an_equal_one_is_built(
    engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmengine_core.services.serving.FRESH_SECONDS", 0.0)
    await built(settings, "motor-a")
    await created(engine)
    await removed(settings, "motor-a")
    with pytest.raises(ServerError, match=r"the environment of 'mine' is gone") as caught:
        await complete(engine)
    assert "Mend: llmengine engines install motor --version 2.0" in caught.value.message
    await built(settings, "motor-b")
    assert await complete(engine) == "a b"


async def test_a_replica_that_runs_goes_on_without_its_environment(
    engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmengine_core.services.serving.FRESH_SECONDS", 0.0)
    await built(settings, "motor-a")
    await created(engine)
    assert await complete(engine) == "a b"
    await removed(settings, "motor-a")
    assert await complete(engine) == "a b"
