"""The scripted double does what it is told, and otherwise echoes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from llmengine_core.errors import BadRequestError
from llmengine_core.testing.answers import ask, request
from llmengine_core.testing.scripted import CLOSED, FOREVER, SCRIPTS, ScriptedSession, Wait, answer
from llmengine_core.testing.streams import checked
from llmengine_core.types.generation import GenerationChunk


@pytest.fixture(autouse=True)
def no_scripts() -> Iterator[None]:
    yield
    SCRIPTS.clear()
    CLOSED.clear()


async def test_an_answer_is_sound() -> None:
    session = ScriptedSession({"a": answer("one", " two"), "b": answer("one", finish_reason="length")})
    whole = await ask(session, "a")
    assert (whole.text, whole.finish_reason, whole.usage.completion_tokens) == ("one two", "stop", 3)
    assert [chunk.text async for chunk in checked(session.generate(request("b")))] == ["one", ""]


async def test_what_has_no_script_is_echoed() -> None:
    SCRIPTS["a"] = answer("one")
    session = ScriptedSession()
    assert [(await ask(session, prompt)).text for prompt in ("a", "b c")] == ["one", "b c"]
    assert (await ask(ScriptedSession({}), "a")).text == "a"


async def test_errors_come_where_the_script_has_them() -> None:
    session = ScriptedSession({"a": [GenerationChunk("one"), Wait(0.001), BadRequestError("too much")]})
    stream = session.generate(request("a"))
    assert (await anext(stream)).text == "one"
    with pytest.raises(BadRequestError, match="too much"):
        await anext(stream)
    assert CLOSED["a"].is_set()


async def test_a_wait_ends_with_its_stream_and_with_its_session() -> None:
    session = ScriptedSession({"a": [GenerationChunk("one"), FOREVER]})
    stream = session.generate(request("a"))
    await anext(stream)
    await stream.aclose()
    assert CLOSED["a"].is_set()
    other = asyncio.ensure_future(ask(session, "a"))
    await asyncio.sleep(0)
    await session.aclose()
    assert (await other).finish_reason == "cancelled"
