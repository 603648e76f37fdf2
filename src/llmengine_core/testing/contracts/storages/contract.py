"""What every storage promises."""

from __future__ import annotations

from llmengine_core.testing.contracts.storages.breaking import BreakingLaws
from llmengine_core.testing.contracts.storages.granting import GrantingLaws
from llmengine_core.testing.contracts.storages.listing import ListingLaws
from llmengine_core.testing.contracts.storages.objects import ObjectLaws
from llmengine_core.testing.contracts.storages.racing import RacingLaws
from llmengine_core.testing.contracts.storages.use import UseLaws

__all__ = ["StorageContract"]


class StorageContract(ObjectLaws, UseLaws, ListingLaws, BreakingLaws, RacingLaws, GrantingLaws):
    """Every storage's contract, on fresh URLs::

    class TestSample(StorageContract):
        storage = "sample"

        def fresh_url(self, folder: Path) -> str:
            return f"sample://{folder}/objects"
    """
