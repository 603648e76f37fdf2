"""Checkpoints on web servers (M04): read by ranges, resumed, and every refusal told."""

from __future__ import annotations

import random
import socket
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.servers.web import Asked, Web, redirect, sends, web

from llmengine_core import web_storage
from llmengine_core.errors import BadRequestError
from llmengine_core.interfaces.storage import ObjectMissing, StorageError
from llmengine_core.registry import Registry
from llmengine_core.urls import UrlPolicy
from llmengine_core.web_storage import WebStorage

HERE = UrlPolicy(("127.0.0.1",), lookup=lambda host: ["127.0.0.1"])
BODY = random.Random(5).randbytes(1 << 20)
OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_storage, "FIRST_PAUSE", 0.001)


@pytest.fixture
async def server() -> AsyncIterator[Web]:
    async with web({"/dir/model.gguf": BODY}) as server:
        server.tags["/dir/model.gguf"] = '"one"'
        yield server


@pytest.fixture
def storage(server: Web) -> WebStorage:
    return WebStorage(server.url("/dir"), policy=HERE)


async def content(
    storage: WebStorage, key: str = "model.gguf", start: int = 0, stop: int | None = None
) -> bytes:
    return b"".join([piece async for piece in storage.get(key, start=start, stop=stop)])


async def test_m04_a_file_is_described_without_being_taken(server: Web, storage: WebStorage) -> None:
    meta = await storage.head("model.gguf?token=s3cret")
    assert (meta.size, meta.etag, meta.modified_at) == (len(BODY), '"one"', 1445412480.0)
    assert meta.key == "model.gguf?token=s3cret"
    (asked,) = server.asked
    assert (asked.path, asked.headers["range"]) == ("/dir/model.gguf?token=s3cret", "bytes=0-0")


async def test_m04_a_server_without_ranges_is_read_too(server: Web, storage: WebStorage) -> None:
    server.ranges = False
    assert (await storage.head("model.gguf")).size == len(BODY)
    assert await content(storage, start=1000, stop=2000) == BODY[1000:2000]
    server.break_after = [700_000, 800_000]
    assert await content(storage) == BODY


async def test_an_empty_file_is_one(server: Web, storage: WebStorage) -> None:
    server.files["/dir/empty"] = b""
    assert (await storage.head("empty")).size == 0
    assert await content(storage, "empty") == b""
    assert await content(storage, "empty", start=5) == b""


@given(
    st.lists(st.integers(0, len(BODY)), max_size=6),
    st.integers(0, 5000),
    st.none() | st.integers(0, len(BODY)),
)
async def test_what_breaks_off_goes_on_where_it_was(breaks: list[int], start: int, stop: int | None) -> None:
    async with web({"/dir/model.gguf": BODY}) as server:
        server.tags["/dir/model.gguf"] = '"one"'
        server.break_after = [each for each in breaks if each]
        assert (
            await content(WebStorage(server.url("/dir"), policy=HERE), start=start, stop=stop)
            == BODY[start:stop]
        )


async def test_what_goes_on_asks_only_for_the_rest(server: Web, storage: WebStorage) -> None:
    server.break_after = [600_000]
    assert await content(storage) == BODY
    first, second = (each.headers for each in server.asked)
    assert "range" not in first
    begin = int(second["range"].removeprefix("bytes=").partition("-")[0])
    assert 0 < begin <= 600_000
    assert second["if-range"] == '"one"'


@pytest.mark.parametrize("ranges", [True, False])
async def test_a_file_that_changes_while_it_is_read_is_told(
    server: Web, storage: WebStorage, ranges: bool
) -> None:
    server.break_after = [600_000]
    server.ranges = ranges
    pieces = storage.get("model.gguf")
    await anext(pieces)
    server.tags["/dir/model.gguf"] = '"two"'
    with pytest.raises(StorageError, match="changed while it was read"):
        async for _ in pieces:
            pass


async def test_without_anything_to_tell_a_change_by_nothing_goes_on(server: Web, storage: WebStorage) -> None:
    server.files["/dir/x"] = sends(OK + b"Content-Length: 100000\r\n\r\n" + bytes(50_000))
    with pytest.raises(StorageError, match="neither ETag nor Last-Modified"):
        await content(storage, "x")
    assert len(server.asked) == 1


