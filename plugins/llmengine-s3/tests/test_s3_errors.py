"""Each way in which a server refuses or fails is told in words of its own, with the mend and without secrets."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from s3_stub import refusal, stub
from tests.servers.proxy import Fault, FaultProxy, fault_proxy, in_turn
from tests.servers.seaweed import READER, TENANT, TENANTS_BUCKET, Identity

from llmengine_core.interfaces.storage import ObjectMissing, StorageError
from llmengine_core.testing.contracts.storages.ground import content, listed
from llmengine_s3 import client, line
from llmengine_s3.storage import S3Storage

if TYPE_CHECKING:
    from tests.servers.seaweed import S3Server

SECRET = "the-secret-of-these-tests"


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[S3Storage]:
    storage = S3Storage(url)
    try:
        yield storage
    finally:
        await storage.aclose()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up soon: how long is waited is what other tests see."""
    monkeypatch.setattr(client, "UNREACHABLE", 0.3)
    monkeypatch.setattr(client, "DEADLINE", 1.0)
    monkeypatch.setattr(client, "PAUSE", 0.01)


@pytest.fixture
def proxy(only_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A way to the server on which a plan's faults lie in wait."""
    with fault_proxy(only_server.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy


async def told(url: str, call: Any = None) -> str:
    """The words in which a call fails; by default a look at an object."""
    async with opened(url) as storage:
        with pytest.raises(StorageError) as caught:
            await (storage.head("k") if call is None else call(storage))
    text = str(caught.value)
    assert not isinstance(caught.value, ObjectMissing), text
    assert SECRET not in text
    assert "Signature=" not in text
    return text


def become(patch: pytest.MonkeyPatch, identity: Identity) -> None:
    patch.setenv("AWS_ACCESS_KEY_ID", identity.access_key)
    patch.setenv("AWS_SECRET_ACCESS_KEY", identity.secret)


CALLS = (
    lambda storage: storage.head("k"),
    lambda storage: content(storage, "k"),
    lambda storage: storage.put("k", b"x"),
    lambda storage: storage.copy("k", "l"),
    lambda storage: storage.delete("k"),
    lambda storage: listed(storage),
)


async def test_wrong_credentials_are_told(only_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"s3://{only_server.bucket()}"
    become(monkeypatch, Identity("AKADMIN", SECRET))
    for call in CALLS:
        assert f"in {url}: the secret access key is wrong; check AWS_SECRET_ACCESS_KEY" in await told(
            url, call
        )
    become(monkeypatch, Identity("AKNOBODY", SECRET))
    for call in CALLS:
        assert "the server doesn't know the access key; check AWS_ACCESS_KEY_ID" in await told(url, call)


async def test_a_missing_bucket_is_told(only_server: S3Server) -> None:
    for call in CALLS:
        assert "there is no such bucket; create it, or correct the URL" in await told(
            "s3://no-such-bucket/f", call
        )


async def test_what_is_denied_is_told_with_the_right_that_it_needs(
    only_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = only_server.bucket()
    only_server.client().put_object(Bucket=bucket, Key="k", Body=b"content")
    become(monkeypatch, READER)
    async with opened(f"s3://{bucket}") as storage:
        assert await content(storage, "k") == b"content"
    put = await told(f"s3://{bucket}", CALLS[2])
    assert "can't put 'k'" in put
    assert "the credentials may not do that; give them s3:PutObject" in put
    become(monkeypatch, TENANT)
    assert "give them s3:ListBucket" in await told(f"s3://{bucket}", CALLS[5])
    assert "give them s3:GetObject" in await told(f"s3://{bucket}", CALLS[1])
    async with opened(f"s3://{TENANTS_BUCKET}/test_s3_errors") as storage:
        await storage.put("k", b"content")
        assert await content(storage, "k") == b"content"


@pytest.mark.parametrize(
    ("status", "code", "headers", "words"),
    [
        (400, "ExpiredToken", {}, "the credentials have expired; renew them"),
        (403, "InvalidToken", {}, "the session token is wrong; check AWS_SESSION_TOKEN"),
        (403, "RequestTimeTooSkewed", {}, "this machine's clock is wrong"),
        (301, "PermanentRedirect", {"x_amz_bucket_region": "eu-west-1"}, "in the region eu-west-1; set AWS_REGION=eu-"),
        (307, "TemporaryRedirect", {}, "another region or at another server; set AWS_REGION or AWS_ENDPOINT_URL"),
        (503, "SlowDown", {}, "the server is overloaded and refused 10 tries"),
        (500, "InternalError", {}, "the server failed 10 times"),
        (403, "InvalidObjectState", {}, "restore it first"),
        (405, "MethodNotAllowed", {}, "the server doesn't do that"),
        (400, "Odd", {}, "the server refused (Odd: The server's own words.)"),
        (403, "KMS.DisabledException", {}, "may not do that; give them s3:GetObject on it, or use others (KMS.D"),
    ],
)  # fmt: skip
async def test_what_servers_say_is_told_in_our_words(
    only_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    code: str,
    headers: dict[str, str],
    words: str,
) -> None:
    monkeypatch.setattr(client, "DEADLINE", 60.0)
    monkeypatch.setattr(client, "LONGEST_PAUSE", 0.01)
    with stub(lambda _: refusal(status, code, **headers)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        for call in (CALLS[1], CALLS[0]):
            assert words in (await told("s3://bucket", call)).replace(" and s3:ListBucket", "")


async def test_what_is_no_s3_server_is_told(only_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for body in (
        b"<html><body>Welcome!</body></html>",
        b"not xml",
        b"<!DOCTYPE x [<!ENTITY a 'b'>]><x>&a;</x>",
    ):
        with stub(lambda _, body=body: (200, {}, body)) as server:  # type: ignore[misc]
            monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
            assert "check that AWS_ENDPOINT_URL leads to an S3 server" in await told("s3://bucket", CALLS[5])
    with stub(lambda _: (404, {}, b"no page")) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        assert "answers as none of S3's does" in await told("s3://bucket", CALLS[1])
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://127.0.0.1:{listening.getsockname()[1]}")

        async def greet() -> None:
            loop = asyncio.get_running_loop()
            listening.setblocking(False)
            accepted, _ = await loop.sock_accept(listening)
            with accepted:
                await loop.sock_sendall(accepted, b"220 mail.example ready\r\n" * 10)
                await loop.sock_recv(accepted, 10)

        greeting = asyncio.ensure_future(greet())
        assert "doesn't speak TLS as is due" in await told("s3://bucket")
        await greeting


async def test_a_certificate_of_ones_own_authority_is_named(
    only_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    await asyncio.to_thread(
        subprocess.run,
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trusted.load_cert_chain(certificate, key)
    whole = bytes(range(256)) * 8000
    with stub(lambda asked: (200, {"ETag": '"e"'}, whole if asked.method == "GET" else b"")) as server:
        server.server.socket = trusted.wrap_socket(server.server.socket, server_side=True)
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url.replace("http:", "https:"))
        found = await told("s3://bucket")
        assert "isn't trusted" in found
        assert "by AWS_CA_BUNDLE" in found
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
        async with opened("s3://bucket") as storage:
            assert (await storage.put("k", whole)).etag == "e"
            assert server.asked[-1].body == whole
            assert await content(storage, "k") == whole


async def test_nobody_there_is_told(only_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    found = await told("s3://bucket")
    assert f"nobody answers at http://127.0.0.1:{port}" in found
    assert "start the server, or correct AWS_ENDPOINT_URL" in found
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://name.invalid")
    assert "nobody knows the name of http://name.invalid; check AWS_ENDPOINT_URL" in await told("s3://bucket")


async def test_a_server_that_hangs_is_given_up(proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "DEADLINE", 0.2)
    proxy.plan = lambda _: Fault(stall=True)
    quick = client.Request

    def hasty(*given: Any, **named: Any) -> client.Request:
        made = quick(*given, **named)
        return quick(made.method, made.key, made.query, made.headers, made.content, 0.3)

    monkeypatch.setattr("llmengine_s3.storage.Request", hasty)
    assert "is too slow: nothing came" in await told("s3://bucket")


async def test_what_fails_for_a_while_succeeds(proxy: FaultProxy, only_server: S3Server) -> None:
    bucket = only_server.bucket()
    for fault in (
        Fault(status=503),
        Fault(status=500),
        Fault(status=429),
        Fault(lose_answer=True),
        Fault(cut_request=0),
        Fault(cut_answer=0),
    ):
        async with opened(f"s3://{bucket}") as storage:
            for call, expected in (
                (storage.put("k", b"content"), None),
                (content(storage, "k"), b"content"),
                (storage.head("k"), None),
                (storage.copy("k", "l"), None),
                (listed(storage), None),
                (storage.delete("l"), True),
            ):
                proxy.reset(in_turn([fault, None, fault]))
                found = await call
                assert expected is None or found == expected, (fault, found)


async def test_a_read_goes_on_where_its_connection_broke(proxy: FaultProxy, only_server: S3Server) -> None:
    whole = bytes(range(256)) * 16_000
    async with opened(f"s3://{only_server.bucket()}") as storage:
        await storage.put("k", whole)
        cuts = [Fault(cut_answer=after) for after in (1_000_000, 0, 70_000)]
        proxy.reset(in_turn([cuts[0], Fault(status=503), *cuts[1:]]))
        assert await content(storage, "k") == whole
        assert [each.headers.get("range", "") for each in proxy.asked][:2] == [
            "",
            f"bytes=1000000-{len(whole) - 1}",
        ]
        proxy.reset(in_turn([Fault(cut_answer=1_000_000)]))
        found = b"".join([piece async for piece in storage.get("k", start=10, stop=3_000_000)])
        assert found == whole[10:3_000_000]


async def test_a_read_never_goes_on_in_another_content(proxy: FaultProxy, only_server: S3Server) -> None:
    async with opened(f"s3://{only_server.bucket()}") as storage:
        await storage.put("k", b"o" * 4_000_000)
        proxy.reset(in_turn([Fault(cut_answer=1_000_000)]))
        reading = storage.get("k")
        taken = await anext(reading)
        await storage.put("k", b"n" * 4_000_000)

        async def rest() -> None:
            nonlocal taken
            async for piece in reading:
                taken += piece

        with pytest.raises(StorageError, match="it was replaced while it was read; read it again"):
            await rest()
        assert taken == b"o" * 1_000_000


def test_the_bounds_are_those_that_the_readme_names() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    assert f"{client.TRIES} tries" in readme
    assert f"{line.STALL:g} s" in readme


@pytest.mark.parametrize("framing", ["Transfer-Encoding: chunked\r\n\r\n7\r\n", "Connection: close\r\n\r\n"])
async def test_a_content_of_unknown_size_is_not_taken_for_whole(
    framing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f'HTTP/1.1 200 OK\r\nETag: "x"\r\n{framing}some of\r\n'.encode())
        await writer.drain()
        writer.close()

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")

        async def read(storage: S3Storage) -> bytes:
            return b"".join([piece async for piece in storage.get("k")])

        assert "doesn't say how large the object is" in await told("s3://bucket/folder", read)
