"""Engine environments built, tried out, and removed.

A recipe says what to install; uv does it where there is one, else venv and pip. What counts as built is only
what was tried out in the end.
"""

from __future__ import annotations

from llmengine_core.installing.building import build, built_already
from llmengine_core.installing.checking import Found, look_inside, wrong_versions
from llmengine_core.installing.removing import User, remove, users
from llmengine_core.installing.tools import PIP, Tool, find_tool, uv

__all__ = [
    "PIP",
    "Found",
    "Tool",
    "User",
    "build",
    "built_already",
    "find_tool",
    "look_inside",
    "remove",
    "users",
    "uv",
    "wrong_versions",
]
