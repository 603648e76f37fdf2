"""What repositories hold is described and read, of one commit, wherever the hub keeps it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hub_uses import content, listed
from hypothesis import given
from hypothesis import strategies as st
from tests.servers.hub import Fault, Hub

from llmengine_core.interfaces.storage import ObjectMissing, StorageError
from llmengine_hub.repositories import parse
from llmengine_hub.storage import HubStorage

Open = Callable[[str], HubStorage]
BIG = os.urandom(300_000)
FILES = {
    "config.json": b"{}",
    "a/b.txt": b"inner",
    "a.txt": b"beside",
    "z é[1].bin": b"odd",
    "model.safetensors": BIG,
}


@pytest.mark.parametrize(
    ("url", "name", "revision", "folder"),
    [
        ("hf://org/name", "org/name", "main", ""),
        ("hf://org/name/", "org/name", "main", ""),
        ("hf://gpt2", "gpt2", "main", ""),
        ("hf://gpt2@v1/onnx", "gpt2", "v1", "onnx/"),
        ("hf://Org/Na.me-1_x@refs%2Fpr%2F1", "Org/Na.me-1_x", "refs/pr/1", ""),
        ("hf://org/name@0123abc/deep/folder", "org/name", "0123abc", "deep/folder/"),
        ("hf://org/name/a%20b", "org/name", "main", "a b/"),
    ],
)
def test_urls_name_repositories_revisions_and_folders(
    url: str, name: str, revision: str, folder: str
) -> None:
    repository, found = parse(url)
    assert (repository.name, repository.revision, found) == (name, revision, folder)
    assert parse(repository.url)[0] == repository


@pytest.mark.parametrize(
    "url",
    [
        "hf://",
        "hf:org/name?x=1",
        "hf://org/name#x",
        "https://org/name",
        "hf://org/na--me",
        "hf://org/.name",
        "hf://org/name.git",
        "hf://org/nämé",
        f"hf://org/{'x' * 97}",
        "hf://org/name@",
        "hf://org/name@..%2F..%2Fetc",
        "hf://org/name@a%2F%2Fb",
        "hf://org/name@%2Fa",
        "hf://org/name@a%00b",
        "hf://org/name@a%2F.hidden",
        "hf://org/name@-x",
        "hf://org/name/../other",
        "hf://org/name/%2e%2e/other",
        "hf://datasets/org/name",
        "hf://spaces/org",
    ],
)
def test_urls_that_name_none_are_refused(url: str) -> None:
    with pytest.raises(StorageError):
        HubStorage(url)


@given(st.text(max_size=12))
def test_no_revision_leads_out_of_the_cache(revision: str) -> None:
    try:
        repository, _ = parse(f"hf://org/name@{revision.replace('/', '%2F')}")
    except (StorageError, ValueError):
        return
    refs = Path("/cache/refs")
    inside = Path(os.path.normpath(refs / repository.revision))
    assert inside == refs / repository.revision
    assert inside.is_relative_to(refs)
    assert inside != refs


async def test_files_are_listed_in_order_and_described_page_by_page(server: Hub, opened: Open) -> None:
    server.page = 2
    server.put("org/name", FILES)
    storage = opened("hf://org/name")
    metas = await listed(storage)
    assert [meta.key for meta in metas] == sorted(FILES, key=str.encode)
    assert [meta.size for meta in metas] == [len(FILES[meta.key]) for meta in metas]
    assert {meta.key for meta in metas if meta.sha256} == {"z é[1].bin", "model.safetensors"}
    assert all(meta.etag for meta in metas)
    for meta in metas:
        assert await storage.head(meta.key) == meta
        assert await content(storage, meta.key) == FILES[meta.key]
        assert await content(storage, meta.key, 1, 3) == FILES[meta.key][1:3]
    assert [meta.key for meta in await listed(storage, "a", "a.txt")] == ["a/b.txt"]
    assert server.count("/revision/main") == 1
    assert server.count("/tree/") == 3  # five files and a folder
    with pytest.raises(ObjectMissing, match=r"hf://org/name has no file 'a'"):
        await storage.head("a")


async def test_a_folder_of_a_repository_is_a_storage(server: Hub, opened: Open) -> None:
    server.put("org/name", {"config.json": b"{}", "onnx/model.bin": b"inner", "onnx/deep/x": b"deep"})
    storage = opened("hf://org/name/onnx")
    assert [meta.key for meta in await listed(storage)] == ["deep/x", "model.bin"]
    assert [meta.key for meta in await listed(storage, "", "deep/x")] == ["model.bin"]
    assert await content(storage, "deep/x") == b"deep"
    with pytest.raises(ObjectMissing):
        await storage.head("config.json")


async def test_a_storage_sees_one_commit_and_so_does_who_opens_it_soon(server: Hub, opened: Open) -> None:
    server.put("org/name", {"config.json": b"before", "gone.txt": b"gone"})
    storage = opened("hf://org/name")
    assert (await storage.head("config.json")).size == 6
    server.put("org/name", {"config.json": b"after it"})
    assert await content(storage, "config.json") == b"before"
    assert await content(HubStorage("hf://org/name"), "gone.txt") == b"gone"
    settled = await storage.settled()
    assert await content(opened("hf://org/name"), "config.json") == b"after it"
    assert settled is not None
    assert await content(opened(settled), "config.json") == b"before"
    inner = HubStorage(f"{settled}/a b".replace(" ", "%20"))
    assert await inner.settled() == f"{settled}/a%20b"


async def test_revisions_with_slashes_renamed_repositories_and_single_names(
    server: Hub, opened: Open
) -> None:
    server.put("org/name", {"config.json": b"main"})
    commit = server.put("org/name", {"config.json": b"pr"}, revision="refs/pr/1")
    server.put("single", {"config.json": b"single"})
    server.moved["old"] = "org/name"
    assert await content(opened("hf://org/name@refs%2Fpr%2F1"), "config.json") == b"pr"
    assert await content(opened(f"hf://org/name@{commit}"), "config.json") == b"pr"
    assert await content(opened("hf://single"), "config.json") == b"single"
    assert await content(opened("hf://old"), "config.json") == b"main"


@pytest.mark.parametrize(
    "fault",
    [
        Fault("GET /api/models/.*/revision", times=2, status=503),
        Fault("GET /api/models/.*/tree", times=2, status=502),
        Fault("GET /api/models/.*/tree", times=1, cut_after=10),
        Fault("GET /api/models/", times=2, status=429, headers={"Retry-After": "0"}),
        Fault("hub GET .*/resolve/", times=2, status=500),
        Fault("store GET", times=2, cut_after=100_000),
    ],
    ids=lambda fault: f"{fault.on} {fault.status or 'cut'}",
)
async def test_what_passes_is_tried_again(server: Hub, opened: Open, fault: Fault) -> None:
    server.put("org/name", FILES)
    server.faults.append(fault)
    storage = opened("hf://org/name")
    assert len(await listed(storage)) == len(FILES)
    assert await content(storage, "model.safetensors") == BIG
    assert fault.times == 0


async def test_what_is_read_goes_on_where_it_broke_off(server: Hub, opened: Open) -> None:
    server.put("org/name", FILES)
    server.faults.append(Fault("store GET", cut_after=200_000))
    assert await content(opened("hf://org/name"), "model.safetensors", 1000) == BIG[1000:]
    ranges = [each.headers["range"] for each in server.asked if each.server == "store"]
    assert ranges[0] == "bytes=1000-299999"
    assert server.sent < 320_000


async def test_files_that_are_no_safe_path_are_never_seen(server: Hub, opened: Open) -> None:
    server.put(
        "org/name", {"config.json": b"{}", "../../evil": b"evil", "/abs": b"evil", "a//b": b"", "a\x01": b""}
    )
    storage = opened("hf://org/name")
    assert [meta.key for meta in await listed(storage)] == ["config.json"]
    for key in ("../../evil", "/abs", "a//b"):
        with pytest.raises(StorageError, match="is no key"):
            await storage.bring([key], on_progress=lambda *_: None)


@pytest.mark.parametrize(
    "body",
    [b"<html>", b"[]", b"{}", b'{"sha": "main"}', b'{"sha": "../../../etc"}', b"[" * 100_000, b"\xff"],
    ids=lambda body: body[:20].decode(errors="replace"),
)
async def test_what_is_no_hub_is_told(server: Hub, opened: Open, body: bytes) -> None:
    server.put("org/name", FILES)
    server.faults.append(Fault("/revision/", times=9, status=200, body=body))
    with pytest.raises(StorageError, match="as no hub does; see that HF_ENDPOINT names one"):
        await listed(opened("hf://org/name"))


async def test_nothing_is_asked_before_the_first_call_and_no_thread_stays(server: Hub, opened: Open) -> None:
    server.put("org/name", FILES)
    before = threading.active_count()
    storage = opened("hf://org/name")
    assert not server.asked
    await storage.aclose()
    await storage.aclose()
    assert threading.active_count() == before
