"""The faulty double does to others what its schedule says, and nothing else."""

from __future__ import annotations

import asyncio
import math
from itertools import cycle
from pathlib import Path

import pytest

from llmengine_core.arguments.completion import parse_completion
from llmengine_core.engine import Engine
from llmengine_core.errors import LLMEngineError, ServerError
from llmengine_core.interfaces.backend import SessionLost
from llmengine_core.settings import Settings
from llmengine_core.testing import echo, faulty
from llmengine_core.testing.answers import ask, request
from llmengine_core.testing.echo import EchoSession
from llmengine_core.testing.faulty import Fault, FaultKind, FaultySession
from llmengine_core.testing.streams import checked
from llmengine_core.types.generation import Text

ONE_TWO = "one two"


async def heard(session: FaultySession) -> list[str]:
    """The texts of one answer, checked, and at last what went wrong with it."""
    texts = []
    try:
        async for chunk in checked(session.generate(request(ONE_TWO))):
            texts.append(chunk.text)  # noqa: PERF401 - what came before an error stays
    except (LLMEngineError, AssertionError) as error:
        texts.append(type(error).__name__)
    return texts


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        (Fault("error"), ["ServerError"]),
        (Fault("error", after=1), ["one", "ServerError"]),
        (Fault("error", after=2, error=SessionLost("gone")), ["one", " two", "SessionLost"]),
        (Fault("cut"), ["AssertionError"]),
        (Fault("cut", after=2), ["one", " two", "AssertionError"]),
        (Fault("delay", after=1, seconds=0.001), ["one", " two", ""]),
        (None, ["one", " two", ""]),
    ],
)
async def test_a_fault_comes_after_so_many_chunks(fault: Fault | None, seen: list[str]) -> None:
    session = FaultySession(EchoSession(), [fault])
    assert await heard(session) == seen
    assert await heard(session) == ["one", " two", ""]


@pytest.mark.parametrize("kind", ["two_ends", "more_after_end", "no_usage", "no_reason"])
async def test_wrong_ends_are_seen_by_the_check_of_streams(kind: FaultKind) -> None:
    assert (await heard(FaultySession(EchoSession(), [Fault(kind)])))[-1] == "AssertionError"


async def test_a_lost_session_stays_lost() -> None:
    session = FaultySession(EchoSession(), [None, Fault("lost", after=1)])
    assert (await ask(session, ONE_TWO)).text == ONE_TWO
    assert await heard(session) == ["one", "SessionLost"]
    assert await heard(session) == ["SessionLost"]
    with pytest.raises(SessionLost):
        await session.count_tokens(Text("one"))


async def test_an_endless_delay_ends_with_its_reader() -> None:
    session = FaultySession(EchoSession(), cycle([Fault("delay", after=1, seconds=math.inf)]))
    reader = asyncio.ensure_future(ask(session, ONE_TWO))
    await asyncio.sleep(0)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader


async def test_a_request_that_never_began_meets_no_fault() -> None:
    session = FaultySession(EchoSession(), [Fault("error")])
    await session.generate(request(ONE_TWO)).aclose()
    with pytest.raises(ServerError):
        await ask(session, ONE_TWO)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


async def test_a_plugin_puts_faults_in_the_place_of_another(settings: Settings) -> None:
    bad = (Fault("error", after=1), Fault("cut", after=1), Fault("no_usage"), Fault("no_reason"))
    good = (Fault("delay", seconds=0.001), Fault("two_ends"), Fault("more_after_end"), None)
    asked = parse_completion(model="echo", prompt=ONE_TWO)
    async with Engine(settings, plugins=[faulty.plugin(echo, [*bad, *good])]) as engine:
        assert engine.registry.backends["echo"].capabilities == echo.CAPABILITIES
        for fault in bad:
            with pytest.raises(ServerError, match=r"fault was injected|broke off"):
                raise AssertionError(f"{fault}: {await engine.completions.create(asked)}")
        for _ in good:
            assert (await engine.completions.create(asked)).text == ONE_TWO
