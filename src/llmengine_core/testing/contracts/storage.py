"""What every storage promises."""

from __future__ import annotations

from llmengine_core.testing.contracts.storage_breaking import BreakingLaws
from llmengine_core.testing.contracts.storage_granting import GrantingLaws
from llmengine_core.testing.contracts.storage_listing import ListingLaws
from llmengine_core.testing.contracts.storage_objects import ObjectLaws
from llmengine_core.testing.contracts.storage_racing import RacingLaws
from llmengine_core.testing.contracts.storage_use import UseLaws

__all__ = ["StorageContract"]


class StorageContract(ObjectLaws, UseLaws, ListingLaws, BreakingLaws, RacingLaws, GrantingLaws):
    """Every storage's contract, on fresh URLs::

    class TestSample(StorageContract):
        storage = "sample"

        def fresh_url(self, folder: Path) -> str:
            return f"sample://{folder}/objects"
    """
