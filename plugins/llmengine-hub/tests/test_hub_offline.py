"""Without the hub, the cache answers where all is there; where not, it is said what to fetch and where to put it."""

from __future__ import annotations

import json
import shutil
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hub_uses import bring, content, listed
from tests.servers.hub import Hub

from llmengine_core.interfaces.storage import StorageError
from llmengine_core.urls import UrlPolicy
from llmengine_hub.storage import HubStorage

Open = Callable[[str], HubStorage]
FILES = {"config.json": b"{}", "model.safetensors": b"weights" * 10_000, "pytorch_model.bin": b"pickled"}
WANTED = ["config.json", "model.safetensors"]


@pytest.mark.parametrize("away", ["HF_HUB_OFFLINE", "unreachable", "broken"])
async def test_the_cache_answers(
    server: Hub, opened: Open, cache: Path, monkeypatch: pytest.MonkeyPatch, away: str
) -> None:
    commit = server.put("org/name", FILES)
    online = opened("hf://org/name")
    folder, metas = await bring(online, WANTED), await listed(online)
    match away:
        case "unreachable":
            server.close()
        case "broken":
            server.repos.clear()
            server.down = True
        case _:
            monkeypatch.setenv(away, "1")
    asked = len(server.asked)
    storage = opened("hf://org/name")
    assert await listed(storage) == [meta for meta in metas if meta.key in WANTED]
    assert await storage.head("pytorch_model.bin") == metas[-1]
    assert await bring(storage, WANTED) == folder
    assert await content(storage, "config.json") == b"{}"
    assert await bring(opened(f"hf://org/name@{commit}"), WANTED) == folder
    for call in (bring(storage, list(FILES)), content(storage, "pytorch_model.bin")):
        with pytest.raises(StorageError) as caught:
            await call
        assert f"pytorch_model.bin (7 bytes) of hf://org/name is not in the cache {cache}" in str(
            caught.value
        )
        assert "Run `hf download org/name --include pytorch_model.bin` where the hub" in str(caught.value)
        assert "put the folder models--org--name of its cache into that one" in str(caught.value)
    with pytest.raises(StorageError, match="Run `hf download org/other` where the hub can be reached"):
        await listed(opened("hf://org/other"))
    if away not in ("unreachable", "broken"):
        assert len(server.asked) == asked


