"""Children under the supervisor: real processes, really killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from llmengine_core import processes
from llmengine_core.processes import Child, close_all, spawn

# An engine: says that it is ready, naming a child of its own that has left its group, and obeys its input.
ENGINE = """
import json, os, signal, subprocess, sys
document = json.loads(sys.stdin.readline())
if document.get("deaf"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
far = subprocess.Popen(["sleep", "1000"], start_new_session=True, stdin=subprocess.DEVNULL)
near = subprocess.Popen(["sleep", "1000"], stdin=subprocess.DEVNULL)
print(json.dumps({"ready": True, "pids": [os.getpid(), far.pid, near.pid]}), flush=True)
sys.stdin.read()
if document.get("deaf"):
    signal.pause()
"""

# A parent: starts an engine, prints every pid, then does as it is told and waits to be killed.
PARENT = """
import asyncio, json, os, signal, sys
from llmengine_core.processes import spawn

async def main():
    ready = asyncio.get_running_loop().create_future()
    engine, document, socket, then = sys.argv[1:]
    child = await spawn([sys.executable, "-c", engine], document=json.loads(document), unlink=[socket],
                        on_message=ready.set_result)
    pids = [*(await ready)["pids"], child._supervisor]
    sibling = os.fork() if then == "fork" else 0
    if then == "fork" and not sibling:
        signal.pause()
    print(json.dumps({"pids": pids, "sibling": sibling}), flush=True)
    if then == "wait":
        await child.wait()
    if then in ("kill", "fork"):
        signal.pause()

asyncio.run(main())
"""


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(*pids: int, within: float = 5.0) -> bool:
    return eventually(lambda: not any(map(alive, pids)), within)


def eventually(condition: Callable[[], bool], within: float = 5.0) -> bool:
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def read(path: str) -> bytes:
    return Path(path).read_bytes()


def open_files() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


@asynccontextmanager
async def engine(**document: Any) -> AsyncIterator[tuple[Child, list[int]]]:
    """An engine that is ready, and the process ids of it, its grandchildren and its supervisor."""
    ready: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
    grace = document.pop("grace", 2.0)
    child = await spawn(python(ENGINE), document=document, grace=grace, on_message=ready.set_result)
    try:
        yield child, [*(await ready)["pids"], child._supervisor]
    finally:
        await child.aclose()


@contextmanager
def parent(
    then: str, socket: Path, **document: Any
) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, Any]]]:
    """Another process that has started an engine."""
    argv = [*python(PARENT), ENGINE, json.dumps(document), str(socket), then]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())
        process.kill()


async def ended(argv: list[str], **options: Any) -> Any:
    return await (await spawn(argv, **options)).wait()


# --- talking ----------------------------------------------------------------------------------------------


async def test_messages_come_in_order_and_other_lines_are_its_log() -> None:
    messages: list[dict[str, Any]] = []
    code = """if True:
        import sys
        print('{"progress": 0.4, "phase": "load"}')
        print('a line that is no message')
        print('{not JSON either')
        print('{"ready": true}')
        print('no end of line', end='', flush=True)
    """
    end = await ended(python(code), on_message=messages.append)
    assert messages == [{"progress": 0.4, "phase": "load"}, {"ready": True}]
    assert end.reason == "a line that is no message\n{not JSON either\nno end of line"


@pytest.mark.parametrize("size", [0, 70_000, 3_000_000])
async def test_the_document_arrives_whole_and_its_end_says_end(size: int) -> None:
    message: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
    code = """if True:
        import json, sys
        document = json.loads(sys.stdin.readline())
        print(json.dumps({"size": len(document["text"])}), flush=True)
        sys.exit(sys.stdin.read() == "")
    """
    child = await spawn(python(code), document={"text": "x" * size}, on_message=message.set_result)
    assert await message == {"size": size}
    await child.aclose()


async def test_a_child_that_never_reads_its_document_holds_nobody_up() -> None:
    end = await ended(python("import os; os.close(0)"), document={"text": "x" * 3_000_000})
    assert (end.code, end.signal) == (0, None)


async def test_nothing_of_the_document_is_in_an_argument_or_the_environment() -> None:
    async with engine(key="s3cr3t") as (child, pids):
        assert child.pid == pids[0]
        for pid in pids:
            for name in ("cmdline", "environ"):
                assert b"s3cr3t" not in read(f"/proc/{pid}/{name}")


async def test_the_environment_is_ours_with_additions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURS", "kept")
    monkeypatch.setenv("CHANGED", "before")
    code = (
        "import os, sys; print(os.environ['OURS'], os.environ['CHANGED'], os.environ['NEW'], file=sys.stderr)"
    )
    end = await ended(python(code), env={"CHANGED": "after", "NEW": "added"})
    assert end.reason == "kept after added"


async def test_a_child_has_its_own_session_default_signals_and_none_of_our_files(tmp_path: Path) -> None:
    with (tmp_path / "ours").open("wb") as file:
        os.set_inheritable(file.fileno(), True)
        code = """if True:
            import os, signal, sys
            print(sorted(os.listdir("/proc/self/fd")), os.getsid(0) == os.getpid(), file=sys.stderr)
            print(open("/proc/self/status").read().split("SigBlk:")[1].split()[0], file=sys.stderr)
        """
        end = await ended(python(code))
    # "3" is the listing's own.
    assert end.reason == "['0', '1', '2', '3'] True\n0000000000000000"


# --- how it ended -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 127, 137, 255])
async def test_an_exit_code_is_told_from_a_signal(code: int) -> None:
    end = await ended(python(f"import sys; sys.exit({code})"))
    assert (end.code, end.signal) == (code, None)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
async def test_a_signal_is_told_from_an_exit_code(number: signal.Signals) -> None:
    end = await ended(python(f"import os; os.kill(os.getpid(), {int(number)})"))
    assert (end.code, end.signal) == (None, number)


def test_the_supervisor_exits_with_the_childs_code_or_128_plus_its_signal() -> None:
    for code, status in (("sys.exit(3)", 3), ("os.kill(os.getpid(), 9)", 137)):
        order = {"parent": os.getpid(), "argv": python(f"import os, sys; {code}"), "env": {}, "document": {}}
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", processes.SUPERVISOR], stdin=subprocess.PIPE, bufsize=0
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps({**order, "unlink": [], "grace": 2.0}).encode() + b"\n")
        assert process.wait() == status
        process.stdin.close()


async def test_a_program_that_cannot_be_run_says_why() -> None:
    end = await ended(["/no/such/program"])
    assert end.code == 127
    assert end.reason == "cannot run '/no/such/program': No such file or directory"


async def test_the_reason_is_the_end_of_a_long_log_in_bounded_memory() -> None:
    code = """if True:
        import os, sys
        for n in range(4000):
            sys.stderr.write(f"{n:07} " + "x" * 1000 + chr(10))
        sys.stderr.write("50%\\r100%\\n\\n  why it failed")
        sys.exit(1)
    """
    child = await spawn(python(code))
    end = await child.wait()
    assert end.reason.splitlines()[-2:] == ["100%", "  why it failed"]
    assert len(end.reason) <= 4000
    assert len(child._tail) <= 2 * processes.TAIL


async def test_a_flood_without_an_end_of_line_stays_bounded() -> None:
    child = await spawn(python("import sys; sys.stdout.write('x' * 20_000_000)"))
    await child.wait()
    assert len(child._tail) <= 2 * processes.TAIL
    assert len(child._output) <= 17 * processes.TAIL


async def test_any_number_may_wait_and_give_up_waiting() -> None:
    async with engine() as (child, pids):
        waiters = [asyncio.create_task(child.wait()) for _ in range(3)]
        await asyncio.sleep(0)
        waiters[0].cancel()
        os.kill(pids[0], signal.SIGKILL)
        first, *others = await asyncio.gather(*waiters, return_exceptions=True)
        assert isinstance(first, asyncio.CancelledError)
        assert others[0] is others[1]
        assert await child.wait() is others[0]


# --- leaving nothing behind -------------------------------------------------------------------------------


async def test_closing_ends_the_child_and_all_that_it_started() -> None:
    before = open_files()
    async with engine() as (child, pids):
        await asyncio.gather(child.aclose(), child.aclose())
        await child.aclose()
        assert gone(*pids, within=0)
    assert open_files() == before
    assert child not in processes._children


async def test_a_child_deaf_to_sigterm_is_killed_after_its_grace() -> None:
    async with engine(deaf=True, grace=0.3) as (child, pids):
        started = time.monotonic()
        await child.aclose()
        assert 0.3 <= time.monotonic() - started < 2
        assert gone(*pids, within=0)
        assert (await child.wait()).signal == signal.SIGKILL


async def test_kill_9_of_the_child_takes_its_descendants_along() -> None:
    async with engine() as (child, pids):
        os.kill(pids[0], signal.SIGKILL)
        end = await child.wait()
        assert (end.code, end.signal) == (None, signal.SIGKILL)
        assert gone(*pids, within=0)


async def test_kill_9_of_the_supervisor_takes_the_child_along() -> None:
    async with engine() as (child, (pid, far, near, supervisor)):
        os.kill(supervisor, signal.SIGKILL)
        assert (await child.wait()).signal == signal.SIGKILL
        assert gone(pid, near, supervisor)
        os.kill(far, signal.SIGKILL)  # nobody is left who would know of it


async def test_a_stopped_supervisor_is_killed_with_its_child(caplog: pytest.LogCaptureFixture) -> None:
    async with engine(grace=0.1) as (child, (pid, far, near, supervisor)):
        os.kill(supervisor, signal.SIGSTOP)
        started = time.monotonic()
        await child.aclose()
        assert time.monotonic() - started < 10
        assert gone(pid, near, supervisor)
        os.kill(far, signal.SIGKILL)
        assert "did not end in time" in caplog.text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_signal_to_the_supervisor_ends_all(number: signal.Signals) -> None:
    async with engine() as (child, pids):
        os.kill(pids[-1], number)
        end = await child.wait()
        assert (end.code, end.signal) in [
            (0, None),
            (None, signal.SIGTERM),
        ]  # its input ends at the same time
        assert gone(*pids, within=0)


@pytest.mark.parametrize("deaf", [False, True])
def test_no_orphan_5_s_after_kill_9_of_the_parent(tmp_path: Path, deaf: bool) -> None:
    socket = tmp_path / "socket"
    socket.touch()
    with parent("kill", socket, deaf=deaf) as (process, said):
        assert all(map(alive, said["pids"]))
        process.kill()
        assert gone(*said["pids"], within=5)
        assert eventually(lambda: not socket.exists(), within=1)


def test_no_orphan_5_s_after_kill_9_of_the_parent_while_its_forked_copy_lives(tmp_path: Path) -> None:
    with parent("fork", tmp_path / "socket") as (process, said):
        try:
            process.kill()
            assert gone(*said["pids"], within=5)
            assert alive(said["sibling"])
        finally:
            os.kill(said["sibling"], signal.SIGKILL)


def test_a_forked_copy_that_ends_disturbs_nobody(tmp_path: Path) -> None:
    with parent("fork", tmp_path / "socket") as (process, said):
        os.kill(said["sibling"], signal.SIGKILL)
        assert gone(said["sibling"])
        assert all(map(alive, said["pids"]))
        process.kill()
        assert gone(*said["pids"], within=5)


def test_a_parent_that_simply_ends_leaves_no_orphan_and_no_warning(tmp_path: Path) -> None:
    argv = [
        sys.executable,
        "-X",
        "dev",
        "-W",
        "error",
        "-c",
        PARENT,
        ENGINE,
        "{}",
        str(tmp_path / "s"),
        "end",
    ]
    result = subprocess.run(argv, capture_output=True, check=True, timeout=60)
    assert result.stderr == b""
    assert gone(*json.loads(result.stdout)["pids"], within=5)


async def test_close_all_needs_no_loop_and_ends_every_child() -> None:
    async with engine() as (first, pids), engine() as (second, others):
        for _ in range(2):
            thread = threading.Thread(target=close_all)
            thread.start()
            thread.join()
        await asyncio.gather(first.wait(), second.wait())
        assert gone(*pids, *others, within=0)


async def test_files_to_unlink_go_at_the_end_whether_they_are_there_or_not(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    await ended(python("pass"), unlink=[tmp_path / "there", tmp_path / "missing"])
    assert os.listdir(tmp_path) == []


def test_a_loop_in_another_thread_and_the_end_of_that_thread() -> None:
    pids: list[int] = []

    async def start() -> None:
        ready: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        child = await spawn(python(ENGINE), on_message=ready.set_result)
        pids.extend([*(await ready)["pids"], child._supervisor])
        async with engine() as (other, _):
            await other.aclose()
        for fd in (child._control, child._stdout, child._stderr):  # the loop ends before the child does
            asyncio.get_running_loop().remove_reader(fd)

    thread = threading.Thread(target=lambda: asyncio.run(start()))
    thread.start()
    thread.join()
    # Nobody has closed anything: the kernel tells the supervisor that the thread is gone.
    assert gone(*pids)
    for child in [child for child in processes._children if child.pid == pids[0]]:
        processes._children.discard(child)
        child._close()
        os.waitpid(child._supervisor, 0)


async def test_cancelling_spawn_anywhere_leaves_nothing() -> None:
    before = open_files()
    steps, finished = 0, False
    while not finished:
        task = asyncio.create_task(spawn(python("import sys; sys.stdin.read()")))
        for _ in range(steps):
            await asyncio.sleep(0)
        finished = task.done()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await (await task).aclose()
        steps = steps * 2 + 1
        assert not processes._children
    assert open_files() == before


async def test_cancelling_aclose_does_not_stop_the_end() -> None:
    async with engine() as (child, pids):
        task = asyncio.create_task(child.aclose())
        await asyncio.sleep(0)
        task.cancel()
        await child.wait()
        assert gone(*pids, within=0)


async def test_many_children_at_once() -> None:
    ends = await asyncio.gather(*(ended(python(f"import sys; sys.exit({n})")) for n in range(12)))
    assert [end.code for end in ends] == list(range(12))


LOGGING = r"""
import os
os.write(2, b"one\ntw")
os.write(2, b"o\n10 %\r20 %\n\xff\n")
os.write(2, b"no end")
os.write(1, b'said\n{"progress": 1}\nlast')
"""


async def test_each_line_that_a_child_logs_is_told_once_and_whole() -> None:
    lines: list[str] = []
    messages: list[dict[str, Any]] = []
    argv = [sys.executable, "-c", LOGGING]
    child = await spawn(argv, on_line=lines.append, on_message=messages.append)
    assert (await child.wait()).code == 0
    output = [line for line in lines if line in ("said", "last")]
    assert output == ["said", "last"]
    assert [line for line in lines if line not in output] == ["one", "two", "20 %", "\ufffd", "no end"]
    assert messages == [{"progress": 1}]
