"""Every error that llmengine raises on purpose; the tree is drawn in ``llmengine_core.errors``."""

from __future__ import annotations

import json

from llmengine_core.errors import (
    BadRequestError,
    LLMEngineError,
    NotFoundError,
    RateLimitExceededError,
    RequestTimeoutError,
    ResolutionError,
    ServerError,
    UnauthorizedError,
    UnknownError,
    UnsupportedFeatureError,
)

__all__ = [
    "BadRequestError",
    "LLMEngineError",
    "NotFoundError",
    "RateLimitExceededError",
    "RequestTimeoutError",
    "ResolutionError",
    "ServerError",
    "UnauthorizedError",
    "UnknownError",
    "UnsupportedFeatureError",
    "ValidationError",
    "parse_error",
]

BY_STATUS: dict[int, type[LLMEngineError]] = {
    400: BadRequestError,
    401: UnauthorizedError,
    404: NotFoundError,
    429: RateLimitExceededError,
    504: RequestTimeoutError,
}


class ValidationError(BadRequestError):
    """Input that hasn't the shape of its type."""


def parse_error(status_code: int, content: bytes) -> LLMEngineError:
    """The error that fits an HTTP answer; its message is the JSON body's ``detail``, else the body.

    Example::

        >>> from llmengine.errors import parse_error
        >>> parse_error(404, b'{"detail": "there is no such model"}')
        NotFoundError('there is no such model')
    """
    message = _detail(content) or f"the server answered {status_code} and gave no reason"
    found = BY_STATUS.get(status_code)
    if found is not None:
        return found(message)
    if 500 <= status_code <= 599:
        return ServerError(message, status_code=status_code)
    return UnknownError(message, status_code=status_code)


def _detail(content: bytes) -> str:
    written = content.decode(errors="replace").strip()
    try:
        payload = json.loads(written)
    except (ValueError, RecursionError):
        return written
    detail = payload.get("detail") if isinstance(payload, dict) else None
    if detail is None:
        return written
    return detail if isinstance(detail, str) else json.dumps(detail)
