"""How an exchange over HTTP can fail."""

from __future__ import annotations

__all__ = ["ConnectionLost", "HttpError", "HttpStatusError", "InvalidAnswer", "NotTrusted"]


class HttpError(Exception):
    """An exchange failed."""


class ConnectionLost(HttpError):
    """Nobody listens, or the connection ended before the answer was complete."""


class NotTrusted(HttpError):
    """The server can't prove that it is the one it is called."""


class InvalidAnswer(HttpError):
    """The answer is not HTTP, not what was asked for, or larger than allowed."""


class HttpStatusError(HttpError):
    """The server refused; ``body`` is the start of what it said, at most 64 KiB."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"HTTP status {status}: {body[:500].decode(errors='replace')}")
        self.status = status
        self.body = body
