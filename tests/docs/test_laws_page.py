"""The reference of the laws is what the contracts say of themselves.

``python -m tests.docs.test_laws_page`` writes it anew.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

from tests.docs.attributes import PIPE, Attribute, attributes, markdown, one_line

from llmengine_core import testing
from llmengine_core.testing.contracts.sessions.ground import NEAR_TIE
from llmengine_core.testing.laws import CORE, Contract, Law
from llmengine_core.testing.profiles import PROFILES

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "laws.md"
HEAD = """\
# Laws

What the [contract kit](testing.md) holds plugins to. A law is a test that a class inherits; its name is the test's id,
and does not change. `core` is what everything of a kind must do. Any other level is a capability: its laws apply where
that is declared. The rules are those of [the API](promises.md) that the law stands for. [These mutants](mutants.md)
show that each law catches something.

A profile says how thorough a run is; `LLMENGINE_CONFORMANCE_PROFILE` names it. What is reached first ends a law;
its weight scales both, and one example is always tried to its end.

"""
NEAR = f"""
Where greedy answers may part at a near tie, the log probs of both tokens differ by {NEAR_TIE} at most.

"""
ATTRIBUTES = "| attribute | default | |\n|---|---|---|\n"
TAKEN_BY_ALL = ("quirks", "patience")
NOT_JUDGED = ("Contract", "SessionContract")
"""What others are made of: all laws of sessions are laws of backends."""


def contracts() -> list[type[Contract]]:
    """The contracts that plugins adopt, by name."""
    names = [name for name in testing.__all__ if name.endswith("Contract") and name not in NOT_JUDGED]
    return [getattr(testing, name) for name in sorted(names)]


def page() -> str:
    """The whole page."""
    counted = "".join(
        f"| [`{each.__name__}`](#{each.__name__.lower()}) | {len(each.laws())} |\n" for each in contracts()
    )
    every = "".join(attribute_row(each) for each in attributes(Contract) if each.name in TAKEN_BY_ALL)
    head = f"{HEAD}| profile | examples | seconds |\n|---|---|---|\n"
    head += "".join(f"| `{each.name}` | {each.examples} | {each.seconds:g} |\n" for each in PROFILES.values())
    head += f"{NEAR}Every contract takes these attributes, and its own besides:\n\n{ATTRIBUTES}{every}\n"
    return f"{head}| contract | laws |\n|---|---|\n{counted}" + "".join(map(section, contracts()))


def section(contract: type[Contract]) -> str:
    """A contract: what its adopters say, and its laws."""
    text = f"\n## {contract.__name__}\n\n{markdown(inspect.cleandoc(contract.__doc__ or '').split('::')[0])}"
    text = text.rstrip().removesuffix(":").rstrip(",") + ("." if text.rstrip()[-1] not in ".:" else "") + "\n"
    said = list(attributes_of(contract))
    if said:
        text += f"\n{ATTRIBUTES}" + "".join(map(attribute_row, said))
    laws = sorted(contract.laws().values(), key=lambda law: (law.level != CORE, law.level, law.name))
    if laws:
        text += "\n| level | law | rules | |\n|---|---|---|---|\n" + "".join(map(law_row, laws))
    return text


def attributes_of(contract: type[Contract]) -> Iterator[Attribute]:
    """What a subclass may say: the public attributes below ``Contract``, the nearest class's first."""
    known: set[str] = set()
    for base in contract.__mro__[: contract.__mro__.index(Contract)]:
        for each in attributes(base):
            if not each.name.startswith("_") and each.name not in known:
                known.add(each.name)
                yield each


def attribute_row(each: Attribute) -> str:
    """One row of a table."""
    default = f"`{each.default.replace('|', PIPE)}`" if each.default else "required"
    return f"| `{each.name}` | {default} | {each.text} |\n"


def law_row(law: Law) -> str:
    """One row of a table."""
    return f"| {law.level} | `{law.name}` | {', '.join(law.rules)} | {one_line(law.summary)} |\n"


def test_the_reference_is_what_the_contracts_say() -> None:
    assert PAGE.read_text() == page(), "python -m tests.docs.test_laws_page writes it anew"


def test_every_law_has_a_row() -> None:
    text = PAGE.read_text()
    for contract in contracts():
        rows = text.partition(f"\n## {contract.__name__}\n")[2].partition("\n## ")[0]
        assert [name for name in contract.laws() if f"| `{name}` |" not in rows] == []


if __name__ == "__main__":
    PAGE.write_text(page())
