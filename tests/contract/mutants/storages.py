"""How a wrong storage becomes a mutant."""

from __future__ import annotations

from pathlib import Path

from tests.contract.folder_storage import FolderStorage
from tests.contract.mutants import Mutant

from llmengine_core.interfaces.storage import Storage
from llmengine_core.testing import Quirk, StorageContract
from llmengine_core.testing.memory_storage import MemoryStorage

MUTANTS: list[Mutant] = []


class DoubleContract(StorageContract):
    """Of ``storage_type``, a class of a module that children can import."""

    storage_type: type[Storage]

    @classmethod
    def factory(cls) -> str:
        return f"{cls.storage_type.__module__}:{cls.storage_type.__qualname__}"

    @classmethod
    def schemes(cls) -> frozenset[str]:
        return frozenset({"memory"})


class FolderContract(DoubleContract):
    """Of a kind of ``FolderStorage``."""

    storage_type = FolderStorage

    def fresh_url(self, folder: Path) -> str:
        return f"folder://{folder}/objects"

    def residue(self, url: str, keys: set[str]) -> list[str]:
        drafts = Path(url.removeprefix("folder://")) / "drafts"
        return [path.name for path in drafts.glob("*")]


class MemoryContract(DoubleContract):
    """Of a kind of ``MemoryStorage``."""

    shared_between_processes = False
    late = 1.5
    quirks = {"test_memory_is_bounded_whatever_the_size": Quirk("objects are held in memory")}  # noqa: RUF012


def storage_mutant(name: str, bug: str, storage: type[Storage], *killers: str, shipped: str = "") -> Mutant:
    """A mutant of a storage."""
    base = MemoryContract if issubclass(storage, MemoryStorage) else FolderContract
    about = {"subject": name, "storage_type": storage}
    return Mutant(name, bug, type(storage.__name__, (base,), about), killers, shipped)
