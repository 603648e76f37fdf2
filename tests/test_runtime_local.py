"""The local runtime: real children that speak the launch protocol, well and badly."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from llmengine_core import processes
from llmengine_core.errors import ServerError
from llmengine_core.host import usable_memory
from llmengine_core.http import HttpClient
from llmengine_core.interfaces.runtime import Replica
from llmengine_core.runtime_local import LocalRuntime
from llmengine_core.types.launch import LaunchSpec, Resources
from llmengine_core.types.progress import Progress

# A worker: loads in steps, listens on the socket it was given, and answers those who hold the key.
WORKER = """
import json, os, socket, sys, threading
document = json.loads(sys.stdin.readline())
for done in (0.25, 0.5):
    print(json.dumps({"progress": done, "phase": "load"}))
server = socket.socket(socket.AF_UNIX)
server.bind(document["address"].removeprefix("unix:"))
server.listen()
public = {name: value for name, value in document.items() if name != "key"}
print(json.dumps({"ready": True, "pid": os.getpid(), "document": public, "env": os.environ.get("FLAVOUR")}))
print(json.dumps({"progress": 0.9}), flush=True)
def serve():
    while True:
        connection, _ = server.accept()
        allowed = b"Bearer " + document["key"].encode() in connection.recv(65536)
        connection.sendall(b"HTTP/1.1 %d X\\r\\nContent-Length: 0\\r\\n\\r\\n" % (200 if allowed else 401))
