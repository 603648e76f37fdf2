"""How a wrong storage becomes a mutant."""

from __future__ import annotations

from collections.abc import AsyncIterable, Mapping
from pathlib import Path
from typing import Any

from tests.contract.folder_storage import FolderStorage
from tests.contract.mutants import Mutant

from llmengine_core.interfaces.storage import Storage, StorageError
from llmengine_core.testing import Quirk, StorageContract
from llmengine_core.testing.contracts.placed import Place
from llmengine_core.testing.memory_storage import MemoryStorage
from llmengine_core.types.objects import ObjectMeta

MUTANTS: list[Mutant] = []


class DoubleContract(StorageContract):
    """Of ``storage_type``, a class of a module that children can import."""

    storage_type: type[Storage]

    @classmethod
    def factory(cls) -> str:
        return f"{cls.storage_type.__module__}:{cls.storage_type.__qualname__}"

    @classmethod
    def writable(cls) -> bool:
        return True

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


class ReadOnlyStorage(MemoryStorage):
    """Correct: it reads what the storage in memory of its URL holds."""

    async def put(self, key: str, content: bytes | AsyncIterable[bytes], **given: Any) -> ObjectMeta:
        raise StorageError(f"{self._url} is read-only: it can't take {key!r}")

    async def copy(self, source: str, target: str) -> ObjectMeta:
        raise StorageError(f"{self._url} is read-only: it can't take {target!r}")

    async def delete(self, key: str) -> bool:
        raise StorageError(f"{self._url} is read-only: it can't remove {key!r}")


class ReadOnlyContract(MemoryContract):
    """Of a kind of ``ReadOnlyStorage``."""

    storage_type = ReadOnlyStorage

    @classmethod
    def writable(cls) -> bool:
        return False

    async def place(self, place: Place, objects: Mapping[str, bytes]) -> None:
        writing = MemoryStorage(place.url)
        for key, whole in objects.items():
            await writing.put(key, whole)


def storage_mutant(name: str, bug: str, storage: type[Storage], *killers: str, shipped: str = "") -> Mutant:
    """A mutant of a storage."""
    base: type[DoubleContract] = MemoryContract if issubclass(storage, MemoryStorage) else FolderContract
    if issubclass(storage, ReadOnlyStorage):
        base = ReadOnlyContract
    about = {"subject": name, "storage_type": storage}
    return Mutant(name, bug, type(storage.__name__, (base,), about), killers, shipped)
