"""``llmengine transforms``."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from tests.cli.program import Installed, Program, Run, terminal
from tests.motor import put_environment

import llmengine_core.testing

ECHO = Path(llmengine_core.testing.__file__).with_name("echo.gguf")
WORKSHOP = """
import asyncio

from llmengine_core.errors import BadRequestError
from llmengine_core.hookspecs import hookimpl
from llmengine_core.interfaces.transform import Transform
from llmengine_core.types.declarations import EnvironmentBuild, EnvironmentSpec, TransformInfo
from llmengine_core.types.progress import Progress

CONTRACT = 1
MOTOR = EnvironmentSpec(
    distribution="motor",
    module="motor_is_nowhere",
    builds=(EnvironmentBuild(version="2.0", requirements=("motor==2.0",)),),
)


class Wrap(Transform):
    async def run(self, source, target, *, method, on_progress, python=""):
        on_progress(Progress(source.name, "transform", 0.5, 1.0))
        await asyncio.to_thread(self.wrap, source, target, f"{method} {python}")
        if method == "hang":
            print("begun", flush=True)
            await asyncio.sleep(3600)
        if method == "refuse":
            raise BadRequestError("it is not fit for this")

    def wrap(self, source, target, how):
        target.mkdir()
        (target / "content").write_bytes(source.read_bytes())
        (target / "how").write_text(how)


def info(name, **fields):
    given = {"factory": "workshop:Wrap", "source_format": "gguf", "target_format": "crate"}
    return TransformInfo(name=name, **{**given, **fields})


@hookimpl
def register_transforms():
    return [
        info("wrap"),
        info("wrap_motor", environment=MOTOR),
        info("wrap_one", methods=frozenset({"one"})),
        info("wrap_ways", methods=frozenset({"one", "hang", "refuse"})),
        info("wrap_llama", architectures=frozenset({"llama"})),
        info("wrap_tensors", source_format="safetensors"),
    ]
