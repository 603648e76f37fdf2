"""The page of mutants is as the mutants are."""

from __future__ import annotations

from tests.contract.table import PAGE, page


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "run `python -m tests.contract.table`"
