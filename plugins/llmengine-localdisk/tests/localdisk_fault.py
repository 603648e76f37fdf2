"""Puts on a disk that refuses: `localdisk_fault.py FAULT URL`, in a process of its own.

It prints the error of a large put, and fails unless that left the storage as it was and usable.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from collections.abc import AsyncIterator

from llmengine_core.interfaces.storage import StorageError
from llmengine_localdisk.storage import LocalDiskStorage

NOBODY = 65534


async def large() -> AsyncIterator[bytes]:
    for _ in range(16):
        yield b"x" * (1 << 20)


async def main(fault: str, url: str) -> None:
    storage = LocalDiskStorage(url)
    before = [each async for each in storage.list()]
    if fault == "file size limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, 4 << 20))
    if fault == "read-only folder" and os.geteuid() == 0:
        os.setuid(NOBODY)  # nothing is read-only to root
    if fault != "read-only folder":
        await storage.put("before/k", b"before")
        before = [each async for each in storage.list()]
    for key in ("large", "before/k"):
        try:
            await storage.put(key, large())
        except StorageError as error:
            sys.stdout.write(f"{error}\n")
        else:
            sys.exit("the put was not refused")
    assert [each async for each in storage.list()] == before
    if fault != "read-only folder":
        await storage.put("after", b"x" * 1000)
        assert await storage.delete("after")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
