"""Two hundred requests at once, from threads and from tasks: each caller gets its own answer (C14)."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.e2e.facade import MODEL, SLOTS, engine_answers_on_every_slot
from tests.e2e.procfs import engines_of
from tests.e2e.program import Program, install

from llmengine import Completion, CompletionSyncResponse, errors

REQUESTS = 200


def choice(number: int) -> str:
    """What only the request of that number may be answered with."""
    return f"{number:03}"


def asked_by_a_thread(number: int) -> CompletionSyncResponse | str:
    try:
        if number % 10 == 0:
            return Completion.create(f"no-{choice(number)}", "Say")
        return Completion.create(MODEL, "Say", 8, 0.0, guided_choice=[choice(number)])
    except errors.NotFoundError as error:
        return str(error)


async def asked_by_a_task(number: int) -> CompletionSyncResponse | str:
    try:
        if number % 10 == 0:
            return await Completion.acreate(f"no-{choice(number)}", "Say")
        return await Completion.acreate(MODEL, "Say", 8, 0.0, guided_choice=[choice(number)])
    except errors.NotFoundError as error:
        return str(error)


async def asked_by_tasks(numbers: range) -> list[CompletionSyncResponse | str]:
    return await asyncio.gather(*map(asked_by_a_task, numbers))


@pytest.mark.engine
def test_c14_threads_and_tasks_at_once_on_one_engine(own_home: Path) -> None:
    half = REQUESTS // 2
    with ThreadPoolExecutor(half) as threads, ThreadPoolExecutor(1) as loop:
        from_tasks = loop.submit(asyncio.run, asked_by_tasks(range(half, REQUESTS)))
        answers = [*threads.map(asked_by_a_thread, range(half)), *from_tasks.result()]
    request_ids = set()
    for number, answer in enumerate(answers):
        if isinstance(answer, str):
            assert number % 10 == 0
            assert f"no model 'no-{choice(number)}'" in answer
        else:
            assert answer.output.text == choice(number)
            assert answer.output.num_prompt_tokens == 1
            assert answer.output.num_completion_tokens in (3, 4)
            request_ids.add(answer.request_id)
    assert len(request_ids) == REQUESTS * 9 // 10
    assert len(engines_of(own_home)) == 1
    engine_answers_on_every_slot(slots=SLOTS)


ECHO = """
import asyncio
from concurrent.futures import ThreadPoolExecutor
def prompt(number):
    return f"caller {number} says {number} and nothing else " * (1 + number % 7) + "."
def expected(number):
    return [prompt(number)] * 2
def thread(number):
    together.wait()
    whole = ask(prompt(number), "echo", max_new_tokens=100).output.text
    pieces = [each.output.text for each in stream(prompt(number), "echo", max_new_tokens=100)]
    return [whole, "".join(pieces)]
async def task(number):
    whole = await Completion.acreate("echo", prompt(number), 100)
    pieces = [e.output.text async for e in await Completion.acreate("echo", prompt(number), 100, stream=True)]
    return [whole.output.text, "".join(pieces)]
async def tasks(numbers):
    return await asyncio.gather(*map(task, numbers))
numbers = range(int(sys.argv[1]))
together = threading.Barrier(len(numbers))
for _ in range(3):
    with ThreadPoolExecutor(len(numbers)) as threads:
        assert list(threads.map(thread, numbers)) == list(map(expected, numbers))
    assert asyncio.run(tasks(numbers)) == list(map(expected, numbers))
say("done")
"""


def test_c14_two_hundred_threads_then_two_hundred_tasks(program: Program, tmp_path: Path) -> None:
    install(tmp_path / "site", "echo", module="llmengine_core.testing.echo")
    program = Program(program.home, {"PYTHONPATH": str(tmp_path / "site")})
    assert program.run(ECHO, str(REQUESTS)) == [["done"]]
