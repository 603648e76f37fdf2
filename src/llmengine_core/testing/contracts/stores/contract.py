"""What every store promises."""

from __future__ import annotations

from llmengine_core.testing.contracts.stores.racing import RacingLaws
from llmengine_core.testing.contracts.stores.rows import RowLaws
from llmengine_core.testing.contracts.stores.use import UseLaws

__all__ = ["StoreContract"]


class StoreContract(RowLaws, UseLaws, RacingLaws):
    """Every store's contract, on fresh URLs::

    class TestSample(StoreContract):
        store = "sample"

        def fresh_url(self, folder: Path) -> str:
            return f"sample://{folder}/state"
    """
