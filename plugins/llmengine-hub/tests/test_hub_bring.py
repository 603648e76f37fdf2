"""Files are brought into the cache of the hub's library: whole, checked, and no byte twice where it can be helped."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import hub_fetcher
import pytest
from hub_uses import bring, content, listed
from tests.e2e.procfs import until
from tests.servers.hub import Fault, Hub

from llmengine_core.interfaces.storage import ObjectMissing, StorageError
from llmengine_hub.storage import HubStorage

Open = Callable[[str], HubStorage]
MIB = 1 << 20
BIG = os.urandom(3 * MIB)
FILES = {
    "config.json": b"{}",
    "a/b[1].txt": b"inner",
    "model.safetensors": BIG,
    "pytorch_model.bin": b"pickled",
}
WANTED = ["model.safetensors", "config.json", "a/b[1].txt"]


def blobs(cache: Path) -> dict[str, int]:
    """What lies in the cache's blobs, by name."""
    return {path.name: path.stat().st_size for path in cache.glob("models--*/blobs/*")}


async def test_what_is_asked_for_comes_and_nothing_else(server: Hub, cache: Path, opened: Open) -> None:
    commit = server.put("org/name", FILES)
    storage = opened("hf://org/name")
    folder = await bring(storage, WANTED)
    assert folder == cache / "models--org--name" / "snapshots" / commit
    assert {key: (folder / key).read_bytes() for key in WANTED} == {key: FILES[key] for key in WANTED}
    assert not (folder / "pytorch_model.bin").exists()
    assert (cache / "models--org--name" / "refs" / "main").read_text(encoding="ascii") == commit
    agents = {each.headers["user-agent"] for each in server.asked if each.method == "HEAD"}
    assert all(agent.startswith("llmengine/") and "agent/" not in agent for agent in agents)
    assert not server.count("/api/agent-harnesses")

    sent, asked = server.sent, len(server.asked)  # now all of it is here
    assert await bring(storage, WANTED) == folder
    assert await content(storage, "model.safetensors", 5, 10) == BIG[5:10]
    assert (server.sent, len(server.asked)) == (sent, asked)
    assert await bring(opened("hf://org/name"), WANTED) == folder
    assert server.sent - sent < 10_000
    with pytest.raises(ObjectMissing, match="has no file 'absent'"):
        await bring(storage, ["config.json", "absent"])

    server.put("org/name", {**FILES, "config.json": b'{"new": 1}'})  # only what has changed comes
    again = await bring(opened("hf://org/name"), WANTED)
    assert again != folder
    assert (again / "config.json").read_bytes() == b'{"new": 1}'
    assert server.sent - sent < 20_000


async def test_what_comes_has_its_digest_or_comes_again(server: Hub, cache: Path, opened: Open) -> None:
    server.put("org/name", FILES)
    server.faults += [Fault("store GET", wrong=True), Fault("hub GET .*config.json", wrong=True)]
    folder = await bring(opened("hf://org/name"), WANTED)
    assert {key: (folder / key).read_bytes() for key in WANTED} == {key: FILES[key] for key in WANTED}
    assert not [fault for fault in server.faults if fault.times]

    (folder / "model.safetensors").resolve().write_bytes(BIG[:-1] + b"?")  # rotten on disk
    await bring(opened("hf://org/name"), WANTED)
    assert (folder / "model.safetensors").read_bytes() == BIG


async def test_what_stays_wrong_is_told_and_not_kept(server: Hub, cache: Path, opened: Open) -> None:
    server.put("org/name", FILES)
    server.faults.append(Fault("store GET", times=9, wrong=True))
    with pytest.raises(
        StorageError, match=r"'model.safetensors' of hf://org/name came with other content.*twice"
    ):
        await bring(opened("hf://org/name"), ["model.safetensors"])
    with pytest.raises(StorageError, match="came with other content"):
        await bring(opened("hf://org/name"), ["model.safetensors"])
    server.faults.clear()
    assert (
        await bring(opened("hf://org/name"), ["model.safetensors"]) / "model.safetensors"
    ).read_bytes() == BIG


async def test_what_the_hubs_own_program_fetched_is_checked_and_used(
    server: Hub, cache: Path, opened: Open
) -> None:
    server.put("org/name", FILES)
    command = [str(Path(sys.executable).with_name("hf")), "download", "org/name", *WANTED]
    done = await asyncio.to_thread(lambda: subprocess.run(command, capture_output=True, check=False))
    assert done.returncode == 0, done.stderr
    sent = server.sent
    folder = await bring(opened("hf://org/name"), WANTED)
    assert server.sent - sent < 10_000
    assert (folder / "model.safetensors").read_bytes() == BIG


async def test_a_poor_connection_is_borne(server: Hub, opened: Open) -> None:
    server.put("org/name", FILES)
    server.faults += [
        Fault("hub HEAD", status=503),
        Fault("store GET", status=503),
        Fault("store GET", cut_after=1 * MIB),
        Fault("hub GET .*/resolve-cache/", status=500),
    ]
    folder = await bring(opened("hf://org/name"), WANTED)
    assert (folder / "model.safetensors").read_bytes() == BIG
    assert not [fault for fault in server.faults if fault.times]