threading.Thread(target=serve, daemon=True).start()
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def runtime_root(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of sockets for this test alone."""
    with tempfile.TemporaryDirectory(prefix="x") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder, "llmengine")


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[LocalRuntime]:
    runtime = LocalRuntime(tmp_path)
    yield runtime
    await runtime.aclose()


def worker(code: str = WORKER, **options: Any) -> LaunchSpec:
    return LaunchSpec(argv=(sys.executable, "-c", code), subject="tiny", **options)


def there(path: str | Path) -> bool:
    return os.path.lexists(path)


def entries(folder: Path) -> list[Path]:
    """What is in it, but for the files that stand for cores, which stay."""
    return [entry for entry in folder.iterdir() if not entry.name.startswith("core-")]


async def refusal(runtime: LocalRuntime, code: str) -> str:
    with pytest.raises(ServerError) as caught:
        await runtime.start(worker(code))
    return str(caught.value)


async def test_a_replica_answers_at_its_endpoint_with_its_key_only(runtime: LocalRuntime) -> None:
    replica = await runtime.start(worker(document={"model": "/m"}, env={"FLAVOUR": "plain"}))
    endpoint = replica.endpoint
    path = endpoint.address.removeprefix("unix:")
    granted = {"threads": 1, "memory": await asyncio.to_thread(usable_memory)}
    assert endpoint.facts["document"] == {"model": "/m", "address": endpoint.address} | granted
    assert endpoint.facts["env"] == "plain"
    assert "ready" not in endpoint.facts
    assert endpoint.key not in repr(endpoint)
    assert stat.S_ISSOCK(os.lstat(path).st_mode)
    assert stat.S_IMODE(os.lstat(os.path.dirname(path)).st_mode) == 0o700
    for key, status in ((endpoint.key, 200), ("wrong", 401)):
        client = HttpClient(endpoint.address, key, max_idle=0)
        assert (await client.request("GET", "/")).status == status
        await client.aclose()


async def test_progress_is_passed_on_until_it_is_ready(runtime: LocalRuntime) -> None:
    news: list[Progress] = []
    await runtime.start(worker(), on_progress=news.append)
    assert news == [Progress("tiny", "load", 0.25, 1.0), Progress("tiny", "load", 0.5, 1.0)]


async def test_a_replica_sees_where_things_are_and_no_secret_of_ours(
    runtime: LocalRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = {
        "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "LLMENGINE_DATABASE_URL", "PGPASSWORD", "SCALE_API_KEY", "VLLM_API_KEY",
        "XDG_TOKEN",
    }  # fmt: skip
    for name in secrets:
        monkeypatch.setenv(name, "s3cr3t")
    for name in ("CUDA_VISIBLE_DEVICES", "OMP_WAIT_POLICY", "LLMENGINE_HOME"):
        monkeypatch.setenv(name, "here")
    replica = await runtime.start(worker(env={"FLAVOUR": "sweet"}))
    environ = await asyncio.to_thread(Path(f"/proc/{replica.endpoint.facts['pid']}/environ").read_bytes)
    seen = dict(each.split(b"=", 1) for each in environ.split(b"\0") if each)
    assert b"s3cr3t" not in seen.values()
    assert (seen[b"CUDA_VISIBLE_DEVICES"], seen[b"OMP_WAIT_POLICY"], seen[b"LLMENGINE_HOME"]) == (
        b"here",
    ) * 3
    assert {b"PATH", b"FLAVOUR", b"XDG_RUNTIME_DIR"} <= seen.keys()


async def test_replicas_share_nothing(runtime: LocalRuntime) -> None:
    endpoints = [(await replica).endpoint for replica in [runtime.start(worker()) for _ in range(3)]]
    assert len({endpoint.address for endpoint in endpoints}) == 3
    assert len({endpoint.key for endpoint in endpoints}) == 3


async def test_a_replica_has_its_threads_until_it_has_ended(
    runtime: LocalRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmengine_core.runtime_local.usable_cores", lambda: [0, 1, 2])

    async def start() -> Replica:
        return await runtime.start(worker(resources=Resources(threads=2)))

    def threads(replica: Replica) -> int:
        return int(replica.endpoint.facts["document"]["threads"])

    first, second, third = await start(), await start(), await start()
    assert [threads(each) for each in (first, second, third)] == [2, 1, 1]
    os.kill(first.endpoint.facts["pid"], signal.SIGKILL)
    await first.wait()
    await second.aclose()
    assert threads(await start()) == 2


@pytest.mark.parametrize("code", ["raise SystemExit(3)", None])
async def test_a_start_that_fails_gives_its_threads_back(
    runtime: LocalRuntime, monkeypatch: pytest.MonkeyPatch, code: str | None
) -> None:
    monkeypatch.setattr("llmengine_core.runtime_local.usable_cores", lambda: [0, 1])
    with monkeypatch.context() as broken:
        if code is None:
            broken.setattr(sys, "executable", "/no/python")
        with pytest.raises(ServerError):
            await runtime.start(
                LaunchSpec(argv=(sys.executable, "-c", code or ""), resources=Resources(threads=2))
            )
    replica = await runtime.start(worker(resources=Resources(threads=2)))
    assert replica.endpoint.facts["document"]["threads"] == 2


async def test_closing_a_replica_ends_it_and_takes_its_socket(runtime: LocalRuntime) -> None:
    replica, other = await asyncio.gather(runtime.start(worker()), runtime.start(worker()))
    await asyncio.gather(replica.aclose(), replica.aclose())
    assert (await replica.wait()).signal in (signal.SIGTERM, None)
    assert not there(replica.endpoint.address.removeprefix("unix:"))
    assert there(other.endpoint.address.removeprefix("unix:"))
    with pytest.raises(ProcessLookupError):
        os.kill(replica.endpoint.facts["pid"], 0)


async def test_wait_tells_how_a_replica_that_was_killed_ended(runtime: LocalRuntime) -> None:
    replica = await runtime.start(worker())
    waiting = asyncio.create_task(replica.wait())
    os.kill(replica.endpoint.facts["pid"], signal.SIGKILL)
    end = await waiting
    assert (end.code, end.signal) == (None, signal.SIGKILL)
    assert not there(replica.endpoint.address.removeprefix("unix:"))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "import sys; sys.exit('error loading model: tensor data is bad')",
            "tiny: the engine ended with exit code 1 before it was ready: error loading model: tensor data is bad",
        ),
        ("pass", "tiny: the engine ended with exit code 0 before it was ready and left no message"),
        (
            "import os; os.abort()",
            "tiny: the engine was ended by SIGABRT before it was ready and left no message",
        ),
        (
            "import os, sys; print('!', file=sys.stderr, flush=True); os.kill(os.getpid(), 9)",
            "tiny: the engine was killed (SIGKILL: the system does so where memory runs out) before it was ready: !",
        ),
        (
            "import sys; print('{\"ready\": false}'); print('[1]'); print('{\"progress\": \"x\"}'); sys.exit(2)",
            "tiny: the engine ended with exit code 2 before it was ready: [1]",
        ),
    ],
)
async def test_an_engine_that_ends_too_early_is_an_error_with_its_last_words(
    runtime: LocalRuntime, code: str, message: str
) -> None:
    assert await refusal(runtime, code) == message


@pytest.mark.parametrize(
    ("logged", "noise", "told"),
    [
        ("0.1 E bad\n0.2 E bad\n0.3 E worse", r"^[\d.]+ E ", "bad\nworse"),
        ("0.1 E bad\n0.2 E failed", r"^[\d.]+ E (failed)?", "bad"),
        ("0.1 E failed\n0.2 E failed", r"^[\d.]+ E (failed)?", "0.1 E failed\n0.2 E failed"),
        ("0.1 E bad\n0.1 E bad", "", "0.1 E bad\n0.1 E bad"),
    ],
)
async def test_what_tells_nobody_why_is_left_out_where_something_does(
    runtime: LocalRuntime, logged: str, noise: str, told: str
) -> None:
    with pytest.raises(ServerError) as caught:
        await runtime.start(worker(f"import sys; sys.exit({logged!r})", log_noise=noise))
    assert caught.value.message.endswith(f"before it was ready: {told}")


async def test_a_program_that_is_not_there_is_an_error_that_names_it(runtime: LocalRuntime) -> None:
    with pytest.raises(ServerError, match="cannot run '/no/engine': No such file or directory"):
        await runtime.start(LaunchSpec(argv=("/no/engine",)))


async def test_a_supervisor_that_cannot_be_started_is_an_error(
    runtime: LocalRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/no/python")
    with pytest.raises(ServerError, match=r"tiny: can't start a process: .*No such file"):
        await runtime.start(LaunchSpec(argv=("/bin/true",), subject="tiny"))


async def test_the_key_never_shows_in_a_reason(runtime: LocalRuntime) -> None:
    said = await refusal(runtime, "import sys; sys.exit(sys.stdin.readline())")
    key = json.loads(said[said.index("{") :])["key"]
    assert key == "…"


async def test_cancelling_a_start_ends_the_child(runtime: LocalRuntime, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    os.mkfifo(pid)
    code = f"import os, sys; print(os.getpid(), file=open({str(pid)!r}, 'w'), flush=True); sys.stdin.read()"
    start = asyncio.create_task(runtime.start(worker(code)))
    child = int(await asyncio.to_thread(pid.read_text))
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    await runtime.aclose()
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


async def test_cancelling_a_start_anywhere_leaves_nothing(runtime: LocalRuntime, runtime_root: Path) -> None:
    steps, finished = 0, False
    while not finished:
        start = asyncio.create_task(runtime.start(worker()))
        for _ in range(steps):
            await asyncio.sleep(0)
        finished = start.done()
        start.cancel()
        with suppress(asyncio.CancelledError):
            await start
        steps = steps * 2 + 1
    await runtime.aclose()
    assert not processes._children
    assert entries(runtime_root) == []


async def test_closing_the_runtime_ends_all_and_refuses_more(
    runtime: LocalRuntime, runtime_root: Path
) -> None:
    replicas = await asyncio.gather(*(runtime.start(worker()) for _ in range(3)))
    loading = asyncio.Event()
    code = "import sys; print('{\"progress\": 0}', flush=True); sys.stdin.read()"
    starting = asyncio.create_task(runtime.start(worker(code), on_progress=lambda _: loading.set()))
    await loading.wait()
    await asyncio.gather(runtime.aclose(), runtime.aclose())
    with pytest.raises(ServerError, match="before it was ready"):
        await starting
    for replica in replicas:
        await replica.wait()
    assert entries(runtime_root) == []
    with pytest.raises(ServerError, match="was closed"):
        await runtime.start(worker())


async def test_close_now_lets_go_without_a_loop(runtime: LocalRuntime, runtime_root: Path) -> None:
    replicas = await asyncio.gather(*(runtime.start(worker()) for _ in range(2)))
    await asyncio.to_thread(runtime.close_now)
    for replica in replicas:
        await replica.wait()
    assert entries(runtime_root) == []


async def test_a_runtime_that_started_nothing_makes_no_folder(
    runtime: LocalRuntime, runtime_root: Path
) -> None:
    await runtime.aclose()
    runtime.close_now()
    assert not there(runtime_root)


async def test_an_unusable_folder_of_sockets_is_an_error_with_its_mend(
    runtime: LocalRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(tempfile, "tempdir", "/" + "long" * 30)
    with pytest.raises(ServerError, match="set XDG_RUNTIME_DIR to a folder of yours with a shorter path"):
        await runtime.start(worker())
