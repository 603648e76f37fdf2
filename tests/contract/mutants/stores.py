"""How a wrong store becomes a mutant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.contract.file_store import FileStore
from tests.contract.mutants import Mutant

from llmengine_core.interfaces.store import Store
from llmengine_core.testing import StoreContract

MUTANTS: list[Mutant] = []


class DoubleContract(StoreContract):
    """Of ``store_type``, a class of a module that children can import."""

    store_type: type[Store]

    @classmethod
    def factory(cls) -> str:
        return f"{cls.store_type.__module__}:{cls.store_type.__qualname__}"

    @classmethod
    def schemes(cls) -> frozenset[str]:
        return frozenset({"memory"})


class FileContract(DoubleContract):
    """Of a kind of ``FileStore``."""

    store_type = FileStore

    def fresh_url(self, folder: Path) -> str:
        return f"json://{folder}/state/rows.json"

    def newer_url(self, folder: Path) -> str:
        path = folder / "newer.json"
        path.write_text(json.dumps({"version": 2, "tables": {"t": {"k": [1, {}]}}}))
        return f"json://{path}"


class MemoryContract(DoubleContract):
    """Of a kind of ``MemoryStore``."""

    shared_between_processes = False


def store_mutant(
    name: str, bug: str, store: type[Store], *killers: str, shipped: str = "", **narrowed: Any
) -> Mutant:
    """A mutant of a store; ``narrowed`` are domains that make a failing program small soon."""
    base = FileContract if issubclass(store, FileStore) else MemoryContract
    about = {"subject": name, "store_type": store, **narrowed}
    return Mutant(name, bug, type(store.__name__, (base,), about), killers, shipped)
