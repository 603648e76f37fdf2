"""Wrong implementations, each with the laws that must catch it.

A module of this package names its own in ``MUTANTS``. ``tests/contract/test_mutants.py`` sees that each dies of each
law that it names, and that every law of the kit kills one; ``nox -s mutants`` tries every law on every mutant
and writes the table that the documentation shows.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass

from llmengine_core.testing.laws import Contract

__all__ = ["Mutant", "all_mutants"]


@dataclass(frozen=True)
class Mutant:
    """One wrong implementation."""

    name: str
    """"cumulative_text"."""
    bug: str
    """What it does, in a few words: "each chunk repeats all text so far"."""
    contract: type[Contract]
    """The contract with the wrong implementation as its subject."""
    killers: tuple[str, ...]
    """Laws that must catch it, alone or with few others: the names that a report shows."""
    shipped: str = ""
    """Where a bug like it was shipped: "xorbitsai/inference#1998"."""

    @property
    def kind(self) -> str:
        return self.contract.kind


def all_mutants() -> list[Mutant]:
    """Those of every module here, by kind and name."""
    return sorted(_found(), key=lambda mutant: (mutant.kind, mutant.name))


def _found() -> Iterator[Mutant]:
    for module in pkgutil.iter_modules(__path__):
        yield from importlib.import_module(f"{__name__}.{module.name}").MUTANTS
