"""Work that is brought to an end although whoever waits for it is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

__all__ = ["LONGEST", "settled"]

T = TypeVar("T")
LONGEST = 10.0
"""Seconds that a cancelled caller stays for."""


async def settled(work: Coroutine[Any, Any, T]) -> T:
    """What some work gives. A cancelled caller stays until it is done, ``LONGEST`` at most, and only then leaves.

    The work itself is cancelled where it takes longer. Raises ``CancelledError`` once it is done, whatever it gave.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if task.cancelled():
            raise
        end = asyncio.get_running_loop().time() + LONGEST
        while not task.done() and (rest := end - asyncio.get_running_loop().time()) > 0:
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task], timeout=rest)
        task.cancel()
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # the cancellation goes first; without this line it would be logged
        raise
