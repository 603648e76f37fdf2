"""The toy keeps every law: what mutants are judged against."""

from __future__ import annotations

from tests.contract.toy_contract import ToyContract


class TestToy(ToyContract):
    """All of it declared, constraints enforced by a checker."""
