"""The doubles that live in memory keep the contracts, but for what memory can't."""

from __future__ import annotations

from llmengine_core.testing import Quirk, StorageContract, StoreContract


class TestMemoryStorage(StorageContract):
    storage = "memory"
    plugin = "llmengine_core.testing.memory"
    shared_between_processes = False
    quirks = {  # noqa: RUF012 - declared a ClassVar where it is inherited from
        "test_memory_is_bounded_whatever_the_size": Quirk("objects are held in memory: it is a double")
    }


class TestMemoryStore(StoreContract):
    store = "memory"
    plugin = "llmengine_core.testing.memory"
    shared_between_processes = False
