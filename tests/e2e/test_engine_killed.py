"""The engine's process killed with -9, whatever it is doing: a clear end for what ran, all else goes on."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.e2e.facade import LONG, MODEL, SLOTS, answer, endless, engine_answers_on_every_slot, rest
from tests.e2e.procfs import cpu_seconds, engines_of, until
from tests.e2e.program import Program

from llmengine import Completion, CompletionStreamResponse

pytestmark = pytest.mark.engine


@pytest.fixture
def engine(own_home: Path) -> int:
    """The process id of an engine that stands ready."""
    assert answer() == " Paris.\n"
    (engine,) = engines_of(own_home)
    return engine


def kill(engine: int) -> None:
    os.kill(engine, signal.SIGKILL)


def is_a_lost_engine(response: CompletionStreamResponse) -> bool:
    """Whether it is the one that ends a stream whose engine was killed."""
    assert response.error is not None
    assert response.error.content.timestamp
    return (
        response.output is None
        and response.error.status_code == 500
        and "llama.cpp is gone" in response.error.content.error
        and "signal 9" in response.error.content.error
    )


def test_idle_the_next_call_is_answered_by_another(engine: int, own_home: Path) -> None:
    kill(engine)
    assert answer() == " Paris.\n"
    (another,) = engines_of(own_home)
    assert another != engine


def test_c09_a_stream_that_began_ends_with_an_error(engine: int) -> None:
    stream = endless()
    first = next(stream)
    kill(engine)
    last = rest(stream)
    assert is_a_lost_engine(last)
    assert last.request_id == first.request_id
    assert list(stream) == []
    engine_answers_on_every_slot()


def test_a_request_that_had_not_begun_is_answered_by_another(engine: int, own_home: Path) -> None:
    prompt = "The capital of Germany is Berlin. " * 40 + "The capital of France is"
    alone = answer(prompt)
    used = cpu_seconds(engine)
    with ThreadPoolExecutor() as threads:
        asked = threads.submit(answer, prompt)
        until(lambda: cpu_seconds(engine) > used + 0.2, 20, "it reads the prompt")
        kill(engine)
        assert asked.result() == alone
    assert engines_of(own_home) != {engine}


def test_under_load_what_began_ends_with_an_error_and_what_waited_is_answered(engine: int) -> None:
    begun = threading.Semaphore(0)

    def read() -> list[CompletionStreamResponse]:
        stream = Completion.create(MODEL, LONG, 60, 0.0, stream=True)
        first = next(stream)
        begun.release()
        return [first, *stream]

    with ThreadPoolExecutor(2 * SLOTS) as threads:
        asked = [threads.submit(read) for _ in range(2 * SLOTS)]
        for _ in range(SLOTS):
            begun.acquire()
        kill(engine)
        answers = [each.result() for each in asked]
    assert len({responses[0].request_id for responses in answers}) == 2 * SLOTS
    lasts = [responses[-1] for responses in answers]
    outputs = [last.output for last in lasts if last.output is not None]
    assert all(output.finished and output.num_completion_tokens == 60 for output in outputs)
    assert sum(is_a_lost_engine(last) for last in lasts if last.error is not None) == SLOTS
    assert len(outputs) == SLOTS
    engine_answers_on_every_slot()


def test_loading_the_call_fails_with_the_reason_and_a_later_one_is_answered(
    program: Program, home: Path
) -> None:
    code = """
from llmengine_core import home
home.on_progress(lambda news: news.phase == "load" and say("loading"))
try:
    ask()
except errors.ServerError as error:
    say(error.status_code, str(error))
heard()
while True:
    try:
        say(ask().output.text)
        break
    except errors.ServerError as error:  # too soon after the failure
        assert "next try" in str(error), error
        time.sleep(0.05)
"""
    with program.start(code) as running:
        assert running.hear() == ["loading"]
        (engine,) = engines_of(home)
        kill(engine)
        status, reason = running.hear()
        assert status == 500
        assert "the engine was killed (SIGKILL" in reason
        assert "before it was ready" in reason
        running.tell()
        assert running.hear() == ["loading"]
        assert running.hear() == [" Paris.\n"]
        assert (running.end(), running.stderr()) == (0, "")
