"""The fault proxy itself, before a real server and with a client that isn't ours: each fault is what it says."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.e2e.procfs import until
from tests.servers.proxy import Fault, FaultProxy, fault_proxy, in_turn
from tests.servers.seaweed import S3Server

MIB = 1 << 20


@pytest.fixture(scope="module")
def bucket(s3_server: S3Server) -> str:
    return s3_server.bucket()


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[FaultProxy]:
    with fault_proxy(s3_server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def client(s3_server: S3Server, proxy: FaultProxy) -> Any:
    """boto3 through the proxy, which tries everything once."""
    return s3_server.client(endpoint=proxy.url)


def test_what_no_plan_names_passes_as_it_is_and_is_counted(
    s3_server: S3Server, proxy: FaultProxy, client: Any, bucket: str
) -> None:
    content = bytes(range(256)) * 20_000
    client.put_object(Bucket=bucket, Key="a b/ü", Body=content)
    assert client.head_object(Bucket=bucket, Key="a b/ü")["ContentLength"] == len(content)
    whole = client.get_object(Bucket=bucket, Key="a b/ü")["Body"]
    assert whole.read() == content
    part = client.get_object(Bucket=bucket, Key="a b/ü", Range="bytes=1000-1999")["Body"]
    assert part.read() == content[1000:2000]
    client.delete_object(Bucket=bucket, Key="a b/ü")
    assert [each["Key"] for each in client.list_objects_v2(Bucket=bucket).get("Contents", ())] == []
    assert [(each.method, each.status) for each in proxy.asked] == [
        ("PUT", 200), ("HEAD", 200), ("GET", 200), ("GET", 206), ("DELETE", 204), ("GET", 200),
    ]  # fmt: skip
    assert (proxy.asked[0].sent, proxy.asked[2].received) == (len(content), len(content))
    assert proxy.count("GET", within="a%20b/") == 2
    assert not proxy.harmed


def test_refusals_are_errors_of_the_protocol_and_reach_the_server_not_at_all(
    s3_server: S3Server, proxy: FaultProxy, client: Any, bucket: str
) -> None:
    proxy.plan = in_turn([Fault(status=503), Fault(status=500), None], lambda asked: asked.method == "PUT")
    codes = []
    for _ in range(3):
        try:
            client.put_object(Bucket=bucket, Key="refused", Body=b"content")
        except client.exceptions.ClientError as error:
            codes.append(error.response["Error"]["Code"])
            assert "refused" not in s3_server.contents(bucket)
    assert codes == ["SlowDown", "InternalError"]
    assert s3_server.contents(bucket)["refused"] == 7
    assert [each.fault.status for each in proxy.harmed] == [503, 500]


@pytest.mark.parametrize(
    ("fault", "stored"), [(Fault(cut_request=MIB), False), (Fault(lose_answer=True), True)]
)
def test_puts_break_off_before_or_after_they_are_carried_out(
    s3_server: S3Server, proxy: FaultProxy, client: Any, bucket: str, fault: Fault, stored: bool
) -> None:
    proxy.plan = in_turn([fault])
    key = f"broken-{stored}"
    with pytest.raises(Exception, match=r"[Cc]onnection"):
        client.put_object(Bucket=bucket, Key=key, Body=b"x" * 3 * MIB)
    assert s3_server.contents(bucket, key) == ({key: 3 * MIB} if stored else {})
    assert proxy.harmed[0].sent == (3 * MIB if stored else MIB)


def test_answers_break_off_where_told(
    s3_server: S3Server, proxy: FaultProxy, client: Any, bucket: str
) -> None:
    s3_server.client().put_object(Bucket=bucket, Key="whole", Body=b"x" * 3 * MIB)
    proxy.plan = in_turn([Fault(cut_answer=1000)])
    body = client.get_object(Bucket=bucket, Key="whole")["Body"]
    with pytest.raises(Exception, match="IncompleteRead"):
        body.read()
    assert proxy.harmed[0].received == 1000
    assert len(client.get_object(Bucket=bucket, Key="whole")["Body"].read()) == 3 * MIB


def test_slowness_is_as_told(s3_server: S3Server, proxy: FaultProxy, client: Any, bucket: str) -> None:
    proxy.plan = in_turn([Fault(delay=0.2), Fault(rate=2 * MIB)])
    began = time.monotonic()
    client.put_object(Bucket=bucket, Key="slow", Body=b"x")
    assert time.monotonic() - began >= 0.19
    began = time.monotonic()
    client.put_object(Bucket=bucket, Key="slow", Body=b"x" * MIB)
    assert time.monotonic() - began >= 0.4
    assert not proxy.harmed


def test_a_stall_lasts_until_the_client_goes_or_the_proxy_ends(proxy: FaultProxy) -> None:
    proxy.plan = in_turn([Fault(stall=True)] * 2)
    request = b"GET / HTTP/1.1\r\nHost: there\r\n\r\n"
    with socket.create_connection(("127.0.0.1", proxy.port)) as gone:
        gone.sendall(request)
        until(lambda: len(proxy.asked) == 1, 10, "the request is there")
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=60) as stays:
        stays.sendall(request)
        until(lambda: len(proxy.asked) == 2, 10, "the request is there")
        ending = threading.Thread(target=proxy.close)
        ending.start()
        assert stays.recv(100) == b""
        ending.join()
    assert [each.status for each in proxy.asked] == [None, None]
