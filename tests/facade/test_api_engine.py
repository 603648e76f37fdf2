"""Where calls go, and in whose name."""

from __future__ import annotations

import asyncio
import io
import threading
from pathlib import Path

import pytest

import llmengine
from llmengine import Completion, File, Model, api_engine
from llmengine.errors import BadRequestError, NotFoundError
from llmengine_core import home
from llmengine_core.engine import Engine
from llmengine_core.settings import Settings
from llmengine_core.testing import scripted


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of an engine besides the default one."""
    return Settings(home=tmp_path)


def test_the_caller_is_root_unless_the_environment_or_the_program_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert api_engine.get_api_key() == "root"
    monkeypatch.setenv("SCALE_API_KEY", "")
    assert api_engine.get_api_key() == "root"
    monkeypatch.setenv("SCALE_API_KEY", "alice")
    assert api_engine.get_api_key() == "alice"
    Completion.set_api_key("bob")
    assert api_engine.get_api_key() == "bob"
    api_engine.set_api_key(None)
    assert api_engine.get_api_key() == "alice"


@pytest.mark.parametrize("key", ["", 5, b"key", "\ud800"])
def test_a_key_is_a_text(key: str) -> None:
    with pytest.raises(BadRequestError, match="api_key"):
        api_engine.set_api_key(key)


def test_m09_files_and_private_models_are_their_owners(engine: Engine) -> None:
    api_engine.set_api_key("alice")
    file_id = File.upload(io.BytesIO(b"a")).id
    Model.create("alices", "scripted", "latest", inference_framework="scripted", public_inference=False)
    assert Completion.create("alices", "hello").output.text == "hello"
    api_engine.set_api_key("bob")
    for call in (
        lambda: File.get(file_id),
        lambda: Model.get("alices"),
        lambda: Completion.create("alices", "hello"),
    ):
        with pytest.raises(NotFoundError):
            call()
    assert file_id not in File.list().json()


def test_an_engine_that_was_chosen_goes_before_a_server(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_ENGINE_BASE_PATH", "http://llm.example:5000")
    assert Completion.create("scripted", "hello").output.text == "hello"


async def test_use_is_for_this_task_and_its_children_only(engine: Engine, settings: Settings) -> None:
    async with Engine(settings, plugins=[scripted]) as other:
        with llmengine.use(other):
            assert home.current() is other
            assert await asyncio.create_task(current()) is other
            in_thread: list[Engine] = []
            thread = threading.Thread(target=lambda: in_thread.append(home.current()))
            thread.start()
            await asyncio.to_thread(thread.join)
            assert in_thread == [engine]
            assert (await Completion.acreate("scripted", "in use")).output.text == "in use"
        assert home.current() is engine


async def current() -> Engine:
    return home.current()


async def test_a_blocking_call_on_the_engines_own_loop_is_refused_at_once(settings: Settings) -> None:
    async with Engine(settings, plugins=[scripted]) as own:
        with llmengine.use(own):
            with pytest.raises(BadRequestError, match=r"await Completion\.acreate there"):
                Completion.create("scripted", "hello")
            with pytest.raises(
                BadRequestError, match=r"await Completion\.acreate\(\.\.\., stream=True\) there"
            ):
                Completion.create("scripted", "hello", stream=True)
            with pytest.raises(BadRequestError, match=r"await engine\.models\.list there"):
                Model.list()


def test_the_original_clients_version_check_is_accepted_and_does_nothing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_ENGINE_DISABLE_VERSION_CHECK", "true")
    assert Completion.create("scripted", "hello").output.text == "hello"


def test_m09_the_callers_name_tells_keys_apart_and_gives_none_away() -> None:
    names = set()
    for key in ("sk-one", "sk-two"):
        api_engine.set_api_key(key)
        names.add(api_engine.get_caller())
        assert key not in api_engine.get_caller()
        assert api_engine.get_caller() == api_engine.get_caller()
    assert len(names) == 2
    api_engine.set_api_key(None)