"""


@pytest.fixture(autouse=True)
def workshop(home: Path, installed: Installed) -> None:
    installed.add("workshop", "workshop", WORKSHOP)
    Path("echo.gguf").write_bytes(ECHO.read_bytes())


def left() -> list[str]:
    """What is in the folder besides the source."""
    return sorted(set(os.listdir()) - {"echo.gguf"})


def test_what_is_made_is_put_at_the_target_and_its_path_printed(run: Run) -> None:
    done = run("transforms", "run", "wrap", "echo.gguf", "crate/")
    assert (done.exit_code, done.stdout) == (0, f"{Path('crate').absolute()}\n")
    assert Path("crate/content").read_bytes() == ECHO.read_bytes()
    assert left() == ["crate"]
    answer = json.loads(
        run("transforms", "run", "wrap_one", "echo.gguf", "other", "--json", "--quiet").stdout
    )
    assert (answer["transform"], answer["method"]) == ("wrap_one", "one"), "there is one method only"
    assert (answer["source"], answer["target"]) == (
        str(Path("echo.gguf").absolute()),
        str(Path("other").absolute()),
    )
    assert answer["size"] == sum(path.stat().st_size for path in Path("other").iterdir())


def test_it_runs_in_the_environment_that_it_needs_or_says_what_brings_it(run: Run, home: Path) -> None:
    done = run("transforms", "run", "wrap_motor", "echo.gguf", "crate")
    assert done.exit_code == 1
    assert (
        "nothing here can run the transform 'wrap_motor'. Mend: llmengine engines install wrap_motor"
        in done.stderr
    )
    assert left() == []
    python = put_environment(home, "motor-2.0")
    assert run("transforms", "run", "wrap_motor", "echo.gguf", "crate").exit_code == 0
    assert Path("crate/how").read_text() == f"None {python}"


def test_they_are_listed_with_where_each_runs(run: Run, home: Path) -> None:
    def listed() -> dict[str, tuple[str | None, str | None]]:
        found = json.loads(run("transforms", "list", "--json").stdout)["transforms"]
        return {each["name"]: (each["environment"], each["mend"]) for each in found}

    assert listed()["wrap"] == ("", None)
    assert listed()["wrap_motor"] == (None, "llmengine engines install wrap_motor")
    put_environment(home, "motor-2.0")
    assert listed()["wrap_motor"] == ("motor-2.0", None)
    header, *rows = run("transforms", "list").stdout.splitlines()
    assert header.split() == ["NAME", "FROM", "TO", "METHODS", "RUNS", "IN"]
    assert ["wrap_ways", "gguf", "crate", "hang,", "one,", "refuse", "this", "environment"] in map(
        str.split, rows
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["fold", "echo.gguf", "crate"], 3, "no plugin registers a transform 'fold'; here are "),
        (["wrap", "missing.gguf", "crate"], 2, "missing.gguf"),
        (["wrap", "echo.gguf", "crate", "--method", "one"], 2, "wrap takes none: it converts"),
        (["wrap_ways", "echo.gguf", "crate"], 2, "choose with --method: hang, one, refuse"),
        (
            ["wrap_ways", "echo.gguf", "crate", "--method", "two"],
            2,
            "--method is 'two'; wrap_ways takes hang, one",
        ),
        (
            ["wrap_tensors", "echo.gguf", "crate"],
            2,
            "is in the format 'gguf'; wrap_tensors takes 'safetensors'",
        ),
        (["wrap_llama", "echo.gguf", "crate"], 2, "is of the architecture 'echo'; wrap_llama takes llama"),
        (["wrap", "echo.gguf", "no/where"], 2, "Mend: mkdir -p "),
        (["wrap", "echo.gguf", "echo.gguf"], 2, "lie in one another"),
        (["wrap", "echo.gguf", ".", "--force"], 2, "lie in one another"),
        (["wrap", "/dev/null", "crate"], 2, "is neither a file nor a folder"),
        (["wrap_ways", "echo.gguf", "crate", "--method", "refuse"], 2, "it is not fit for this"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_nothing(
    run: Run, arguments: list[str], code: int, message: str
) -> None:
    done = run("transforms", "run", *arguments)
    assert (done.exit_code, done.stdout) == (code, "")
    assert message in done.stderr
    assert left() == []


@pytest.mark.parametrize("folder", [True, False])
def test_what_is_there_is_replaced_only_where_that_is_forced(run: Run, folder: bool) -> None:
    target = Path("crate")
    if folder:
        target.mkdir()
        (target / "old").write_text("old")
    else:
        target.write_text("old")
    done = run("transforms", "run", "wrap", "echo.gguf", "crate")
    assert done.exit_code == 2
    assert "exists. Mend: name another target, or --force" in done.stderr
    failed = run("transforms", "run", "wrap_ways", "echo.gguf", "crate", "--force", "--method", "refuse")
    assert failed.exit_code == 2
    assert (target / "old" if folder else target).read_text() == "old"
    assert run("transforms", "run", "wrap", "echo.gguf", "crate", "--force").exit_code == 0
    assert sorted(os.listdir(target)) == ["content", "how"]
    assert left() == ["crate"]


def test_a_tree_of_folders_is_not_replaced_even_where_that_is_forced(run: Run) -> None:
    kept = Path("crate/pictures/old")
    kept.parent.mkdir(parents=True)
    kept.write_text("old")
    done = run("transforms", "run", "wrap", "echo.gguf", "crate", "--force")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "crate holds the folder 'pictures', and --force replaces weights" in done.stderr
    assert (kept.read_text(), left()) == ("old", ["crate"])


def test_ctrl_c_leaves_nothing(program: Program) -> None:
    with program.running(
        "transforms", "run", "wrap_ways", "echo.gguf", "crate", "--method", "hang"
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(6) == b"begun\n"
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(20) == 130
    assert left() == []


def test_what_a_killed_run_left_goes_with_the_next_and_what_another_run_uses_stays(
    program: Program, run: Run
) -> None:
    command = ("transforms", "run", "wrap_ways", "echo.gguf", "crate", "--method")
    with program.running(*command, "hang") as killed, program.running(*command, "hang") as other:
        for process in (killed, other):
            assert process.stdout is not None
            assert process.stdout.read(6) == b"begun\n"
        assert len(left()) == 2
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait(20)
        assert len(left()) == 2
        assert run(*command, "one").exit_code == 0
        assert len(left()) == 2  # what was made, and what the other is at
        os.killpg(other.pid, signal.SIGINT)
        assert other.wait(20) == 130
    assert left() == ["crate"]


def test_a_terminal_sees_how_far_it_has_come(program: Program) -> None:
    with (
        terminal() as (theirs, shown),
        program.running("transforms", "run", "wrap", "echo.gguf", "crate", stderr=theirs) as process,
    ):
        assert process.wait(60) == 0
        seen = shown()
    assert "echo.gguf: transform" in seen
    assert " were written" in seen


@pytest.mark.engine
def test_a_real_model_is_requantized(program: Program) -> None:
    from tests.checkpoint_files import smollm2

    done = program("transforms", "run", "gguf_requantize", str(smollm2()), "f16.gguf", "--method", "f16")
    assert (done.returncode, done.stdout.decode()) == (0, f"{Path('f16.gguf').absolute()}\n")
    assert Path("f16.gguf").stat().st_size > 2 * 134_515_008
