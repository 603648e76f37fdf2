"""What is fetched of web servers, honest and other; every server here is on this machine."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import random
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import aclosing, contextmanager, suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.servers.web import Asked, Authority, Script, Web, redirect, sends, web

from llmengine_core.errors import BadRequestError
from llmengine_core.fetching import Broken, Fetched, FetchError, Limits, Refused, TooMuch, fetch
from llmengine_core.http.connection import MAX_HEAD
from llmengine_core.urls import UrlPolicy

HERE = UrlPolicy(("127.0.0.1",), lookup=lambda host: ["127.0.0.1"])
LIMITS = Limits(size=1 << 20)
OK = b"HTTP/1.1 200 OK\r\n"


async def content(url: str, policy: UrlPolicy = HERE, limits: Limits = LIMITS, **options: Any) -> bytes:
    async with fetch(url, policy, limits, **options) as answer:
        return b"".join([piece async for piece in answer.pieces])


async def described(url: str, **options: Any) -> Fetched:
    async with fetch(url, HERE, LIMITS, **options) as answer:
        return answer


async def refusal(script: Script, kind: type[Exception], match: str, limits: Limits = LIMITS) -> None:
    """What comes of a server that does that."""
    async with web({"/x": script}) as server:
        with pytest.raises(kind, match=match):
            await content(server.url("/x"), limits=limits)


# --- what is given


@given(st.binary(max_size=3000), st.integers(0, 3100), st.none() | st.integers(1, 3200), st.booleans())
def test_the_bytes_that_were_asked_for_come_whether_or_not_ranges_are_known(
    body: bytes, start: int, length: int | None, ranges: bool
) -> None:
    async def told() -> None:
        async with web({"/x": body}) as server:
            server.ranges = ranges
            stop = None if length is None else start + length
            async with fetch(server.url("/x"), HERE, LIMITS, start=start, stop=stop) as answer:
                assert b"".join([piece async for piece in answer.pieces]) == body[start:stop]
                assert answer.size == len(body)

    asyncio.run(told())


async def test_what_is_asked_carries_nothing_of_ours() -> None:
    async with web({"/a%20b": b"0123"}) as server:
        await content(server.url("/a%20b") + "?token=s", start=3)
    (asked,) = server.asked
    assert asked.path == "/a%20b?token=s"
    assert asked.headers == {
        "host": f"files.test:{server.port}",
        "accept": "*/*",
        "accept-encoding": "identity",
        "user-agent": "llmengine",
        "connection": "close",
        "range": "bytes=3-",
    }


async def test_a_validator_is_a_strong_tag_or_the_time_of_change() -> None:
    async with web({"/strong": b"x", "/weak": b"x"}) as server:
        server.tags = {"/strong": '"a"', "/weak": 'W/"a"'}
        assert (await described(server.url("/strong"))).validator == '"a"'
        weak = await described(server.url("/weak"))
        assert weak.validator == "Wed, 21 Oct 2015 07:28:00 GMT"
        assert weak.modified_at == 1445412480.0


async def test_content_types_mean_nothing() -> None:
    async def script(asked: Asked) -> None:
        await asked.answer("200 OK", b"rows", content_type="application/x-evil; charset=utf-7")

    async with web({"/x": script}) as server:
        assert await content(server.url("/x")) == b"rows"


async def test_the_connection_ends_with_the_block() -> None:
    async with web({"/x": bytes(8 << 20)}) as server:
        limits = Limits(size=1 << 30)
        async with fetch(server.url("/x"), HERE, limits) as answer, aclosing(answer.pieces) as pieces:
            assert await anext(pieces)
        assert await asyncio.wait_for(server.hung_up.get(), 20) == "/x"


async def test_a_fetch_that_is_cancelled_hangs_up() -> None:
    asked = asyncio.Event()

    async def silent(_: Asked) -> None:
        asked.set()
        await asyncio.Event().wait()

    async with web({"/x": silent}) as server:
        task = asyncio.create_task(content(server.url("/x")))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


# --- redirects


@pytest.mark.parametrize(
    "status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"]
)
async def test_redirects_are_followed_with_the_range(status: str) -> None:
    async with (
        web({"/x": redirect("/y?z", status), "/y": b"0123456789"}) as server,
        fetch(server.url("/x"), HERE, LIMITS, start=2, stop=4) as answer,
    ):
        assert b"".join([piece async for piece in answer.pieces]) == b"23"
        assert answer.url == server.url("/y?z")


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("http://169.254.169.254/latest/meta-data/", "leads to 169.254.169.254, which is link-local"),
        ("http://[fd00:ec2::254]/", "leads to fd00:ec2::254"),
        ("http://0xa9fea9fe/", "leads to 169.254.169.254"),
        ("http://[::ffff:a9fe:a9fe]/", "another form of 169.254.169.254"),
        ("//10.0.0.1/x", "leads to 10.0.0.1"),
        ("file:///etc/passwd", "scheme 'file'"),
        ("ftp://example.com/x", "scheme 'ftp'"),
        ("javascript:alert(1)", "scheme 'javascript'"),
        ("http://user:s3cret@example.com/", "user or a password"),
        ("http://[::1", "holds|no URL"),
        ("/a b", "holds ' '"),
    ],
)
async def test_a_redirect_is_judged_like_the_url_itself(location: str, why: str) -> None:
    async with web({"/x": redirect(location)}) as server:
        with pytest.raises(BadRequestError, match=why) as caught:
            await content(server.url("/x"))
    assert "the redirect of http://files.test" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert len(server.asked) == 1


async def test_a_redirect_to_a_name_is_resolved_anew() -> None:
    asked: list[str] = []

    def lookup(host: str) -> Iterable[str]:
        asked.append(host)
        return ["127.0.0.1"] if host == "files.test" else ["169.254.169.254"]

    async with web({"/x": redirect("http://metadata.test/")}) as server:
        with pytest.raises(BadRequestError, match=r"metadata\.test/' leads to 169"):
            await content(server.url("/x"), UrlPolicy(("files.test",), lookup=lookup))
    assert asked == ["files.test", "metadata.test"]


async def test_five_redirects_are_followed_and_no_loop_is() -> None:
    chain: dict[str, bytes | Script] = {f"/{at}": redirect(f"/{at + 1}") for at in range(5)}
    async with web(chain | {"/5": b"x", "/loop": redirect("/loop"), "/long": redirect("/0")}) as server:
        assert await content(server.url("/0")) == b"x"
        for path in ("/loop", "/long"):
            before = len(server.asked)
            with pytest.raises(FetchError, match="redirects for the 6th time"):
                await content(server.url(path))
            assert len(server.asked) - before == 6


async def test_a_token_is_for_its_own_server_alone() -> None:
    async with web({"/x": b"x"}) as other, web({"/x": b"x", "/out": redirect(other.url("/back"))}) as own:
        other.files["/back"] = redirect(own.url("/x"))
        own.files["/in"] = redirect("/x")
        assert await content(own.url("/in"), bearer="s3cret") == b"x"
        assert [each.headers["authorization"] for each in own.asked] == ["Bearer s3cret"] * 2
        assert await content(own.url("/out"), bearer="s3cret") == b"x"
        assert "authorization" not in other.asked[0].headers
        assert "authorization" not in own.asked[-1].headers


@pytest.mark.parametrize(
    "options", [{"bearer": "a\r\nb"}, {"bearer": ""}, {"if_range": "a\r\nb", "start": 1}]
)
async def test_no_header_is_smuggled_in(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"bearer|if_range"):
        await content("http://files.test/x", **options)


async def test_a_redirect_that_leads_nowhere_is_said() -> None:
    await refusal(
        sends(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n"), FetchError, "without saying where"
    )
    twice = b"HTTP/1.1 302 Found\r\nLocation: /a\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n"
    await refusal(sends(twice), BadRequestError, "holds ' '")


async def test_bytes_beyond_ascii_in_a_redirect_are_encoded() -> None:
    script = sends("HTTP/1.1 302 Found\r\nLocation: /é\r\nContent-Length: 0\r\n\r\n".encode())
    async with web({"/x": script, "/%C3%A9": b"x"}) as server:
        assert await content(server.url("/x")) == b"x"


# --- DNS


async def test_a_name_is_asked_for_once_and_that_address_connected_to() -> None:
    answers = itertools.chain([["127.0.0.1"]], itertools.repeat(["169.254.169.254"]))
    policy = UrlPolicy(("127.0.0.1",), lookup=lambda host: next(answers))
    async with web({"/x": b"x"}) as server:
        assert await content(server.url("/x", "rebinding.test"), policy) == b"x"
        with pytest.raises(BadRequestError, match=r"rebinding\.test.* leads to 169"):
            await content(server.url("/x", "rebinding.test"), policy)
    assert [each.headers["host"] for each in server.asked] == [f"rebinding.test:{server.port}"]


async def test_a_name_that_also_leads_inside_is_not_asked_at_all() -> None:
    policy = UrlPolicy(("127.0.0.1",), lookup=lambda host: ["127.0.0.1", "10.0.0.1"])
    async with web({"/x": b"x"}) as server:
        with pytest.raises(BadRequestError, match=r"leads to 10\.0\.0\.1"):
            await content(server.url("/x"), policy)
    assert server.asked == []


async def test_the_next_address_is_taken_where_one_takes_no_connection() -> None:
    policy = UrlPolicy(("127.0.0.0/8",), lookup=lambda host: ["127.0.0.2", "127.0.0.1"])
    async with web({"/x": b"x"}) as server:
        assert await content(server.url("/x"), policy) == b"x"
        port = server.port
    with pytest.raises(Broken, match=r"127\.0\.0\.2, port .*: .*; .*127\.0\.0\.1, port"):
        await content(f"http://files.test:{port}/x", policy)


# --- size and time


async def test_what_is_larger_than_allowed_is_refused_before_it_comes_or_once_it_is_seen() -> None:
    limits = Limits(size=1000)
    async with web({"/x": bytes(1001)}) as server:
        with pytest.raises(TooMuch, match="has 1,001 bytes; at most 1,000"):
            await content(server.url("/x"), limits=limits)
        for start in (1, 500):
            assert len(await content(server.url("/x"), limits=limits, start=start)) == 1001 - start
    endless = OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"1f4\r\n%b\r\n" % bytes(500) * 100
    await refusal(sends(endless), TooMuch, "has more than 1,000 bytes", limits)
    await refusal(sends(OK + b"Content-Length: 99999999999999999999\r\n\r\n"), FetchError, "HTTP")


async def test_a_body_that_stalls_is_given_up() -> None:
    async def stall(asked: Asked) -> None:
        await asked.send(OK + b"Content-Length: 10\r\n\r\n12345")
        await asyncio.Event().wait()

    await refusal(stall, Broken, "nothing came for 0.2 s", Limits(size=100, idle_seconds=0.2))


async def test_an_answer_that_never_begins_is_given_up() -> None:
    async def silent(asked: Asked) -> None:
        await asyncio.Event().wait()

    await refusal(silent, Broken, "nothing came for 0.2 s", Limits(size=100, idle_seconds=0.2))


async def drip(asked: Asked) -> None:
    await asked.send(OK + b"Content-Length: 100000\r\n\r\n")
    while True:
        await asked.send(b"x")
        await asyncio.sleep(0.02)


async def test_a_body_that_drips_is_given_up() -> None:
    await refusal(drip, Broken, "less than 1024 a second", Limits(size=1 << 20, idle_seconds=0.5))


async def test_all_of_it_has_a_time() -> None:
    await refusal(drip, TooMuch, "did not end within 0.3 s", Limits(size=1 << 20, seconds=0.3))

    async def interim(asked: Asked) -> None:
        while True:
            await asked.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            await asyncio.sleep(0.02)

    await refusal(interim, TooMuch, "did not end within 0.3 s", Limits(size=1 << 20, seconds=0.3))


async def test_whoever_takes_the_pieces_may_take_time() -> None:
    async with web({"/x": bytes(2 << 20)}) as server:
        limits = Limits(size=4 << 20, idle_seconds=0.3)
        done = 0
        async with fetch(server.url("/x"), HERE, limits) as answer:
            async for piece in answer.pieces:
                if not done:
                    await asyncio.sleep(0.5)
                done += len(piece)
        assert done == 2 << 20


async def test_a_connection_that_isnt_taken_is_given_up() -> None:
    silent = UrlPolicy(
        ("192.0.2.0/24",)
    )  # for documentation: nobody answers there, if there is a route at all
    with pytest.raises(Broken, match="can't connect"):
        await content("http://192.0.2.1/x", silent, Limits(size=1, connect_seconds=0.2))


# --- answers that lie


@pytest.mark.parametrize(
    ("answer", "kind", "why"),
    [
        (OK + b"Content-Length: 100\r\n\r\nshort", Broken, "ended before the answer was complete"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n", Broken, "ended before"),
        (OK + b"\r\nno length", FetchError, "neither the length of its content nor chunks"),
        (OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n123456", FetchError, "HTTP"),
        (OK + b"Content-Length: -5\r\n\r\n", FetchError, "HTTP"),
        (OK + b"X: y\r\n" * 20_000, FetchError, f"more than {MAX_HEAD} bytes of headers"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 5000, FetchError, f"more than {MAX_HEAD} bytes of headers"),
        (b"", Broken, "ended before"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", FetchError, "HTTP"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", Refused, r"answered 204 \(No Content\)"),
        (
            b"HTTP/1.1 206 Partial Content\r\nContent-Length: 1\r\n\r\nx",
            FetchError,
            "gives a part",
        ),
        (
            b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-0/9\r\nContent-Length: 1\r\n\r\nx",
            FetchError,
            "asked for all of its content and gives a part",
        ),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", Refused, "answered 304"),
        (b"HTTP/1.1 799 What\r\nContent-Length: 0\r\n\r\n", Refused, "answered 799"),
        (
            OK + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\n1234",
            FetchError,
            r"content encoded \(gzip\)",
        ),
        (
            OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            FetchError,
            r"content encoded \(gzip, chunked\)|HTTP",
        ),
    ],
)
async def test_an_answer_that_isnt_what_it_says_is_told(
    answer: bytes, kind: type[Exception], why: str
) -> None:
    await refusal(sends(answer), kind, why)


async def test_what_follows_the_announced_end_is_not_taken() -> None:
    async with web({"/x": sends(OK + b"Content-Length: 5\r\n\r\n12345EXTRA" + bytes(1 << 20))}) as server:
        assert await content(server.url("/x")) == b"12345"


async def test_a_bomb_is_not_unpacked() -> None:
    bomb = gzip.compress(bytes(1 << 24))
    script = sends(OK + b"Content-Encoding: GZip\r\nContent-Length: %d\r\n\r\n" % len(bomb) + bomb)
    await refusal(script, FetchError, "have the server send files unchanged")
    async with web({"/x": bomb}) as server:
        assert await content(server.url("/x")) == bomb


@pytest.mark.parametrize(
    "given",
    ["bytes 0-9/100", "bytes 6-4/100", "bytes 5-x/100", "items 5-9/100", "bytes */100", "bytes 5-9", ""],
)
async def test_another_range_than_was_asked_for_is_refused(given: str) -> None:
    async def script(asked: Asked) -> None:
        await asked.answer("206 Partial Content", b"12345", content_range=given)

    async with web({"/x": script}) as server:
        with pytest.raises(FetchError, match="asked for its bytes from 5 on"):
            await content(server.url("/x"), start=5, stop=10)


async def test_a_range_that_is_longer_or_shorter_than_announced() -> None:
    async def longer(asked: Asked) -> None:
        await asked.answer("206 Partial Content", b"1234567890", content_range="bytes 5-14/100")

    async def shorter(asked: Asked) -> None:
        await asked.answer("206 Partial Content", b"123", content_range="bytes 5-9/100")

    async def less(asked: Asked) -> None:
        await asked.answer("206 Partial Content", b"123", content_range="bytes 5-7/100")

    async with web({"/longer": longer, "/shorter": shorter, "/less": less}) as server:
        for stop, due in ((10, 5), (None, 95), (200, 95)):
            with pytest.raises(Broken, match=f"sent 3 bytes of {due}"):
                await content(server.url("/less"), start=5, stop=stop)
        assert await content(server.url("/longer"), start=5, stop=10) == b"12345"
        with pytest.raises(Broken, match="sent 3 bytes of 5"):
            await content(server.url("/shorter"), start=5, stop=10)


async def test_a_status_is_told_without_the_secrets_of_the_url() -> None:
    async def busy(asked: Asked) -> None:
        await asked.answer("503 Busy", retry_after="7")

    async with web({"/busy": busy}) as server:
        with pytest.raises(Refused, match=r"/gone answered 404 \(Not Found\)") as caught:
            await content(server.url("/gone?token=s3cret"))
        assert caught.value.status == 404
        assert "s3cret" not in str(caught.value)
        with pytest.raises(Refused) as caught:
            await content(server.url("/busy"))
        assert (caught.value.status, caught.value.retry_after) == (503, 7.0)


# --- TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
async def secure(authority: Authority) -> AsyncIterator[Web]:
    async with web({"/x": b"x"}, tls=authority.context("DNS:files.test", "IP:127.0.0.1")) as server:
        yield server


async def test_a_server_proves_its_name_while_the_pinned_address_is_connected_to(
    secure: Web, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    assert await content(secure.url("/x")) == b"x"
    assert await content(secure.url("/x", "Files.Test.")) == b"x"
    assert await content(secure.url("/x", "127.0.0.1")) == b"x"
    with pytest.raises(FetchError, match=r"certificate of other\.test .* can't be trusted: .*[Hh]ostname"):
        await content(secure.url("/x", "other.test"))


async def test_an_authority_that_isnt_known_is_not_trusted(secure: Web) -> None:
    with pytest.raises(FetchError, match=r"can't be trusted: .*; where .* set SSL_CERT_FILE") as caught:
        await content(secure.url("/x"))
    assert not isinstance(caught.value, Broken)
    assert secure.asked == []


async def test_a_server_without_tls_is_told() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Broken, match="no TLS"):
            await content(f"https://files.test:{port}/x")


async def test_no_redirect_leads_out_of_tls_but_into_it(
    secure: Web, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    async with web({"/in": redirect(secure.url("/x")), "/x": b"plain"}) as plain:
        assert await content(plain.url("/in")) == b"x"
        secure.files["/out"] = redirect(plain.url("/x"))
        with pytest.raises(BadRequestError, match="leads from https to http"):
            await content(secure.url("/out"))


async def test_a_break_is_told_from_an_end_under_tls_too(
    secure: Web, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    secure.files["/big"] = bytes(1 << 20)
    assert await content(secure.url("/big")) == bytes(1 << 20)
    secure.break_after = [300_000]
    with pytest.raises(Broken, match="ended before"):
        await content(secure.url("/big"))


@contextmanager
def hanging_up(context: ssl.SSLContext, body: bytes) -> Iterator[int]:
    """The port of a server that sends a body to each of its clients as fast as it can and goes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                with context.wrap_socket(listener.accept()[0], server_side=True) as connection:
                    connection.recv(65536)
                    connection.sendall(OK + b"Content-Length: %d\r\n\r\n" % len(body))
                    connection.sendall(body)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


async def test_what_a_server_sent_before_it_hung_up_is_all_there(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    body = random.Random(5).randbytes(4 << 20)
    with hanging_up(authority.context("DNS:files.test"), body) as port:
        for turn in range(20):
            async with fetch(f"https://files.test:{port}/", HERE, Limits(size=1 << 30)) as answer:
                pieces = []
                async for piece in answer.pieces:
                    pieces.append(piece)
                    await asyncio.sleep(0.002 * (turn % 2))
            assert b"".join(pieces) == body
