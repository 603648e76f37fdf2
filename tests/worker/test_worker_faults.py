"""Whatever becomes of a worker, callers get one of our errors with the real reason, and nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from tests.e2e.procfs import alive, until
from tests.worker.toy_backend import ToyBackend, Worker, deployment, request, working

from llmengine_core.errors import LLMEngineError, ServerError
from llmengine_core.interfaces.backend import SessionLost
from llmengine_core.pool import Pool
from llmengine_core.runtime_local import LocalRuntime
from llmengine_core.scaling import Bounds
from llmengine_core.testing.answers import Answer
from llmengine_core.types.generation import Text
from llmengine_core.types.launch import Exit
from llmengine_core.types.progress import Progress
from llmengine_core.worker import bootstrap

HANGS = 0.5
"""Seconds until a worker is taken to hang."""
AT = r"\nat .*/toy_worker\.py:\d+ in "
SEEN = rf"had not come back after \d+ s{AT}"
HELD = r'it hung, for longer than 0:00:02.5\d* \(h:mm:ss\), here:\nFile ".*/toy_worker\.py", line \d+ in '


@asynccontextmanager
async def breakable(runtime: LocalRuntime, python: str) -> AsyncIterator[Worker]:
    async with working(runtime, ToyBackend(hang_seconds=HANGS), python=python) as worker:
        yield worker


async def lost(worker: Worker, prompt: str) -> tuple[SessionLost, Exit]:
    """A request that is the worker's end, with others beside it."""
    beside = [asyncio.ensure_future(worker.complete(f"{n}", max_tokens=900)) for n in range(2)]
    with pytest.raises(SessionLost) as failure:
        await worker.complete(prompt)
    for other in await asyncio.gather(*beside, return_exceptions=True):
        assert isinstance(other, Answer | SessionLost)
    with pytest.raises(SessionLost):
        await worker.complete("later")
    with pytest.raises(SessionLost):
        await worker.session.count_tokens(Text("later"))
    return failure.value, await worker.replica.wait()


@pytest.mark.parametrize(
    ("where", "what", "reason"),
    [
        ("step", "raise", rf"a step failed: RuntimeError: the toy is broken{AT}broken"),
        ("step", "memory", rf"a step failed: MemoryError{AT}out_of_memory"),
        ("step", "exit", rf"a step failed: it called sys\.exit\(3\){AT}<lambda>"),
        ("step", "hang", rf"it hung: a step {SEEN}<lambda>"),
        ("step", "spin", rf"it hung: a step {SEEN}spinning"),
        ("step", "hang_and_hold", rf"{HELD}<lambda>"),
        ("step", "refuse", rf"a step failed: Refused: the toy won't{AT}unwilling"),
        ("join", "raise", rf"a request that joins failed: RuntimeError: the toy is broken{AT}broken"),
        ("join", "hang", rf"it hung: a request that joins {SEEN}<lambda>"),
        ("encode", "memory_error", rf"the encoder failed: MemoryError{AT}told_of_no_memory"),
        ("encode", "exit", rf"the encoder failed: it called sys\.exit\(3\){AT}<lambda>"),
        ("encode", "hang", rf"it hung: the reading of a prompt {SEEN}<lambda>"),
        ("encode", "hang_and_hold", rf"{HELD}<lambda>"),
    ],
)
async def test_an_engine_that_fails_is_lost_with_the_reason(
    runtime: LocalRuntime, bare: str, where: str, what: str, reason: str
) -> None:
    async with breakable(runtime, bare) as worker:
        _, end = await lost(worker, f"fault:{where}:{what}")
        assert end.code == 1
        assert re.match(reason, end.reason), end.reason
        assert "| " not in end.reason
        assert worker.replica.endpoint.key not in end.reason


async def test_an_engine_that_crashes_says_where(runtime: LocalRuntime, bare: str) -> None:
    async with breakable(runtime, bare) as worker:
        _, end = await lost(worker, "fault:step:crash")
        assert end.signal == signal.SIGSEGV
        assert re.search(
            r"Segmentation fault\n(.*\n)*File \".*/toy_worker\.py\", line \d+ in <lambda>", end.reason
        )


async def test_an_engine_that_is_killed_mid_stream(runtime: LocalRuntime, bare: str) -> None:
    async with breakable(runtime, bare) as worker:
        failure, end = await lost(worker, "fault:step:kill:3")
        assert failure.message == "the engine's worker is gone, after 3 tokens: the connection ended"
        assert end == Exit(None, signal.SIGKILL, "")


