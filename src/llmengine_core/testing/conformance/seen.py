"""What was seen of a plugin in an interpreter of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmengine_core.testing.conformance.watched import MOST_MEMORY, Ended, Watched, search_path

__all__ = ["Seen", "Step", "look"]

PROGRAM = "llmengine_core.testing.conformance.looking"
WORDS: Mapping[str, Callable[[Mapping[str, str]], str]] = {
    "found": lambda _: "looking for it",
    "import": lambda _: "importing its module",
    "hooks": lambda _: "looking at its hooks",
    "declared": lambda _: "asking what it declares",
    "registry": lambda _: "building a registry with it",
    "again": lambda _: "asking again what it declares",
    "factory": lambda about: f"making the {about['kind']} {about['name']!r}",
    "probe": lambda about: f"the probe of the {about['kind']} {about['name']!r}",
    "masker": lambda about: f"looking for the masker of {about['name']!r}",
    "environment": lambda about: f"looking at the environment of {about['name']!r}",
    "commands": lambda _: "letting it add its command",
}
"""What each step does, for people."""


@dataclass(frozen=True, slots=True)
class Step:
    """What came of one thing that was tried."""

    step: str
    about: Mapping[str, str]
    error: str | None
    """What it raised."""
    seen: Mapping[str, Any]
    cpu: float
    """Seconds of all threads."""
    wall: float
    effects: Sequence[tuple[str, str]]
    """See ``Effects.found``."""
    modules: Sequence[str]
    """That were imported meanwhile."""
    printed: str

    @property
    def words(self) -> str:
        """What it was: "importing its module"."""
        return WORDS[self.step](self.about)

    def done(self) -> Step:
        """Itself. Raises ``AssertionError`` where it failed."""
        assert self.error is None, f"{self.words} failed: {self.error}"
        return self


@dataclass(slots=True)
class Seen:
    """All steps, as far as they went."""

    steps: list[Step] = field(default_factory=list)
    begun: str = "starting an interpreter"
    ended: str | None = None
    """Why there were no more."""

    def all(self, step: str) -> list[Step]:
        """The steps of a kind. Raises ``AssertionError`` where the look ended before them, and never for its end."""
        found = [each for each in self.steps if each.step == step]
        assert found or self.ended is None, f"{self.begun} ended the process: {self.ended}"
        broken = next((each for each in self.steps if each.error is not None and each.step in NEEDED), None)
        if not found and broken is not None:
            broken.done()
        return found

    def one(self, step: str) -> Step:
        """The only, or the first, of a kind, which did not fail."""
        found = self.all(step)
        assert found, f"{WORDS[step]({})} was not tried"
        return found[0].done()

    def whole(self) -> None:
        """Raise ``AssertionError`` where the look was cut short."""
        assert self.ended is None, f"{self.begun} ended the process: {self.ended}"


NEEDED = ("found", "import", "declared")
"""Steps without which there are no others."""


async def look(
    plugin: str,
    folder: Path,
    *,
    only: str | None = None,
    first: Sequence[str] = (),
    urls: Mapping[str, str] | None = None,
    seconds: float,
    memory: int = MOST_MEMORY,
) -> Seen:
    """See what there is to see of a plugin. ``folder`` is empty and its own; ``first`` are folders to import from.

    Whatever the plugin does, it comes back: no step takes longer than ``seconds``.
    """
    order = {
        "plugin": plugin,
        "path": search_path(first),
        "folder": str(folder),
        "only": only,
        "urls": dict(urls or {}),
        "seconds": seconds,
    }
    seen = Seen()
    child = Watched(PROGRAM, order, folder / "output", env={"TMPDIR": str(folder)}, memory=memory)
    try:
        async with aclosing(child.news(STARTING)) as news:
            async for told in news:
                if "begun" in told:
                    seen.begun = WORDS[told["begun"]](told["about"])
                else:
                    told["effects"] = [(kind, what) for kind, what in told["effects"]]
                    seen.steps.append(Step(**told))
    except Ended as ended:
        seen.ended = str(ended)
    return seen


STARTING = 20.0
"""Seconds until an interpreter has begun, on a machine that is busy."""
