"""Which law catches what: ``python -m tests.contract.table`` writes the page that the documentation shows.

The page names the laws that each mutant must die of, as ``test_mutants`` proves. With ``--all`` every law is tried on
every mutant, which takes long, and what catches each is printed; ``nox -s mutants`` does that.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

from tests.contract.mutants import Mutant, all_mutants

from llmengine_core.testing.profiles import PROFILES
from llmengine_core.testing.verdicts import run_contract

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "mutants.md"
HEAD = """\
# What the laws catch

A law that nothing can break proves nothing. Each row below is a wrong implementation that was written for the purpose,
some after a bug that was shipped somewhere, and the [laws](laws.md) that must catch it; others may as well. The tests
see that each is caught, and that every law catches one. `python -m tests.contract.table` writes this page, and
`nox -s mutants` tries every law on every mutant.
"""


def page() -> str:
    """The page, of the mutants that there are."""
    return "\n".join([HEAD, *_lines(all_mutants())])


def _lines(mutants: list[Mutant]) -> Iterator[str]:
    yield f"{len(mutants)} wrong implementations.\n"
    for kind in sorted({mutant.kind for mutant in mutants}):
        ours = [mutant for mutant in mutants if mutant.kind == kind]
        laws = {name for mutant in ours for name in mutant.contract.laws()}
        yield f"## {kind.capitalize()}\n"
        yield f"{len(ours)} mutants, {len(laws)} laws.\n"
        yield "| what it does | shipped in | caught by |"
        yield "|---|---|---|"
        for mutant in ours:
            caught = ", ".join(f"`{name}`" for name in mutant.killers)
            yield f"| {mutant.bug} | {mutant.shipped} | {caught} |"
        yield ""


def killed_by(name: tuple[str, str]) -> tuple[str, ...]:
    """The laws that catch one mutant, of all of its contract's."""
    PROFILES["default"] = replace(PROFILES["default"], shrinking=0)
    (mutant,) = (each for each in all_mutants() if (each.kind, each.name) == name)
    return tuple(each.law for each in run_contract(mutant.contract) if each.outcome == "failed")


def try_all() -> int:
    """Print what catches each mutant; the exit status is 1 where one lives."""
    mutants, began, living = all_mutants(), time.monotonic(), 0
    with ProcessPoolExecutor(2) as pool:
        found = pool.map(killed_by, [(each.kind, each.name) for each in mutants])
        for mutant, laws in zip(mutants, found, strict=True):
            living += not laws
            print(f"{mutant.kind} {mutant.name}: {', '.join(laws) or 'LIVES'}", flush=True)
    print(f"{len(mutants) - living} of {len(mutants)} died in {time.monotonic() - began:.0f} s")
    return 1 if living else 0


if __name__ == "__main__":
    if "--all" in sys.argv:
        sys.exit(try_all())
    PAGE.write_text(page())
