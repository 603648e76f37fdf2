"""Locations: paths and URLs, as they are named, shown and taken apart; and why there is nothing to look at."""

from __future__ import annotations

import re

from llmengine_core.types.plan import Problem
from llmengine_core.urls import shown_url

__all__ = ["HERE", "WEB", "Absent", "Unreachable", "scheme_of", "shown", "split_location"]

URL = re.compile(r"([a-z][a-z0-9+.-]*)://.*|(file):.*", re.DOTALL | re.IGNORECASE)
WITH_COLON = re.compile(r"[^:/]+://[^/]*:")
"""The beginning of a URL that may hold a password before its host, as no URL of ours does."""
HERE = ("file", "package")
"""Schemes of what is on this machine."""
WEB = ("http", "https")
"""Those whose URLs may have a query, which may be secret."""


class Absent(Exception):
    """There are no weights to look at."""

    def __init__(self, message: str, mend: str | None = None) -> None:
        super().__init__(message)
        self.problem = Problem(message, mend)


class Unreachable(Absent):
    """They can't be reached now, and may be later."""


def scheme_of(location: str) -> str | None:
    """The scheme of a URL, in lower case; None for a path."""
    found = URL.fullmatch(location)
    return (found[1] or found[2]).lower() if found else None


def split_location(url: str) -> tuple[str, str]:
    """The URL of the folder that something lies in, and its name there, with its query if it has one.

    The name is "" for all of a bucket or host.
    """
    path, mark, query = url.partition("?")
    root, _, name = path.rstrip("/").rpartition("/")
    if root.endswith("/"):  # what is left is the scheme
        return path.rstrip("/"), ""
    return root, f"{name}{mark}{query}"


def shown(location: str) -> str:
    """A location for people: without what grants access to it."""
    scheme = scheme_of(location)
    if scheme in WEB:
        return shown_url(location)
    if scheme is None or scheme in HERE or not WITH_COLON.match(location):
        return location
    return f"{scheme}://…" if "@" in location else shown_url(location)
