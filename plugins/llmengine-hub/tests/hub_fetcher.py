"""Brings files of a repository, in a process to be killed: `hub_fetcher.py URL KEY...`."""

from __future__ import annotations

import asyncio
import sys

from llmengine_core.urls import UrlPolicy
from llmengine_hub.storage import HubStorage


async def main(url: str, *keys: str) -> None:
    storage = HubStorage(url, policy=UrlPolicy(("127.0.0.1",)))
    folder = await storage.bring(keys, on_progress=lambda done, total: None)
    sys.stdout.write(f"{folder}\n")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
