"""HTTP to our own children and to servers on this machine: light, streaming, cancelled by closing.

One ``HttpClient`` speaks HTTP/1.1 over a unix socket or TCP, with a pool of idle connections. It knows
nothing of engines. Its errors::

    HttpError
    ├── ConnectionLost     nobody listens, or the connection ended before the answer did
    ├── InvalidAnswer      not HTTP, not what was asked for, or larger than allowed
    └── HttpStatusError    an event stream was asked for and refused; carries status and body

Nothing else in the core imports an HTTP library.
"""

from __future__ import annotations

from llmengine_core.http.client import HttpClient, Response
from llmengine_core.http.errors import ConnectionLost, HttpError, HttpStatusError, InvalidAnswer

__all__ = ["ConnectionLost", "HttpClient", "HttpError", "HttpStatusError", "InvalidAnswer", "Response"]
