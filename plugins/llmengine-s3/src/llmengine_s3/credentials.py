"""Whose requests they are: credentials by the means that all S3 clients share, kept fresh."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from llmengine_core.interfaces.storage import StorageError

__all__ = ["NONE_FOUND", "CredentialSource", "Credentials", "Found"]

FRESH = 300.0
"""Seconds before their end from which new ones are asked for."""
NONE_FOUND = (
    "there are no credentials for S3; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, "
    "or run where a role gives them (AWS_WEB_IDENTITY_TOKEN_FILE, a container's, an instance's)"
)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who asks, and what proves it. The secrets are in no text that is made of them."""

    access_key: str
    secret: str = field(repr=False)
    token: str | None = field(default=None, repr=False)
    expires_at: float | None = None
    """Seconds since the epoch; None where they hold until somebody revokes them."""

    def end_within(self, seconds: float) -> bool:
        """Whether they hold no longer than that."""
        return self.expires_at is not None and self.expires_at - time.time() < seconds


Found: TypeAlias = Callable[[], Awaitable[Credentials | None]]
"""Looks for credentials in one place; None where there are none."""


class CredentialSource:
    """Looks where there may be credentials, in order, and remembers what it found until that ends."""

    def __init__(self, places: list[Found]) -> None:
        self._places = places
        self._found: Credentials | None = None
        self._asking: asyncio.Task[Credentials] | None = None

    async def get(self) -> Credentials:
        """What holds now. Raises ``StorageError`` where there are none, or they can't be renewed."""
        found = self._found
        if found is not None and not found.end_within(FRESH):
            return found
        if (
            self._asking is None
            or self._asking.done()
            or self._asking.get_loop() is not asyncio.get_running_loop()
        ):
            self._asking = asyncio.ensure_future(self._look())
            self._asking.add_done_callback(_heard)
        try:
            return await asyncio.shield(self._asking)
        except StorageError:
            if found is not None and not found.end_within(0):
                return found
            raise

    def forget(self, refused: Credentials) -> None:
        """Look anew next time: a server has refused these."""
        if self._found is refused:
            self._found = None

    async def _look(self) -> Credentials:
        for place in self._places:
            if (found := await place()) is not None:
                self._found = found
                return found
        raise StorageError(NONE_FOUND)

    async def aclose(self) -> None:
        """Ask no more. Idempotent."""
        if self._asking is not None and not self._asking.done():
            self._asking.cancel()
            await asyncio.wait([self._asking])


def _heard(asked: asyncio.Task[Credentials]) -> None:
    """Ask how it ended, for callers that were cancelled while they waited."""
    if not asked.cancelled():
        asked.exception()
