"""Signatures: AWS's version 4, in headers and in URLs that grant access."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from urllib.parse import quote

from llmengine_s3.credentials import Credentials

__all__ = ["EMPTY", "Signer", "path_of", "query_of"]

EMPTY = hashlib.sha256(b"").hexdigest()
"""The digest of no content."""
_ALGORITHM = "AWS4-HMAC-SHA256"


def path_of(path: str) -> str:
    """A path, percent-encoded as S3 wants it for both the request and its signature."""
    return quote(path, safe="/-_.~")


def query_of(query: Mapping[str, str]) -> str:
    """A query, encoded and in the order in which it is signed."""
    return "&".join(f"{quote(name, safe='-_.~')}={quote(query[name], safe='-_.~')}" for name in sorted(query))


class Signer:
    """Signs requests to one service in one region."""

    def __init__(self, region: str, service: str = "s3") -> None:
        self._region = region
        self._service = service
        self._known: tuple[str, str, bytes] = ("", "", b"")
        """Of the last signature: the day, the secret, and the key that is made of them."""

    def headers(
        self,
        method: str,
        path: str,
        query: str,
        headers: Mapping[str, str],
        digest: str,
        credentials: Credentials,
    ) -> dict[str, str]:
        """The headers to send: those given, in lower case and with the host among them, and what signs them.

        ``path`` and ``query`` are encoded; ``digest`` is the SHA-256 of the content in hex.
        """
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        sent = {**headers, "x-amz-content-sha256": digest, "x-amz-date": now}
        if credentials.token:
            sent["x-amz-security-token"] = credentials.token
        names = sorted(name for name in sent if name == "host" or name.startswith("x-amz-"))
        signed = ";".join(names)
        lines = "".join(f"{name}:{sent[name].strip()}\n" for name in names)
        canonical = f"{method}\n{path}\n{query}\n{lines}\n{signed}\n{digest}"
        scope, signature = self._sign(now, canonical, credentials)
        sent["authorization"] = (
            f"{_ALGORITHM} Credential={credentials.access_key}/{scope}, SignedHeaders={signed}, Signature={signature}"
        )
        return sent

    def url(
        self, method: str, origin: str, host: str, path: str, expires: int, credentials: Credentials
    ) -> str:
        """A URL that grants one kind of access for ``expires`` seconds. ``path`` is encoded."""
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        query = {
            "X-Amz-Algorithm": _ALGORITHM,
            "X-Amz-Credential": f"{credentials.access_key}/{self._scope(now)}",
            "X-Amz-Date": now,
            "X-Amz-Expires": str(expires),
            "X-Amz-SignedHeaders": "host",
        }
        if credentials.token:
            query["X-Amz-Security-Token"] = credentials.token
        encoded = query_of(query)
        canonical = f"{method}\n{path}\n{encoded}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD"
        _, signature = self._sign(now, canonical, credentials)
        return f"{origin}{path}?{encoded}&X-Amz-Signature={signature}"

    def _scope(self, now: str) -> str:
        return f"{now[:8]}/{self._region}/{self._service}/aws4_request"

    def _sign(self, now: str, canonical: str, credentials: Credentials) -> tuple[str, str]:
        scope = self._scope(now)
        text = f"{_ALGORITHM}\n{now}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key = self._key(now[:8], credentials.secret)
        return scope, hmac.digest(key, text.encode(), "sha256").hex()

    def _key(self, day: str, secret: str) -> bytes:
        if self._known[:2] != (day, secret):
            key = f"AWS4{secret}".encode()
            for part in (day, self._region, self._service, "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._known = (day, secret, key)
        return self._known[2]
