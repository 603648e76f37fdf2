"""Every error that llmengine raises on purpose.

::

    LLMEngineError
    ├── BadRequestError             400, also a ValueError
    │   ├── ResolutionError         400, carries the Plan
    │   └── UnsupportedFeatureError 400
    ├── UnauthorizedError           401
    ├── NotFoundError               404
    ├── RateLimitExceededError      429, carries retry_after
    ├── ServerError                 5xx, carries status_code
    │   └── RequestTimeoutError     504, also a TimeoutError
    └── UnknownError                anything else a remote server answered

A message says what was wrong, the field and the value seen, what is allowed, and what mends it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from llmengine_core.types.plan import Plan

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
]


class LLMEngineError(Exception):
    """The root of all errors raised by llmengine.

    ``status_code`` is the HTTP status that the error travels under, or None where it has none.
    """

    default_status: ClassVar[int | None] = None

    def __init__(self, message: str, *, status_code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status_code = self.default_status if status_code is None else status_code

    def __reduce__(self) -> tuple[object, ...]:
        """Copies and pickles whole, whatever a subclass's constructor asks for."""
        return _rebuilt, (type(self), self.args, self.__dict__.copy())


def _rebuilt(
    kind: type[LLMEngineError], args: tuple[object, ...], state: dict[str, object]
) -> LLMEngineError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class BadRequestError(LLMEngineError, ValueError):
    """The caller's input must change before the call can succeed."""

    default_status = 400


class UnauthorizedError(LLMEngineError):
    """No valid API key was given (remote servers and gateways only)."""

    default_status = 401


class NotFoundError(LLMEngineError):
    """There is no such model, file, fine-tune or job, or it is not the caller's to see."""

    default_status = 404


class RateLimitExceededError(LLMEngineError):
    """A limit was passed or a queue is full; ``retry_after`` is in seconds, None when unknown."""

    default_status = 429

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ServerError(LLMEngineError):
    """The fault is ours or the engine's; ``status_code`` is 500 to 599."""

    default_status = 500


class RequestTimeoutError(ServerError, TimeoutError):
    """The call's ``timeout`` ran out, wherever it was: starting, queueing or generating."""

    default_status = 504


class ResolutionError(BadRequestError):
    """No backend fits a spec; ``plan`` holds every candidate with every rule it passed or failed."""

    def __init__(self, message: str, *, plan: Plan) -> None:
        super().__init__(message)
        self.plan = plan


class UnsupportedFeatureError(BadRequestError):
    """The input is valid, but the backend or checker at hand can't honour it; names what could."""


class UnknownError(LLMEngineError):
    """A remote server answered with a status that has no error class of its own."""
