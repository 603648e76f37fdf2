"""One environment, completely."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from llmengine_core.recipes.versions import canonical, holds, requirement

__all__ = ["Conflict", "Recipe", "left_out"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One environment, completely: two recipes are equal where what they install is."""

    engine: str
    """The registered name of the backend or transform that it is for."""
    version: str
    """Of its distribution."""
    accelerator: str
    """"cpu" or "cuda"."""
    python: str
    """"3.11"."""
    distributions: tuple[str, ...]
    """Of the engine and of each part, canonical and sorted: what it is built for."""
    modules: tuple[str, ...]
    """What must import there in the end, sorted."""
    requirements: tuple[str, ...]
    """What is asked for (PEP 508), sorted."""
    pins: Mapping[str, str]
    """Version by canonical distribution: constraints, not requests."""
    overrides: tuple[str, ...] = ()
    """Requirements that stand in for every other one of their name, sorted."""
    digest: str = field(init=False)
    """Hex digest of all of the above."""

    def __post_init__(self) -> None:
        facts = [
            self.engine, self.version, self.accelerator, self.python, self.distributions, self.modules,
            self.requirements, dict(self.pins), self.overrides,
        ]  # fmt: skip
        text = json.dumps(facts, sort_keys=True)
        object.__setattr__(self, "digest", hashlib.sha256(text.encode()).hexdigest())

    @property
    def name(self) -> str:
        """The folder that it is built into: "transformers-5.23.0-cpu-0123abcd"."""
        return f"{self.engine}-{self.version}-{self.accelerator}-{self.digest[:8]}"

    @property
    def left_out(self) -> frozenset[str]:
        """Canonical distributions that an override's marker, which is never true, keeps out."""
        return left_out(self.overrides)

    @property
    def overridden(self) -> frozenset[str]:
        """Canonical distributions of which an override says what is installed, if anything."""
        return frozenset(canonical(requirement(each).name) for each in self.overrides)


@dataclass(frozen=True, slots=True)
class Conflict:
    """Why there is no such environment."""

    reason: str
    """For people: who wants what."""
    mend: str | None = None


def left_out(overrides: Iterable[str]) -> frozenset[str]:
    """Canonical distributions that an override's marker, which is never true here, keeps out."""
    return frozenset(canonical(each.name) for each in map(requirement, overrides) if not holds(each))
