"""What every storage promises."""

from __future__ import annotations

from llmengine_core.testing.contracts.storages.breaking import BreakingLaws
from llmengine_core.testing.contracts.storages.granting import GrantingLaws
from llmengine_core.testing.contracts.storages.listing import ListingLaws
from llmengine_core.testing.contracts.storages.objects import ObjectLaws
from llmengine_core.testing.contracts.storages.racing import RacingLaws
from llmengine_core.testing.contracts.storages.reading import ReadingLaws
from llmengine_core.testing.contracts.storages.use import UseLaws

__all__ = ["StorageContract"]


class StorageContract(ReadingLaws, ObjectLaws, UseLaws, ListingLaws, BreakingLaws, RacingLaws, GrantingLaws):
    """Every storage's contract, on fresh URLs::

    class TestSample(StorageContract):
        storage = "sample"

        def fresh_url(self, folder: Path) -> str:
            return f"sample://{folder}/objects"

    A read-only storage is held to what reading promises, on objects that the test lays out past its interface::

        async def place(self, place: Place, objects: Mapping[str, bytes]) -> None:
            await asyncio.to_thread(write_files, place.folder, objects)
    """
