"""Connections to servers that aren't ours: to addresses that somebody has judged, and with TLS."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Sequence
from functools import lru_cache

from llmengine_core.http.connection import MAX_HEAD, Connection
from llmengine_core.http.errors import ConnectionLost, NotTrusted

__all__ = ["connect", "tls_context"]

MOST_ADDRESSES = 8
TLS_BUFFER = 1 << 20
"""Bytes; more than asyncio holds back of a TLS connection (512 KiB). At its end it has all of that taken in one go, and
drops what isn't: with a smaller buffer the end of an answer is lost whose server hangs up at once."""


async def tls_context() -> ssl.SSLContext:
    """What a server's certificate is verified with: this machine's authorities, or SSL_CERT_FILE, SSL_CERT_DIR."""
    return await asyncio.to_thread(_context, os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@lru_cache(maxsize=4)
def _context(*where: str | None) -> ssl.SSLContext:
    """OpenSSL reads the variables itself; they are the key under which a context is kept."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


async def connect(
    addresses: Sequence[tuple[str, int]], name: str, *, tls: ssl.SSLContext | None, seconds: float
) -> Connection:
    """A connection to the first address and port that takes one; each has ``seconds``, at most eight are tried.

    With ``tls`` the server must prove that it is ``name``. Raises ``ConnectionLost`` and ``NotTrusted``.
    """
    loop = asyncio.get_running_loop()
    buffer = MAX_HEAD if tls is None else TLS_BUFFER
    reasons: list[str] = []
    for address, port in addresses[:MOST_ADDRESSES]:
        label = f"{name} ({address}, port {port})"
        try:
            async with asyncio.timeout(seconds):
                _, connection = await loop.create_connection(
                    lambda label=label: Connection(label, _nothing, buffer=buffer),
                    address,
                    port,
                    ssl=tls,
                    server_hostname=None if tls is None else name,
                )
            return connection
        except ssl.SSLCertVerificationError as error:
            raise NotTrusted(
                f"the certificate of {label} can't be trusted: {error.verify_message}; where an authority of your own "
                "has signed it, set SSL_CERT_FILE to a file with its certificate"
            ) from error
        except ssl.SSLError as error:
            reasons.append(f"{label}: no TLS ({error.reason or error})")
        except TimeoutError:
            reasons.append(f"{label}: no connection within {seconds:g} s")
        except OSError as error:
            reasons.append(f"{label}: {error.strerror or error}")
    raise ConnectionLost(f"can't connect to {'; '.join(reasons)}")


def _nothing(connection: Connection) -> None:
    """Nobody keeps these connections."""