async def test_users_are_told_the_reason(runtime: LocalRuntime, bare: str) -> None:
    backend = ToyBackend(hang_seconds=HANGS)
    pool = Pool(deployment(python=bare), backend, runtime, Bounds(min_workers=0, max_workers=1, per_worker=4))
    try:
        with pytest.raises(ServerError, match=rf"after 2 tokens.*it hung: a step {SEEN}spinning"):
            async for _ in pool.generate(request("fault:step:spin:2")):
                pass
        chunks = [chunk async for chunk in pool.generate(request("on another replica"))]
        assert chunks[-1].finish_reason == "length"
    finally:
        await pool.aclose()


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("raise", rf"the adapter 'bad' that is loaded failed: RuntimeError: the toy is broken{AT}broken"),
        ("memory", rf"the adapter 'bad' that is loaded failed: MemoryError{AT}out_of_memory"),
        ("hang", rf"it hung: the adapter 'bad' that is loaded {SEEN}<lambda>"),
    ],
)
async def test_an_adapter_that_is_a_workers_end_is_told_with_the_reason(
    runtime: LocalRuntime, bare: str, tmp_path: Path, what: str, reason: str
) -> None:
    (tmp_path / "adapter").write_text(f"fault:adapter:{what}")
    backend = ToyBackend(hang_seconds=HANGS)
    bounds = Bounds(min_workers=0, max_workers=1, per_worker=4)
    pool = Pool(deployment(python=bare, adapters=True), backend, runtime, bounds)
    try:
        with pytest.raises(SessionLost, match=reason):
            await pool.load_adapter("bad", str(tmp_path))
        assert [chunk async for chunk in pool.generate(request("on another replica"))][-1].usage
    finally:
        await pool.aclose()


async def test_a_prompt_that_is_every_workers_end_is_told_with_the_reason(
    runtime: LocalRuntime, bare: str
) -> None:
    bounds = Bounds(min_workers=0, max_workers=1, per_worker=4)
    pool = Pool(deployment(python=bare), ToyBackend(), runtime, bounds)
    try:
        with pytest.raises(SessionLost, match=rf"the encoder failed: it called sys\.exit\(3\){AT}<lambda>"):
            await pool.count_tokens(Text("fault:encode:exit"))
    finally:
        await pool.aclose()


# -- while it loads


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("raise", rf"ended with exit code 1 .*: loading failed: RuntimeError: the toy is broken{AT}broken"),
        ("refuse", r"ended with exit code 1 before it was ready: the toy won't$"),
        ("exit", rf"ended with exit code 1 .*: loading failed: it called sys\.exit\(3\){AT}<lambda>"),
        ("kill", r"was killed \(SIGKILL: the system does so where memory runs out\)"),
        ("memory", rf"ended with exit code 1 .*: loading failed: MemoryError{AT}out_of_memory"),
        ("hang", rf"ended with exit code 1 .*: it hung: loading \(load, 0%\) {SEEN}<lambda>"),
        ("hang_and_hold", rf"ended with exit code 1 .*: {HELD}<lambda>"),
    ],
)
async def test_an_engine_that_fails_to_load_says_why(
    runtime: LocalRuntime, bare: str, what: str, reason: str
) -> None:
    backend = ToyBackend(fault=what, hang_seconds=HANGS)
    with pytest.raises(ServerError, match=rf"^toy: the engine {reason}"):
        await runtime.start(backend.launch(deployment(python=bare)))


@pytest.mark.parametrize(
    ("engine", "reason"),
    [
        ("toy_worker:NoEngine", r"AttributeError: module 'toy_worker' has no attribute 'NoEngine'"),
        ("toy_worker.inner:Engine", r"ModuleNotFoundError: No module named 'toy_worker.inner'"),
    ],
)
async def test_an_engine_that_is_not_there_is_named(
    runtime: LocalRuntime, bare: str, engine: str, reason: str
) -> None:
    backend = ToyBackend()
    backend.engine = engine  # type: ignore[misc]
    with pytest.raises(ServerError, match=f"loading failed: {reason}"):
        await runtime.start(backend.launch(deployment(python=bare)))


