"""The weights cache: content by its digest, checkpoints that link to it, and what they take of the disk."""

from __future__ import annotations

from llmengine_core.cache.inventory import Inventory, Item, make_room, take_stock
from llmengine_core.cache.layout import Layout, digest
from llmengine_core.cache.verifying import Verified, verify
from llmengine_core.cache.weights_cache import Weights, WeightsCache
from llmengine_core.cache.work import Work

__all__ = [
    "Inventory",
    "Item",
    "Layout",
    "Verified",
    "Weights",
    "WeightsCache",
    "Work",
    "digest",
    "make_room",
    "take_stock",
    "verify",
]
