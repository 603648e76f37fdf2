"""How thorough a run of the contract kit is."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

__all__ = ["PROFILES", "PROFILE_VARIABLE", "Profile", "current", "hurry"]

PROFILE_VARIABLE = "LLMENGINE_CONFORMANCE_PROFILE"
"""Names the profile of a run: "smoke", "default" or "thorough"."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Bounds of one law. What is reached first ends it; one example is always tried to its end."""

    name: str
    examples: int
    """Most examples that are drawn."""
    seconds: float
    """After which no further example is begun."""
    shrinking: float
    """Seconds that making a failing example small may take."""
    steps: int
    """Most steps of one program of a state machine."""


PROFILES = {
    "smoke": Profile("smoke", examples=5, seconds=1.0, shrinking=2.0, steps=12),
    "default": Profile("default", examples=25, seconds=5.0, shrinking=10.0, steps=25),
    "thorough": Profile("thorough", examples=500, seconds=60.0, shrinking=120.0, steps=50),
}


_most_seconds = float("inf")


def hurry(seconds: float) -> None:
    """From now on, a law of this process begins no further example after that many seconds."""
    global _most_seconds
    _most_seconds = seconds


def current() -> Profile:
    """The profile that ``LLMENGINE_CONFORMANCE_PROFILE`` names; "default" where it names none."""
    name = os.environ.get(PROFILE_VARIABLE) or "default"
    if name not in PROFILES:
        raise ValueError(f"{PROFILE_VARIABLE}={name!r}; allowed are {', '.join(PROFILES)}")
    profile = PROFILES[name]
    return replace(profile, seconds=min(profile.seconds, _most_seconds))