async def test_an_engine_that_cannot_be_imported_in_its_environment(
    runtime: LocalRuntime, bare: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needy_worker").mkdir()
    (tmp_path / "needy_worker" / "__init__.py").write_text("")
    (tmp_path / "needy_worker" / "engine.py").write_text("import pydantic\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    backend = ToyBackend()
    backend.engine = "needy_worker.engine:Engine"  # type: ignore[misc]
    with pytest.raises(
        ServerError, match=r"No module named 'pydantic'\nat .*/needy_worker/engine\.py:1 in <module>"
    ):
        await runtime.start(backend.launch(deployment(python=bare)))


async def test_a_package_that_is_not_installed_is_named() -> None:
    backend = ToyBackend()
    backend.engine = "no_such_package.worker:Engine"  # type: ignore[misc]
    with pytest.raises(ServerError, match="no package 'no_such_package'"):
        backend.launch(deployment())


async def test_loading_tells_how_far_it_has_come(runtime: LocalRuntime, bare: str) -> None:
    told: list[Progress] = []
    replica = await runtime.start(ToyBackend().launch(deployment(python=bare)), on_progress=told.append)
    await replica.aclose()
    assert (told[0].subject, told[0].phase, told[0].done, told[-1].done) == ("toy", "load", 0.0, 1.0)


# -- its end is ours


def parent(home: Path, python: str, prompt: str) -> str:
    """A program that has a worker at work, and prints the worker's process id once it is."""
    return f"""
import asyncio, sys
from pathlib import Path
sys.path[:0] = {[str(Path(__file__).parents[2]), str(Path(__file__).parent)]!r}
from tests.worker.toy_backend import *
from llmengine_core.runtime_local import LocalRuntime

async def main():
    runtime = LocalRuntime(Path({str(home)!r}))
    async with working(runtime, python={python!r}) as worker:
        asyncio.ensure_future(worker.complete({prompt!r}))
        await worker.complete("once", max_tokens=1)
        print(worker.pid, flush=True)
        await asyncio.sleep(1000)

asyncio.run(main())
"""


@pytest.mark.parametrize("prompt", ["idle", "fault:step:spin:3", "fault:step:hang_and_hold:3"])
def test_a_parent_killed_leaves_nothing(bare: str, tmp_path: Path, prompt: str) -> None:
    program = parent(tmp_path, bare, prompt)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert alive(pid)
        process.kill()
    until(lambda: not alive(pid), 10, "the worker ends with its parent")


DOCUMENT = b'{"threads": 1, "packages": {}, "engine": "time:sleep"'


@pytest.mark.parametrize("said", [b"", DOCUMENT])
async def test_a_worker_that_is_told_nothing_ends(bare: str, said: bytes) -> None:
    process = await asyncio.to_thread(
        subprocess.run,
        [bare, "-I", bootstrap.__file__],
        input=said,
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert (process.returncode, process.stdout, process.stderr) == (0, b"", b"")


@pytest.mark.parametrize("fault", ["hang", "spin", ""])
async def test_a_worker_ends_with_its_input_whatever_it_does(bare: str, tmp_path: Path, fault: str) -> None:
    spec = ToyBackend(fault=fault).launch(deployment(python=bare))
    told = {**spec.document, "address": f"unix:{tmp_path}/socket", "key": "key", "threads": 1}
    process = await asyncio.to_thread(
        subprocess.run,
        spec.argv,
        input=json.dumps(told).encode() + b"\n",
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert (process.returncode, process.stderr) == (0, b"")


def descriptors() -> set[str]:
    return {f"{fd} {_target(fd)}" for fd in os.listdir("/proc/self/fd")}


def _target(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


async def test_nothing_is_left_in_our_process(runtime: LocalRuntime, bare: str) -> None:
    async def use(prompt: str) -> None:
        async with breakable(runtime, bare) as worker:
            stream = worker.session.generate(request("once", max_tokens=900))
            await anext(stream)
            with suppress(LLMEngineError):
                await worker.complete(prompt)
            await stream.aclose()

    await use("once")
    gc.collect()
    tasks, open_files = asyncio.all_tasks(), descriptors()
    for prompt in ("once", "fault:step:raise", "fault:encode:refuse"):
        await use(prompt)
    gc.collect()
    assert asyncio.all_tasks() == tasks
    assert len(descriptors()) == len(open_files), descriptors() - open_files


async def test_what_it_logs_is_logged_at_debug(
    runtime: LocalRuntime, bare: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG", "llmengine_core.runtime_local"):
        async with working(runtime, ToyBackend(fault="log"), python=bare) as worker:
            await worker.complete("once")
    assert [record.message for record in caplog.records if record.name == "llmengine_core.runtime_local"] == [
        "toy: | WARNING toy_worker: the toy speaks",
        "toy: | in two lines",
    ]


@pytest.mark.parametrize("what", ["print", "tell"])
async def test_what_an_engine_prints_and_reads_is_not_the_protocol(
    runtime: LocalRuntime, python: str, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    with caplog.at_level("DEBUG", "llmengine_core.runtime_local"):
        async with working(runtime, ToyBackend(fault=what), python=python) as worker:
            assert worker.pid
            assert (await worker.complete(f"fault:step:{what}")).usage.completion_tokens == 16
    logged = [record.message for record in caplog.records]
    if what == "print":
        for word in ("printed", "put", "written"):
            assert sum(f'toy: {{"ready": true, "{word}": 1}}' in line for line in logged) == 2
    else:
        assert 'toy: "read": ""' in logged


async def test_nothing_of_the_cores_environment_can_be_seen(
    runtime: LocalRuntime, bare: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG", "llmengine_core.runtime_local"):
        async with working(runtime, ToyBackend(fault="tell"), python=bare):
            pass
    logged = [record.message.removeprefix("toy: ") for record in caplog.records]
    assert '"seen": [],' in logged
    ours = {line.strip('",') for line in logged if re.match(r'"(llmengine|toy)', line)}
    assert "llmengine_core.worker.contract" in ours
    assert {name for name in ours if not name.startswith("llmengine_core.worker")} == {
        "llmengine_core",
        "toy_worker",
    }


def shown_by(pid: int) -> bytes:
    return b"".join(Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ"))


async def test_no_secret_is_in_arguments_or_environment(runtime: LocalRuntime, bare: str) -> None:
    async with working(runtime, python=bare) as worker:
        shown = shown_by(worker.pid)
        assert worker.replica.endpoint.key.encode() not in shown
        assert worker.replica.endpoint.address.removeprefix("unix:").encode() not in shown
        assert b"HF_HUB_OFFLINE=1" in shown
