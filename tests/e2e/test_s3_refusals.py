"""Whoever S3 refuses is told why in words that mend it, and never the secret."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.servers.proxy import Fault, fault_proxy
from tests.servers.seaweed import ADMIN, READER, TENANT, Identity, S3Server

from llmengine_core.interfaces.storage import ObjectMissing, StorageError
from llmengine_s3 import client
from llmengine_s3.storage import S3Storage


@pytest.fixture(scope="module")
def bucket(s3_server: S3Server) -> str:
    """Where these tests keep what they break."""
    return s3_server.bucket()


async def reason(storage: S3Storage, call: str) -> str:
    """Why this call fails."""
    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "get": lambda: anext(storage.get("k")),
        "head": lambda: storage.head("k"),
        "list": lambda: anext(storage.list()),
        "put": lambda: storage.put("k", b"content"),
        "delete": lambda: storage.delete("k"),
        "copy": lambda: storage.copy("k", "l"),
    }
    with pytest.raises(StorageError) as caught:
        await calls[call]()
    assert not isinstance(caught.value, ObjectMissing)
    return str(caught.value)


NOBODY = Identity("AKNOBODY", "nobody-has-this-secret")
LIAR = Identity(ADMIN.access_key, "this-is-not-the-secret")
REFUSED = {
    "wrong secret": (LIAR, {}, "AWS_SECRET_ACCESS_KEY"),
    "unknown key": (NOBODY, {}, "AWS_ACCESS_KEY_ID"),
    "foreign token": (ADMIN, {"AWS_SESSION_TOKEN": "a-token-of-elsewhere"}, "AWS_ACCESS_KEY_ID"),
    "somebody else's bucket": (TENANT, {}, "may not"),
}


@pytest.mark.parametrize("call", ["get", "list", "put", "delete", "copy", "head"])
@pytest.mark.parametrize("who", REFUSED)
async def test_who_is_refused_is_told_why_and_not_the_secret(
    s3_server: S3Server, opened: Callable[..., S3Storage], bucket: str, who: str, call: str
) -> None:
    identity, more, word = REFUSED[who]
    storage = opened(f"s3://{bucket}/x", identity, **more)
    said = await reason(storage, call)
    await storage.aclose()
    assert bucket in said
    if call != "head":  # whose refusal has no body that could say more
        assert word in said
    assert not any(secret in said for secret in (identity.secret, "a-token-of-elsewhere"))


async def test_a_reader_may_read_and_is_told_that_it_may_not_write(
    s3_server: S3Server, opened: Callable[..., S3Storage], bucket: str
) -> None:
    s3_server.client().put_object(Bucket=bucket, Key="read/k", Body=b"content")
    storage = opened(f"s3://{bucket}/read", READER)
    assert await anext(storage.get("k")) == b"content"
    for call in ("put", "delete"):
        assert "may not" in await reason(storage, call)
    await storage.aclose()
    assert s3_server.contents(bucket, "read/") == {"read/k": 7}


@pytest.mark.parametrize(
    ("code", "word"), [("ExpiredToken", "expired"), ("InvalidToken", "AWS_SESSION_TOKEN")]
)
async def test_what_is_wrong_with_a_token_is_named(
    s3_server: S3Server, opened: Callable[..., S3Storage], bucket: str, code: str, word: str
) -> None:
    with fault_proxy(s3_server.endpoint) as proxy:
        proxy.plan = lambda _: Fault(status=400, code=code)
        storage = opened(f"s3://{bucket}/x", endpoint=proxy.url, AWS_SESSION_TOKEN="a-token-of-old")
        for call in ("get", "list", "put"):
            said = await reason(storage, call)
            assert word in said
            assert "a-token-of-old" not in said
        await storage.aclose()


@pytest.mark.parametrize("call", ["get", "list", "put"])
async def test_a_missing_bucket_is_named(opened: Callable[..., S3Storage], call: str) -> None:
    storage = opened("s3://there-is-no-such-one/x")
    said = await reason(storage, call)
    await storage.aclose()
    assert "there-is-no-such-one" in said
    assert "bucket" in said


async def test_nobody_at_the_address_is_told_with_the_address(
    s3_server: S3Server, opened: Callable[..., S3Storage], bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "UNREACHABLE", 1.0)
    with fault_proxy(s3_server.endpoint) as proxy:
        gone = proxy.url
    storage = opened(f"s3://{bucket}/x", endpoint=gone)
    assert gone.removeprefix("http://") in await reason(storage, "put")
    await storage.aclose()
