"""How a wrong toy becomes a mutant."""

from __future__ import annotations

from tests.contract.mutants import Mutant
from tests.contract.toy_contract import ToyContract

from llmengine_core.testing.toy import CAPABILITIES, ToySession
from llmengine_core.types.capabilities import Capabilities

MUTANTS: list[Mutant] = []


def toy_mutant(
    name: str,
    bug: str,
    session: type[ToySession],
    *,
    killers: tuple[str, ...],
    shipped: str = "",
    declared: Capabilities = CAPABILITIES,
) -> Mutant:
    """A mutant whose sessions are wrong toys that declare ``declared``."""
    about = {"subject": name, "session_type": session, "capabilities_declared": declared}
    return Mutant(name, bug, type(session.__name__, (ToyContract,), about), killers, shipped)
