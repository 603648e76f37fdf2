"""HTTP: light, streaming, cancelled by closing.

One ``HttpClient`` speaks HTTP/1.1 to our own children and to servers on this machine, over a unix socket or TCP, with a
pool of idle connections; it knows nothing of engines. ``connect`` gives one connection to a server elsewhere, with TLS.
Their errors::

    HttpError
    ├── ConnectionLost     nobody listens, or the connection ended before the answer did
    ├── NotTrusted         the server's certificate doesn't prove that it is the one it is called
    ├── InvalidAnswer      not HTTP, not what was asked for, or larger than allowed
    └── HttpStatusError    an event stream was asked for and refused; carries status and body

Nothing else in the core imports an HTTP library.
"""

from __future__ import annotations

from llmengine_core.http.client import HttpClient, Response
from llmengine_core.http.connection import Connection
from llmengine_core.http.elsewhere import connect, tls_context
from llmengine_core.http.errors import ConnectionLost, HttpError, HttpStatusError, InvalidAnswer, NotTrusted

__all__ = [
    "Connection",
    "ConnectionLost",
    "HttpClient",
    "HttpError",
    "HttpStatusError",
    "InvalidAnswer",
    "NotTrusted",
    "Response",
    "connect",
    "tls_context",
]