async def test_a_server_that_always_breaks_off_is_given_up(server: Web, storage: WebStorage) -> None:
    server.break_after = [0] * 100
    with pytest.raises(StorageError, match=r"ended before the answer was complete \(5 times in a row\)"):
        await content(storage)
    assert len(server.asked) == 5


async def test_a_server_that_is_busy_for_a_moment_is_asked_again(server: Web, storage: WebStorage) -> None:
    answers = iter(["503 Busy", "429 Slow down", "500 Oops"])

    async def busy(asked: Asked) -> None:
        status = next(answers, None)
        await asked.answer(status or "200 OK", b"" if status else b"here")

    server.files["/dir/x"] = busy
    assert await content(storage, "x") == b"here"


@pytest.mark.parametrize(
    ("status", "kind", "why"),
    [
        ("404 Not Found", ObjectMissing, "no such file; correct the URL"),
        ("410 Gone", ObjectMissing, "no such file"),
        ("401 Unauthorized", StorageError, "wants to know who asks"),
        ("403 Forbidden", StorageError, "signature has expired"),
        ("400 Bad Request", StorageError, r"answered 400 \(Bad Request\)"),
        ("502 Bad Gateway", StorageError, r"answered 502 \(Bad Gateway\) \(5 times in a row\)"),
        ("429 Slow down", StorageError, "left alone for 3600 s"),
    ],
)
async def test_a_refusal_is_told(
    server: Web, storage: WebStorage, status: str, kind: type[StorageError], why: str
) -> None:
    async def refuse(asked: Asked) -> None:
        await asked.answer(status, retry_after="99999" if status.startswith("429") else "")

    server.files["/dir/x"] = refuse
    for call in (storage.head("x?sig=s3cret"), content(storage, "x?sig=s3cret")):
        with pytest.raises(StorageError, match=why) as caught:
            await call
        assert type(caught.value) is kind
        assert "s3cret" not in str(caught.value)


async def test_nobody_there_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    storage = WebStorage(f"http://127.0.0.1:{port}", policy=HERE)
    with pytest.raises(StorageError, match=rf"can't connect to 127\.0\.0\.1 \(127\.0\.0\.1, port {port}\)"):
        await storage.head("x")


async def test_a_size_that_isnt_said_is_told(server: Web, storage: WebStorage) -> None:
    server.files["/dir/x"] = sends(OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n")
    with pytest.raises(StorageError, match="doesn't say how large"):
        await storage.head("x")
    assert await content(storage, "x", stop=10) == b"x"
    server.files["/dir/x"] = sends(OK + b"Content-Length: 999999999999999999\r\n\r\n")
    with pytest.raises(StorageError, match="has 999,999,999,999,999,999 bytes; at most"):
        await storage.head("x")


async def test_what_leads_where_it_may_not_is_the_callers_to_mend(server: Web, storage: WebStorage) -> None:
    server.files["/dir/x"] = redirect("http://169.254.169.254/")
    for call in (storage.head("x"), content(storage, "x")):
        with pytest.raises(BadRequestError, match=r"leads to 169\.254"):
            await call
    with pytest.raises(BadRequestError, match="LLMENGINE_PRIVATE_HOSTS"):
        WebStorage("http://10.0.0.1/dir", policy=UrlPolicy())
    inside = WebStorage(server.url("/dir"), policy=UrlPolicy(lookup=lambda host: ["127.0.0.1"]))
    with pytest.raises(BadRequestError, match=r"leads to 127\.0\.0\.1"):
        await inside.head("model.gguf")


async def test_a_web_server_lists_nothing_and_says_what_to_give(storage: WebStorage) -> None:
    with pytest.raises(StorageError, match=r"single file \(\.gguf, \.safetensors\), or of a \.tar"):
        await anext(storage.list("dir/"))


async def test_the_core_registers_it_for_both_schemes(server: Web) -> None:
    registry = Registry.build(sources=[])
    info = registry.storages_by_scheme["https"]
    assert info is registry.storages_by_scheme["http"]
    assert not info.writable
    opened = registry.open_storage(info, server.url("/dir"), HERE)
    assert (await opened.head("model.gguf")).size == len(BODY)
