"""Models whose checkpoints lie on web servers (M04)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from tests.archive_files import packed
from tests.servers.web import Web, redirect, web
from tests.services.test_models import ECHO_WEIGHTS, complete, spec

from llmengine_core.engine import Engine
from llmengine_core.errors import BadRequestError, ResolutionError
from llmengine_core.explanation import explain
from llmengine_core.records import to_json
from llmengine_core.settings import Settings
from llmengine_core.testing import echo


@pytest.fixture
async def server() -> AsyncIterator[Web]:
    async with web({"/dir/echo.gguf": ECHO_WEIGHTS.read_bytes()}) as server:
        yield server


@pytest.fixture
async def engine(settings: Settings) -> AsyncIterator[Engine]:
    allowed = settings.model_copy(update={"private_hosts": ("127.0.0.1",)})
    async with Engine(allowed, plugins=[echo]) as engine:
        yield engine


async def test_m04_a_model_by_url_is_fetched_and_answers(engine: Engine, server: Web) -> None:
    url = server.url("/dir/echo.gguf?token=s/3cret", "127.0.0.1")
    await engine.models.create(spec(checkpoint_path=url))
    assert (await engine.models.wait("mine")).reason is None
    assert await complete(engine, "mine") == "a b"
    assert {each.path for each in server.asked} == {"/dir/echo.gguf?token=s/3cret"}


async def test_m04_no_plan_tells_what_grants_access(engine: Engine, server: Web) -> None:
    url = server.url("/dir/echo.gguf?token=s/3cret", "127.0.0.1")
    plan = await engine.models.explain(spec(checkpoint_path=url))
    assert any("fetched from" in note for note in plan.notes)
    assert plan.asked["checkpoint_path"] == url.partition("?")[0]
    assert "3cret" not in explain(plan) + "".join(plan.notes)
    with pytest.raises(ResolutionError, match=r"dir/echo\.gguf") as refused:
        await engine.models.create(spec(checkpoint_path=url, quantize="awq"))
    assert "3cret" not in str(refused.value)


async def test_m09_what_grants_access_is_shown_to_a_models_owner_only(engine: Engine, server: Web) -> None:
    url = server.url("/dir/echo.gguf?token=s/3cret", "127.0.0.1")
    hook = "https://93.184.216.34/hook?key=s/3cret"
    mine = spec(checkpoint_path=url, default_callback_url=hook)
    await engine.models.create(mine, caller="me")
    own = await engine.models.wait("mine", caller="me")
    assert (own.spec.checkpoint_path, own.plan.checkpoint.url) == (url, url)
    await engine.models.update("mine", {"labels": {"a": "b"}}, caller="me")
    others = [await engine.models.get("mine", caller="you"), *await engine.models.list(caller="you")]
    assert any(each.spec.name == "mine" and each.spec.default_callback_url for each in others[1:])
    assert "3cret" not in json.dumps([to_json(each) for each in others])
    assert others[0].spec.checkpoint_path == url.partition("?")[0]
    assert (await engine.models.get("mine", caller="me")).spec.checkpoint_path == url


@pytest.mark.parametrize("name", ["...tar", "..tar", ".tar"])
async def test_m04_an_archive_is_unpacked_whatever_it_is_called(
    engine: Engine, server: Web, name: str
) -> None:
    server.files[f"/dir/{name}"] = packed({"m/echo.gguf": ECHO_WEIGHTS.read_bytes()})
    await engine.models.create(spec(checkpoint_path=server.url(f"/dir/{name}", "127.0.0.1")))
    assert (await engine.models.wait("mine")).reason is None
    assert await complete(engine, "mine") == "a b"


async def test_m04_a_redirect_of_a_checkpoint_to_inside_is_refused(engine: Engine, server: Web) -> None:
    server.files["/dir/echo.gguf"] = redirect("http://169.254.169.254/latest/meta-data")
    with pytest.raises(BadRequestError, match=r"169\.254\.169\.254.*LLMENGINE_PRIVATE_HOSTS"):
        await engine.models.create(spec(checkpoint_path=server.url("/dir/echo.gguf", "127.0.0.1")))


async def test_m04_a_checkpoint_inside_is_refused_unless_the_settings_let_it(
    settings: Settings, server: Web
) -> None:
    async with Engine(settings, plugins=[echo]) as engine:
        with pytest.raises(BadRequestError, match=r"leads to 127\.0\.0\.1.*LLMENGINE_PRIVATE_HOSTS"):
            await engine.models.create(spec(checkpoint_path=server.url("/dir/echo.gguf", "127.0.0.1")))
    assert server.asked == []