async def test_what_was_killed_is_gone_on_with(server: Hub, cache: Path, opened: Open) -> None:
    large = os.urandom(35 * MIB)
    server.put("org/name", {"model.safetensors": large})
    server.faults.append(stall := Fault("store GET", stall_after=32 * MIB))
    command = [sys.executable, hub_fetcher.__file__, "hf://org/name", "model.safetensors"]
    process = await asyncio.to_thread(subprocess.Popen, command)
    try:
        assert await asyncio.to_thread(stall.stalled.wait, 60)
        await asyncio.to_thread(
            until, lambda: 30 * MIB in blobs(cache).values(), 30, "the library has written whole pieces"
        )
    finally:
        process.kill()
        await asyncio.to_thread(process.wait)
    sent = server.sent
    folder = await bring(opened("hf://org/name"), ["model.safetensors"])
    assert server.sent - sent < 6 * MIB
    assert [each.headers.get("range") for each in server.asked if each.server == "store"] == [
        None,
        f"bytes={30 * MIB}-",
    ]
    assert (folder / "model.safetensors").read_bytes() == large
    assert list(blobs(cache).values()) == [len(large)]


async def test_what_a_killed_process_left_wrong_does_no_harm(server: Hub, cache: Path, opened: Open) -> None:
    server.put("org/name", FILES)
    storage = opened("hf://org/name")
    digest = (await storage.head("model.safetensors")).sha256
    (cache / "models--org--name" / "blobs").mkdir(parents=True)
    for name, left in (("longer", BIG + b"?"), ("wrong", b"?" * MIB)):
        (cache / "models--org--name" / "blobs" / f"{digest}.{name}.incomplete").write_bytes(left)
        folder = await bring(storage, ["model.safetensors"])
        assert (folder / "model.safetensors").read_bytes() == BIG
        (folder / "model.safetensors").resolve().unlink()
    assert not blobs(cache)


async def test_what_is_offered_by_xet_comes_by_http_and_is_gone_on_with(
    server: Hub, cache: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Xet is a program that goes where it likes; a file is had without it."""
    server.put("org/name", FILES)
    server.xet = True
    storage = opened("hf://org/name")
    digest = (await storage.head("model.safetensors")).sha256
    (cache / "models--org--name" / "blobs").mkdir(parents=True)
    (cache / "models--org--name" / "blobs" / f"{digest}.left.incomplete").write_bytes(BIG[: 2 * MIB])
    folder = await bring(storage, ["model.safetensors"])
    assert (folder / "model.safetensors").read_bytes() == BIG
    assert not server.count("xet-read-token")
    assert [each.headers.get("range") for each in server.asked if each.server == "store"] == [
        f"bytes={2 * MIB}-"
    ]

    monkeypatch.setenv("HF_HUB_DISABLE_XET", "0")  # whoever says so has it
    (folder / "model.safetensors").resolve().unlink()
    with pytest.raises(StorageError):
        await bring(storage, ["model.safetensors"])
    assert server.count("xet-read-token")


async def test_cancelling_ends_it_at_once(server: Hub, cache: Path, opened: Open) -> None:
    server.put("org/name", FILES)
    server.faults.append(stall := Fault("store GET", stall_after=1 * MIB))
    storage = opened("hf://org/name")
    await listed(storage)
    task = asyncio.create_task(storage.bring(WANTED, on_progress=lambda *_: None))
    assert await asyncio.to_thread(stall.stalled.wait, 60)
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - began < 5
    folder = await bring(opened("hf://org/name"), WANTED)
    assert (folder / "model.safetensors").read_bytes() == BIG


async def test_several_at_once_bring_it_once(server: Hub, opened: Open) -> None:
    server.put("org/name", FILES)
    first, second = opened("hf://org/name"), opened("hf://org/name")
    folders = await asyncio.gather(bring(first, WANTED), bring(second, WANTED), bring(first, WANTED[:1]))
    assert folders[0] == folders[1] == folders[2]
    assert server.sent < 1.5 * len(BIG)


async def test_a_disk_without_room_is_told_before_anything_comes(
    server: Hub, cache: Path, opened: Open
) -> None:
    server.put("org/name", FILES)
    storage = opened("hf://org/name")
    for file in (await storage._pinned()).files.values():
        object.__setattr__(file, "size", 1 << 60)
    with pytest.raises(StorageError, match=r"needs [\d,]+ bytes in .*free some, or set HF_HUB_CACHE"):
        await storage.bring(["model.safetensors"], on_progress=lambda *_: None)
    assert not server.count("HEAD")


def test_a_disk_that_takes_no_more_is_told_and_left_clean(server: Hub, cache: Path) -> None:
    server.put("org/name", FILES)
    command = [sys.executable, hub_fetcher.__file__, "hf://org/name", "model.safetensors"]
    limited = ["sh", "-c", 'ulimit -f 2048 && exec "$@"', "sh", *command]  # of 512 bytes: 1 MiB
    done = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert "can't be kept in" in done.stderr
    assert "File too large" in done.stderr
    assert "raise the limit on the size of files (ulimit -f)" in done.stderr
    assert blobs(cache) == {}


async def test_a_cache_that_may_not_be_written_is_told(
    server: Hub, tmp_path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.put("org/name", FILES)
    (tmp_path / "file").touch()
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(StorageError, match=r"can't be kept in .*/file/below.*set HF_HUB_CACHE to a folder"):
        await bring(opened("hf://org/name"), ["config.json"])
