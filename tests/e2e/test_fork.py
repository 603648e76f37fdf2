"""Processes that are forked or spawned by a program that has used llmengine: each has an engine of its own."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from tests.e2e.procfs import alive, engines_of, processes_of, until
from tests.e2e.program import Program

pytestmark = pytest.mark.engine


@pytest.fixture
def program(home: Path) -> Program:
    """Programs that may fork although they have threads: newer Pythons warn of it."""
    return Program(home, {"PYTHONWARNINGS": "ignore:This process:DeprecationWarning"})


def test_a_forked_process_makes_its_own_engine_and_the_parents_goes_on(program: Program) -> None:
    code = """
say("parent", ask().output.text)
running = stream()
next(running)
child = os.fork()
if child == 0:
    say("child", ask().output.text)
    last = list(running)[-1]
    say("child", last.error.status_code, last.error.content.error)
    running.close()
    sys.exit(0)
say("child ended", os.waitpid(child, 0)[1])
say("parent", next(running).error, ask().output.text)
"""
    parent, child, inherited, ended, again = program.run(code)
    assert parent == ["parent", " Paris.\n"]
    assert child == ["child", parent[1]]
    assert inherited[:2] == ["child", 500]
    assert "opened by the process that this one was forked from" in inherited[2]
    assert ended == ["child ended", 0]
    assert again == ["parent", None, parent[1]]


def test_an_engine_that_was_chosen_before_the_fork_is_refused_after_it(program: Program) -> None:
    code = """
import llmengine
from llmengine_core import home
ask()
llmengine.set_default_engine(home.current())
child = os.fork()
if child == 0:
    try:
        ask()
    except errors.ServerError as error:
        say(str(error))
    llmengine.set_default_engine(None)
    say(ask().output.text)
    sys.exit(0)
os.waitpid(child, 0)
say(ask().output.text)
"""
    (refused,), *answered = program.run(code)
    assert "forked" in refused
    assert answered == [[" Paris.\n"]] * 2


def test_a_parent_that_is_killed_leaves_no_engine_although_a_forked_process_lives(
    program: Program, home: Path
) -> None:
    code = """
running = stream()
next(running)
child = os.fork()
if child == 0:
    heard()
    say("child", ask().output.text)
    heard()
    os._exit(0)
say(child)
heard()
"""
    with program.start(code) as running:
        (child,) = running.hear()
        (engine,) = engines_of(home)
        os.kill(running.pid, signal.SIGKILL)
        until(lambda: not alive(engine), 5, "the parent's engine is gone")
        until(lambda: processes_of(home) == {child}, 5, "only the forked process lives")
        running.tell()
        assert running.hear() == ["child", " Paris.\n"]
        os.kill(child, signal.SIGKILL)
        until(lambda: not processes_of(home), 5, "all are gone")
        assert running.stderr() == ""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing(program: Program, home: Path, method: str) -> None:
    code = """
import multiprocessing
def work(number):
    return os.getpid(), ask().output.text
if __name__ == "__main__":
    say(os.getpid(), ask().output.text)
    with multiprocessing.get_context(sys.argv[1]).Pool(1) as pool:
        for answer in pool.map(work, range(2), chunksize=1):
            say(*answer)
    say(os.getpid(), ask().output.text)
"""
    said = program.run(code, method)
    assert len(said) == 4
    assert {text for _, text in said} == {" Paris.\n"}
    assert len({pid for pid, _ in said}) == 2
    until(lambda: not processes_of(home), 5, "all are gone")
