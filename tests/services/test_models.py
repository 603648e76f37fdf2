"""Models in the store, and what becomes of them (M01 to M11)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import pytest

import llmengine_core.testing
from llmengine_core.arguments.completion import parse_completion
from llmengine_core.arguments.model import parse_model
from llmengine_core.engine import Engine
from llmengine_core.errors import BadRequestError, NotFoundError, ResolutionError, ServerError
from llmengine_core.interfaces.backend import Session
from llmengine_core.settings import Settings
from llmengine_core.testing import echo
from llmengine_core.testing.echo import EchoBackend, EchoSession
from llmengine_core.types.generation import GenerationChunk, GenerationRequest
from llmengine_core.types.launch import Deployment, Endpoint
from llmengine_core.types.models import ModelSpec, ModelStatus

ECHO_WEIGHTS = Path(llmengine_core.testing.__file__).with_name("echo.gguf")


def spec(name: str = "mine", **fields: object) -> ModelSpec:
    return parse_model(
        **{
            "name": name,
            "model": "echo",
            "inference_framework_image_tag": "latest",
            "inference_framework": "auto",
        }
        | fields
    )


async def complete(engine: Engine, model: str, caller: str = "root") -> str:
    arguments = parse_completion(model=model, prompt="a b", temperature=0)
    return (await engine.completions.create(arguments, caller=caller)).text


async def still_there(engine: Engine) -> bool:
    try:
        return bool(await complete(engine, "mine"))
    except NotFoundError:
        return False


async def test_m01_what_was_created_can_be_completed_with(engine: Engine) -> None:
    created = await engine.models.create(spec())
    assert created.status is ModelStatus.UPDATE_PENDING
    assert (await engine.models.wait("mine")).status is ModelStatus.READY
    assert await complete(engine, "mine") == "a b"


async def test_a_wait_ends_where_what_came_of_it_cant_be_noted(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await engine.models.create(spec())
    change, full = engine.models._catalog.change, ServerError("the disk is full")

    async def refuse(*arguments: object) -> None:
        raise full

    monkeypatch.setattr(engine.models._catalog, "change", refuse)
    async with asyncio.timeout(30):
        with pytest.raises(ServerError, match="the disk is full"):
            await engine.models.wait("mine")
    monkeypatch.setattr(engine.models._catalog, "change", change)
    assert (await engine.models.wait("mine")).status is ModelStatus.READY


async def test_m01_a_completion_waits_for_a_model_that_is_being_made(engine: Engine) -> None:
    await engine.models.create(spec())
    assert await complete(engine, "mine") == "a b"


async def test_m01_a_spec_that_nothing_can_serve_fails_at_once(engine: Engine, tmp_path: Path) -> None:
    weights = tmp_path / "poem.gguf"
    weights.write_text("Roses are red")
    with pytest.raises(ResolutionError) as caught:
        await engine.models.create(spec(checkpoint_path=str(weights)))
    assert caught.value.plan.candidates
    with pytest.raises(NotFoundError):
        await engine.models.get("mine")


async def test_m09_a_private_model_is_its_owners_only(engine: Engine) -> None:
    await engine.models.create(spec(public_inference=False), caller="me")
    assert await complete(engine, "mine", caller="me") == "a b"
    with pytest.raises(NotFoundError):
        await complete(engine, "mine", caller="you")
    with pytest.raises(NotFoundError):
        await engine.models.get("mine", caller="you")
    with pytest.raises(NotFoundError):
        await engine.models.delete("mine", caller="you")
    assert "mine" not in [record.spec.name for record in await engine.models.list(caller="you")]


async def test_m09_a_public_model_is_used_by_all_and_changed_by_its_owner(engine: Engine) -> None:
    await engine.models.create(spec(), caller="me")
    assert await complete(engine, "mine", caller="you") == "a b"
    for change in (
        engine.models.update("mine", {"per_worker": 3}, caller="you"),
        engine.models.delete("mine", caller="you"),
    ):
        with pytest.raises(BadRequestError, match="belongs to another caller"):
            await change


async def test_m10_names(engine: Engine) -> None:
    await engine.models.create(spec())
    with pytest.raises(BadRequestError, match="exists"):
        await engine.models.create(spec())
    with pytest.raises(BadRequestError, match="base model"):
        await engine.models.create(spec("echo"))
    with pytest.raises(BadRequestError, match="base model"):
        await engine.models.delete("echo")
    for missing in (
        engine.models.get("none"),
        engine.models.update("none", {}),
        engine.models.delete("none"),
        complete(engine, "none"),
        complete(engine, "\x00" * 600),
    ):
        with pytest.raises(NotFoundError, match="there is no model"):
            await missing
    with pytest.raises(ResolutionError, match="no base model is called 'ecko'"):
        await engine.models.create(spec("other", model="ecko"))


async def test_m10_two_that_create_one_name_at_once(settings: Settings) -> None:
    async with Engine(settings, plugins=[echo]) as one, Engine(settings, plugins=[echo]) as two:
        attempts = [engine.models.create(spec()) for engine in (one, two) for _ in range(5)]
        results = await asyncio.gather(*attempts, return_exceptions=True)
        assert sum(not isinstance(result, BaseException) for result in results) == 1
        assert all(isinstance(r, BadRequestError) for r in results if isinstance(r, BaseException))
        assert await complete(two, "mine") == await complete(one, "mine") == "a b"


async def test_m10_an_update_is_validated_after_merging_and_takes_effect(engine: Engine) -> None:
    await engine.models.create(spec())
    await engine.models.wait("mine")
    with pytest.raises(BadRequestError, match="max_workers"):
        await engine.models.update("mine", {"max_workers": 3})
    await engine.models.update("mine", {"min_workers": 1, "max_workers": 3, "labels": {"team": "a"}})
    record = await engine.models.wait("mine")
    assert (record.status, record.spec.max_workers, record.spec.labels) == (
        ModelStatus.READY,
        3,
        {"team": "a"},
    )
    assert (await engine._serving.serve("mine", "root")).pool.bounds.max_workers == 3


async def test_m10_an_update_that_fails_leaves_the_old_model_serving(engine: Engine, tmp_path: Path) -> None:
    weights = tmp_path / "copy.gguf"
    weights.write_bytes(ECHO_WEIGHTS.read_bytes())
    await engine.models.create(spec())
    await engine.models.wait("mine")
    record = await engine.models.update("mine", {"checkpoint_path": str(weights)})
    weights.unlink()  # before it is carried out
    failed = await engine.models.wait("mine")
    assert failed.status is ModelStatus.UPDATE_FAILED
    assert "are gone" in (failed.reason or "")
    assert failed.spec == replace(record.spec, checkpoint_path=None)
    assert await complete(engine, "mine") == "a b"


async def test_m10_what_was_deleted_is_gone_for_every_process(settings: Settings) -> None:
    async with Engine(settings, plugins=[echo]) as one, Engine(settings, plugins=[echo]) as two:
        await one.models.create(spec())
        assert await complete(two, "mine") == "a b"
        assert await one.models.delete("mine")
        with pytest.raises(NotFoundError):
            await two.models.get("mine")
        async with asyncio.timeout(10):  # a process may take a model to be unchanged for a second
            while await still_there(two):
                pass
        await one.models.create(spec())


async def test_what_a_dead_process_began_is_carried_on_by_whoever_needs_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Engine(settings, plugins=[echo]) as one:
        monkeypatch.setattr(one._serving, "make_ready", lambda name: None)
        await one.models.create(spec())
    async with Engine(settings, plugins=[echo]) as two:
        assert (await two.models.get("mine")).status is ModelStatus.UPDATE_PENDING
        assert await complete(two, "mine") == "a b"
        assert (await two.models.get("mine")).status is ModelStatus.READY


async def test_m11_list_gives_base_models_and_ones_own(engine: Engine) -> None:
    await engine.models.create(spec("b"))
    await engine.models.create(spec("a"))
    names = [record.spec.name for record in await engine.models.list()]
    assert names[-2:] == ["a", "b"]
    assert "echo" in names


async def test_m10_changes_that_come_one_upon_another_all_take_effect(engine: Engine) -> None:
    await engine.models.create(spec())
    changes: list[dict[str, object]] = [
        {"per_worker": 3},
        {"min_workers": 1},
        {"max_workers": 4},
        {"labels": {"a": "b"}},
    ]
    for change in changes:
        await engine.models.update("mine", change)
    record = await engine.models.wait("mine")
    assert record.status is ModelStatus.READY
    fields = (record.spec.per_worker, record.spec.min_workers, record.spec.max_workers, record.spec.labels)
    assert fields == (3, 1, 4, {"a": "b"})


async def test_m10_a_model_can_be_deleted_while_it_is_made(engine: Engine) -> None:
    for _ in range(5):
        await engine.models.create(spec())
        assert await engine.models.delete("mine")
        with pytest.raises(NotFoundError):
            await complete(engine, "mine")


async def test_m10_a_change_lets_the_requests_that_wait_finish(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = asyncio.Event()
    generate = EchoSession.generate

    async def gated(self: EchoSession, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        await gate.wait()
        async for chunk in generate(self, request):
            yield chunk

    monkeypatch.setattr(EchoSession, "generate", gated)
    await engine.models.create(spec(per_worker=1))
    await engine.models.wait("mine")
    answers = [asyncio.create_task(complete(engine, "mine")) for _ in range(4)]
    pool = (await engine._serving.serve("mine", "root")).pool
    async with asyncio.timeout(10):
        while pool.queued < 3:  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0)
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(ECHO_WEIGHTS.read_bytes())
    await engine.models.update("mine", {"checkpoint_path": str(copy)})
    assert (await engine.models.wait("mine")).status is ModelStatus.READY
    assert (await engine._serving.serve("mine", "root")).pool is not pool
    gate.set()
    assert [await answer for answer in answers] == ["a b"] * 4


async def test_m10_a_change_is_tried_out_also_where_the_model_is_not_served_yet(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(ECHO_WEIGHTS.read_bytes())
    async with Engine(settings, plugins=[echo]) as one:
        await one.models.create(spec())
        await one.models.wait("mine")
    connect = EchoBackend.connect

    async def refuse(self: EchoBackend, endpoint: Endpoint, deployment: Deployment) -> Session:
        if deployment.weights == str(copy):
            raise ServerError("unknown architecture")
        return await connect(self, endpoint, deployment)

    monkeypatch.setattr(EchoBackend, "connect", refuse)
    async with Engine(settings, plugins=[echo]) as two:
        await two.models.update("mine", {"checkpoint_path": str(copy)})
        failed = await two.models.wait("mine")
        assert (failed.status, failed.reason) == (ModelStatus.UPDATE_FAILED, "unknown architecture")
        assert await complete(two, "mine") == "a b"


async def test_m10_what_was_deleted_while_it_was_looked_up_is_not_served(engine: Engine) -> None:
    await engine.models.create(spec(min_workers=1))
    await engine.models.wait("mine")
    await engine._serving.forget("mine")
    entering = asyncio.create_task(complete(engine, "mine"))
    await asyncio.sleep(0)
    await engine.models.delete("mine")
    await asyncio.gather(entering, return_exceptions=True)
    assert "mine" not in engine._serving._served
    assert not [key for key, pool in engine._serving._deployments.pools.items() if "mine" in pool.holders]


async def test_m10_failing_starts_are_noted_and_taken_back(engine: Engine) -> None:
    await engine.models.create(spec())
    await engine.models.wait("mine")
    await engine._serving._note_health("mine", ServerError("out of memory"))
    record = await engine.models.get("mine")
    assert (record.status, record.reason) == (ModelStatus.UPDATE_FAILED, "out of memory")
    await engine._serving._note_health("mine", None)
    record = await engine.models.get("mine")
    assert (record.status, record.reason) == (ModelStatus.READY, None)


INSIDE = "http://169.254.169.254/done"


async def test_m08_a_callback_leads_nowhere_private(engine: Engine) -> None:
    for url in (INSIDE, "http://localhost:80/", "http://127.1/", "https://user:s3cret@a.example/"):
        with pytest.raises(BadRequestError, match="default_callback_url") as caught:
            await engine.models.create(spec(default_callback_url=url))
        assert "s3cret" not in str(caught.value)
    await engine.models.create(spec(default_callback_url="https://a.example/done"))
    await engine.models.wait("mine")
    with pytest.raises(BadRequestError, match="LLMENGINE_PRIVATE_HOSTS"):
        await engine.models.update("mine", {"default_callback_url": INSIDE})
    record = await engine.models.get("mine")
    assert record.spec.default_callback_url == "https://a.example/done"
    assert record.status is ModelStatus.READY


async def test_m08_a_callback_leads_where_the_settings_let_it(settings: Settings) -> None:
    allowed = settings.model_copy(update={"private_hosts": ("localhost",)})
    async with Engine(allowed, plugins=[echo]) as engine:
        record = await engine.models.create(spec(default_callback_url="http://localhost:80/"))
        assert record.spec.default_callback_url == "http://localhost:80/"


async def test_objects_are_not_kept_where_they_can_only_be_read(settings: Settings) -> None:
    elsewhere = settings.model_copy(update={"storage_url": "https://a.example/objects?token=s3cret"})
    with pytest.raises(
        BadRequestError, match=r"storage_url='https://a\.example/objects': 'web' storages are only read"
    ):
        async with Engine(elsewhere, plugins=[echo]):
            pass
