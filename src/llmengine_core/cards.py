"""Which of the base models that are known by name lie on this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import suppress

from llmengine_core.cache import Layout
from llmengine_core.cache.records import read_record
from llmengine_core.looks import HERE, Absent, look, scheme_of
from llmengine_core.registry import Registry
from llmengine_core.settings import Settings
from llmengine_core.types.models import WeightsSource
from llmengine_core.urls import UrlPolicy

__all__ = ["cards_here"]


async def cards_here(registry: Registry, settings: Settings) -> set[str]:
    """The names of the base models whose weights are on this machine: as files, in our cache, or in a storage's own.

    Asks nobody elsewhere.
    """
    policy = UrlPolicy(private_hosts=settings.private_hosts)
    fetched = await asyncio.to_thread(_fetched, Layout(settings.home))
    found = set()
    for name, card in registry.models.items():
        for source in card.sources:
            if await _is_here(source, registry, policy, fetched):
                found.add(name)
                break
    return found


async def _is_here(
    source: WeightsSource, registry: Registry, policy: UrlPolicy, fetched: Collection[str]
) -> bool:
    scheme = scheme_of(source.url) or ""
    if scheme in HERE:
        try:
            return (await look(source.url, registry, policy)).problem is None
        except Absent:
            return False
    info = registry.storages_by_scheme.get(scheme)
    if source.url in fetched or info is None:
        return info is not None
    try:
        storage = await asyncio.to_thread(registry.open_storage, info, source.url, policy)
        try:
            return await storage.is_here()
        finally:
            await storage.aclose()
    except Exception:  # a storage's own; whoever needs the weights hears of it
        return False


def _fetched(layout: Layout) -> set[str]:
    """The URLs of what was fetched as it is."""
    found = set()
    for path in layout.entries.glob("*/record.json"):
        with suppress(OSError):  # one that can't be read now; whoever needs the weights hears of it
            record = read_record(path)
            if record is not None and record.kind == "fetched":
                found.add(record.source)
    return found