async def test_a_branch_whose_commit_was_fetched_is_found_without_the_hub(
    server: Hub, opened: Open, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.put("org/name", FILES)
    branch = opened("hf://org/name")
    settled = await branch.settled()
    assert settled is not None
    assert not (cache / "models--org--name").exists()  # it was only looked at
    known_still = HubStorage(settled, policy=UrlPolicy(("127.0.0.1",)))
    folder = await bring(known_still, WANTED)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert await opened("hf://org/name").is_here()
    assert await bring(opened("hf://org/name"), WANTED) == folder


@pytest.mark.parametrize("number", [socket.EAI_NONAME, socket.EAI_AGAIN])
async def test_a_machine_on_which_nobody_knows_the_hubs_name_is_offline(
    server: Hub, opened: Open, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def lookup(host: str) -> list[str]:
        raise socket.gaierror(number, "the resolver's words")

    server.put("org/name", FILES)
    monkeypatch.setenv("HF_ENDPOINT", server.url.replace("127.0.0.1", "localhost"))
    folder = await bring(opened("hf://org/name"), WANTED)
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example")
    away = UrlPolicy(lookup=lookup)
    assert await bring(HubStorage("hf://org/name", policy=away), WANTED) == folder
    with pytest.raises(StorageError, match=r"the resolver's words.* network.*Run `hf download org/other`"):
        await listed(HubStorage("hf://org/other", policy=away))


async def test_weights_that_are_there_in_part_are_listed_whole(
    server: Hub, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = {f"model-0000{n}-of-00003.safetensors": b"part" for n in (1, 2, 3)}
    server.put("org/name", {"config.json": b"{}", **parts, "other-00001-of-00002.bin": b"", "a.gguf": b"a"})
    await bring(opened("hf://org/name"), ["config.json"])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(StorageError, match="hf://org/name is not in the cache"):
        await listed(opened("hf://org/name"))
    with pytest.raises(StorageError, match=r"org/name --include a.gguf --include 'a.gguf/\*'"):
        await listed(opened("hf://org/name/a.gguf"))
    monkeypatch.delenv("HF_HUB_OFFLINE")
    await bring(opened("hf://org/name"), ["model-00002-of-00003.safetensors"])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    storage = opened("hf://org/name")
    assert [meta.key for meta in await listed(storage)] == ["config.json", *parts]
    with pytest.raises(
        StorageError, match=r"model-00003-of-00003.safetensors \(4 bytes\) of hf://org/name is not"
    ):
        await content(storage, "model-00003-of-00003.safetensors")


async def test_a_cache_carried_here_by_hand_is_used_and_checked(
    server: Hub, opened: Open, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.put("org/name", FILES)
    await bring(opened("hf://org/name"), WANTED)
    shutil.copytree(cache, tmp_path / "carried", symlinks=True)
    for kept in ("trees", ".llmengine"):
        shutil.rmtree(tmp_path / "carried" / "models--org--name" / kept, ignore_errors=True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "carried"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    storage = opened("hf://org/name")
    assert [meta.key for meta in await listed(storage)] == WANTED  # what lies there
    folder = await bring(storage, WANTED)
    blob = (folder / "model.safetensors").resolve()
    blob.write_bytes(FILES["model.safetensors"][:-1] + b"?")
    with pytest.raises(
        StorageError, match=r"'model.safetensors' of .* came with other content than its digest"
    ):
        await bring(storage, WANTED)
    assert blob.exists()  # nobody could fetch it again


async def test_a_cache_that_is_only_for_reading_is_used(
    server: Hub, opened: Open, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.put("org/name", FILES)
    await bring(opened("hf://org/name"), WANTED)
    shutil.rmtree(cache / "models--org--name" / ".llmengine")
    (cache / "models--org--name" / ".llmengine").touch()  # nothing can be written below, not even by root
    folder = await bring(opened("hf://org/name"), WANTED)
    assert (folder / "config.json").read_bytes() == b"{}"


async def test_listings_in_the_cache_that_are_none_do_no_harm(
    server: Hub, opened: Open, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = server.put("org/name", FILES)
    await bring(opened("hf://org/name"), WANTED)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    kept = cache / "models--org--name" / ".llmengine" / "trees" / f"{commit}.json"
    sound = json.loads(kept.read_text(encoding="utf-8"))["files"]
    for text in (
        "",
        "[]",
        "{" * 100_000,
        '{"files": [1]}',
        json.dumps({"files": {"a": {"size": -1, "blob_id": "0" * 40}}}),
        json.dumps({"files": {"a": {"size": 1, "blob_id": "../../../x"}}}),
        json.dumps({"files": {"../evil": sound["config.json"], **sound}}),
    ):
        kept.write_text(text, encoding="utf-8")
        assert [meta.key for meta in await listed(opened("hf://org/name"))] == WANTED
    (cache / "models--org--name" / "refs" / "main").write_text("../../../etc", encoding="ascii")
    with pytest.raises(StorageError, match="is not in the cache"):
        await listed(opened("hf://org/name"))


async def test_the_cache_is_as_its_own_library_leaves_it(server: Hub, opened: Open, cache: Path) -> None:
    """What others of this machine find there is what they know."""
    server.put("org/name", FILES)
    folder = await bring(opened("hf://org/name"), WANTED)
    for key in WANTED:
        assert (folder / key).is_symlink()
        assert (folder / key).resolve().parent == cache / "models--org--name" / "blobs"
        assert stat.S_IMODE((folder / key).stat().st_mode) & 0o444
    from huggingface_hub import scan_cache_dir

    found = scan_cache_dir(cache)
    assert [repo.repo_id for repo in found.repos] == ["org/name"]
    assert not found.warnings
