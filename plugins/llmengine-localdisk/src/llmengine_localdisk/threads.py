"""Blocking calls, off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import ParamSpec, TypeVar

import anyio

__all__ = ["on_thread"]

_P = ParamSpec("_P")
_T = TypeVar("_T")


async def on_thread(call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """What a blocking call gives.

    A cancelled caller stays until the call has ended, so that nothing is written and no descriptor is
    used behind its back: calls must be short.
    """
    running = asyncio.get_running_loop().run_in_executor(None, partial(call, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        with anyio.CancelScope(shield=True):
            while not running.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # the cancellation goes first; without this line it would be logged
        raise
