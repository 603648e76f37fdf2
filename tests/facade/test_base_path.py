"""Calls for a server: refused until there is a way to it, and never run in this process."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llmengine import Completion, File, Model, api_engine
from llmengine.errors import BadRequestError, UnsupportedFeatureError
from llmengine_core import home
from llmengine_core.engine import Engine

SERVER = "http://llm.example:5000"


@pytest.fixture(params=["environment", "function"], autouse=True)
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls should go to the server, and the home engine must not be asked for."""

    def no_engine() -> Engine:
        raise AssertionError("the home engine was asked for")

    monkeypatch.setattr(home, "current", no_engine)
    if request.param == "environment":
        monkeypatch.setenv("LLM_ENGINE_BASE_PATH", SERVER)
    else:
        Model.set_base_path(SERVER)


@pytest.mark.parametrize(
    "call",
    [
        lambda: Completion.create("a", "b"),
        lambda: Completion.create("a", "b", stream=True),
        lambda: Model.create("a", "b", "latest"),
        lambda: Model.list(),
        lambda: File.get("file-1"),
    ],
)
def test_a_call_is_refused(call: Callable[[], object]) -> None:
    assert api_engine.get_base_path() == SERVER
    with pytest.raises(UnsupportedFeatureError, match=SERVER) as caught:
        call()
    assert "set_base_path(None)" in caught.value.message


async def test_an_awaited_call_is_refused() -> None:
    with pytest.raises(UnsupportedFeatureError, match=SERVER):
        await Completion.acreate("a", "b")


@pytest.mark.parametrize("path", ["", "llm.example", "ftp://llm.example", 5])
def test_a_base_path_is_an_http_url(path: str) -> None:
    with pytest.raises(BadRequestError, match="base_path"):
        api_engine.set_base_path(path)
