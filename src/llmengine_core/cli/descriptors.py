"""Waiting for pipes and terminals without holding up the event loop."""

from __future__ import annotations

import asyncio
import select

__all__ = ["readable", "writable"]


async def readable(descriptor: int) -> None:
    """Wait until there is something to read, or the end."""
    if not select.select([descriptor], [], [], 0)[0]:
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(descriptor, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(descriptor)


async def writable(descriptor: int) -> None:
    """Wait until ``select.PIPE_BUF`` bytes can be written, or nobody reads any more."""
    if not select.select([], [descriptor], [], 0)[1]:
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        loop.add_writer(descriptor, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_writer(descriptor)
