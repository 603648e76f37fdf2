"""Every law on every mutant: writes the table that the documentation shows.

``python -m tests.contract.table`` takes minutes; ``nox -s mutants`` runs it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.contract.mutants import Mutant, all_mutants

from llmengine_core.testing.verdicts import CLOSING, run_contract

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "mutants.md"
HEAD = """\
# What the laws catch

A law that nothing can break proves nothing. Each row below is a wrong implementation that was written for the purpose,
many after a bug that was shipped somewhere, and the [laws](laws.md) that caught it, of all that were tried on it.
`nox -s mutants` writes this page.
"""


def killed_by(name: tuple[str, str]) -> tuple[str, ...]:
    """The laws that catch one mutant, of all of its contract's."""
    (mutant,) = (each for each in all_mutants() if (each.kind, each.name) == name)
    verdicts = run_contract(mutant.contract)
    return tuple(each.law for each in verdicts if each.outcome == "failed")


def page(found: Mapping[Mutant, tuple[str, ...]]) -> str:
    """The page for these mutants and the laws that killed them."""
    return "\n".join([HEAD, *_lines(found)])


def _lines(found: Mapping[Mutant, tuple[str, ...]]) -> Iterator[str]:
    killed = sum(bool(laws) for laws in found.values())
    yield f"{killed} of {len(found)} died.\n"
    for kind in sorted({mutant.kind for mutant in found}):
        mutants = [mutant for mutant in found if mutant.kind == kind]
        laws = {name for mutant in mutants for name in mutant.contract.laws()}
        yield f"## {kind.capitalize()}\n"
        yield f"{len(mutants)} mutants, {len(laws)} laws.\n"
        yield "| what it does | shipped in | caught by |"
        yield "|---|---|---|"
        for mutant in mutants:
            yield f"| {mutant.bug} | {mutant.shipped} | {_names(found[mutant])} |"
        yield ""


def _names(laws: tuple[str, ...]) -> str:
    named = [f"`{name}`" for name in laws if name != CLOSING]
    if CLOSING in laws:
        named.append("its closing")
    more = f" and {len(named) - 6} more" if len(named) > 6 else ""
    return (", ".join(named[:6]) + more) if named else "**nothing**"


def main() -> int:
    """Write the page; the exit status is 1 where a mutant lives."""
    mutants = all_mutants()
    began = time.monotonic()
    with ProcessPoolExecutor(2) as pool:
        found = dict(
            zip(mutants, pool.map(killed_by, [(each.kind, each.name) for each in mutants]), strict=True)
        )
    PAGE.write_text(page(found))
    living = [mutant.name for mutant, laws in found.items() if not laws]
    print(f"{len(mutants) - len(living)} of {len(mutants)} died in {time.monotonic() - began:.0f} s", *living)
    return 1 if living else 0


if __name__ == "__main__":
    sys.exit(main())
