"""Programs that end, or are ended, while engines run: at once, quietly, and with nothing left behind."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path

import pytest
from tests.e2e.procfs import engines_of, processes_of, until, working
from tests.e2e.program import Program, Running

pytestmark = pytest.mark.engine

SYNC = """
open_stream = stream()
next(open_stream)
"""
ASYNC = """
import asyncio
async def main():
    global open_stream
    open_stream = await Completion.acreate(MODEL, "Once upon a time", 2000, 0.0, stream=True)
    await anext(open_stream)
asyncio.run(main())
"""
ASYNC_TASK = """
import asyncio
async def read(begun):
    async for chunk in await Completion.acreate(MODEL, "Once upon a time", 2000, 0.0, stream=True):
        begun.set()
async def main():
    begun = asyncio.Event()
    task = asyncio.create_task(read(begun))
    await begun.wait()
asyncio.run(main())
"""
DAEMON_THREADS = """
begun = threading.Event()
def read():
    for chunk in stream():
        begun.set()
for _ in range(8):  # more than run at once: some wait for their turn
    threading.Thread(target=read, daemon=True).start()
begun.wait()
"""


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(SYNC, id="sync"),
        pytest.param(ASYNC, id="async"),
        pytest.param(ASYNC_TASK, id="task"),
        pytest.param(DAEMON_THREADS, id="daemon threads"),
    ],
)
def test_c10_a_program_that_leaves_a_stream_open_ends_at_once_and_quietly(
    program: Program, home: Path, code: str
) -> None:
    with program.start(code + "say('end')") as running:
        assert running.hear() == ["end"]
        began = time.monotonic()
        assert running.end() == 0
        assert time.monotonic() - began < 3
        assert running.stderr() == ""
        until(lambda: not processes_of(home), 5, "the engine is gone")


def test_an_engine_that_ends_before_the_interpreter_is_not_spoken_of(program: Program, home: Path) -> None:
    before = """
import atexit
@atexit.register
def last():  # runs after what llmengine registers
    say("leaving")
    heard()
"""
    with program.start("ask()", before=before) as running:
        assert running.hear() == ["leaving"]
        until(lambda: processes_of(home) == {running.pid}, 5, "the engine is gone")
        running.tell()
        assert running.end() == 0
        assert running.stderr() == ""


def test_threads_that_nobody_waits_for_are_answered_after_the_main_one(program: Program) -> None:
    said = program.run(
        """
begun = threading.Event()
def read():
    chunks = []
    for chunk in stream(max_new_tokens=40):
        begun.set()
        chunks.append(chunk)
    say(len(chunks), chunks[-1].output.finished, chunks[-1].output.num_completion_tokens)
def answer():
    threading.main_thread().join()
    say(ask(guided_choice=["Rome"]).output.text)
for work in (read, answer):
    threading.Thread(target=work).start()
begun.wait()
"""
    )
    streamed, answered = sorted(said, key=len, reverse=True)
    assert streamed[0] > 30
    assert streamed[1:] == [True, 40]
    assert answered == ["Rome"]


def test_a_thread_may_be_the_first_to_call_after_the_main_one(program: Program) -> None:
    code = """
def first():
    threading.main_thread().join()
    say(len(Model.list().model_endpoints))
threading.Thread(target=first).start()
"""
    assert program.run(code) == [[1]]


IDLE = "ask(); say('there'); heard()"
STREAMING = "streams = [stream() for _ in range(4)]; [next(each) for each in streams]; say('there'); heard()"


@pytest.mark.parametrize("code", [pytest.param(IDLE, id="idle"), pytest.param(STREAMING, id="streaming")])
def test_a_program_that_is_killed_leaves_no_process_and_no_socket(home: Path, code: str) -> None:
    with tempfile.TemporaryDirectory(prefix="x") as sockets:
        with Program(home, {"XDG_RUNTIME_DIR": sockets}).start(code) as running:
            assert running.hear() == ["there"]
            assert engines_of(home)
            assert list(Path(sockets).rglob("*.sock"))
            os.kill(running.pid, signal.SIGKILL)
            until(lambda: not processes_of(home), 5, "the engine is gone")
        assert not list(Path(sockets).rglob("*.sock"))


def test_a_program_that_is_killed_while_its_engine_loads_leaves_no_process(
    program: Program, home: Path
) -> None:
    code = """
from llmengine_core import home
home.on_progress(lambda news: news.phase == "load" and say("loading"))
ask()
"""
    with program.start(code) as running:
        assert running.hear() == ["loading"]
        os.kill(running.pid, signal.SIGKILL)
        until(lambda: not processes_of(home), 5, "the engine is gone")


INTERRUPTED = """
def interrupted(call):
    try:
        call()
    except KeyboardInterrupt:
        say(time.monotonic())
    else:
        say("not interrupted")
"""


def hear_the_interruption(running: Running) -> None:
    """Press Ctrl-C; it must get through at once."""
    pressed = time.monotonic()
    running.interrupt()
    (reached,) = running.hear()
    assert reached - pressed < 1


def test_c10_ctrl_c_ends_a_stream_at_once_and_the_engine_works_on(program: Program, home: Path) -> None:
    code = """
import asyncio
def read():
    for number, chunk in enumerate(stream()):
        if number == 0:
            say("streaming")
async def aread():
    begun = False
    async for chunk in await Completion.acreate(MODEL, "Once upon a time", 2000, 0.0, stream=True):
        begun = begun or say("streaming") is None
ask()
for _ in range(3):  # together more than there are slots
    interrupted(read)
    interrupted(lambda: asyncio.run(aread()))
say(ask().output.text)
heard()
"""
    with program.start(INTERRUPTED + code) as running:
        engines = set()
        for _ in range(6):
            assert running.hear() == ["streaming"]
            engines |= engines_of(home)
            hear_the_interruption(running)
        assert running.hear() == [" Paris.\n"]
        assert engines_of(home) == engines
        assert len(engines) == 1
        running.tell()
        assert (running.end(), running.stderr()) == (0, "")


def test_c10_ctrl_c_ends_a_call_at_once_cold_and_warm(program: Program, home: Path) -> None:
    code = """
from llmengine_core import home
home.on_progress(lambda news: news.phase == "load" and say("loading"))
interrupted(ask)
say(ask().output.text)
interrupted(lambda: (say("asking"), ask("Once upon a time", max_new_tokens=2000)))
heard()
say(ask().output.text)
"""
    with program.start(INTERRUPTED + code) as running:
        assert running.hear() == ["loading"]
        hear_the_interruption(running)
        assert running.hear() == [" Paris.\n"]
        (engine,) = engines_of(home)
        assert running.hear() == ["asking"]
        until(lambda: working(engine), 5, "it generates")
        hear_the_interruption(running)
        until(lambda: not working(engine), 2, "it has stopped generating")
        running.tell()
        assert running.hear() == [" Paris.\n"]
        assert (running.end(), running.stderr()) == (0, "")
