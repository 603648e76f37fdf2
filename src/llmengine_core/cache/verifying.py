"""All of the cache read again, whatever was found when it was read before."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from llmengine_core.cache.entries import Entries, Entry
from llmengine_core.cache.inventory import Item, take_stock
from llmengine_core.cache.layout import Layout
from llmengine_core.cache.records import StoredFile
from llmengine_core.cache.stamps import Stamps
from llmengine_core.cache.work import Work
from llmengine_core.locks import held, in_thread
from llmengine_core.types.progress import OnProgress

__all__ = ["Verified", "verify"]


@dataclass(frozen=True, slots=True)
class Verified:
    """One entry that was read."""

    item: Item
    wrong: tuple[str, ...]
    """Its files that are missing, or hold something else."""
    removed: bool
    """Whether it was removed for that. One that is in use stays, and is mended when it is prepared again."""


async def verify(home: Path, on_progress: OnProgress) -> list[Verified]:
    """Hash every file of every entry, and remove the entries that are damaged, so that they are made anew."""
    layout = Layout(home)
    found = []
    for item in (await in_thread(lambda _: take_stock(layout))).items:
        if item.kind != "partial":
            told = Work(item.name, on_progress).counting("verify", item.size)
            found.append(await in_thread(partial(_verified, layout, item, told)))
    return [each for each in found if each is not None]


def _verified(
    layout: Layout, item: Item, told: Callable[[int], object], stop: threading.Event
) -> Verified | None:
    """One entry, read and perhaps removed; None where it is gone."""
    entries = Entries(layout)
    try:
        entry = entries.hold(item.key, touch=False)
        if entry is None:
            return None
        wrong = entries.wrong(entry, Stamps(layout.stamps), told, stop, afresh=True)
        removed = bool(wrong) and not item.in_use and not stop.is_set()
        if removed:
            _remove(layout, entries, entry, wrong)
        return Verified(item, tuple(file.name for file in wrong), removed)
    finally:
        entries.close()


def _remove(layout: Layout, entries: Entries, entry: Entry, wrong: list[StoredFile]) -> None:
    """Take an entry away with what is damaged of it; whoever else links to that fetches it again."""
    entries.discard(entry.key)
    if entry.record.kind == "fetched":
        with held(layout.index):
            for file in wrong:
                with suppress(OSError):
                    layout.blob(file.sha256).unlink()
