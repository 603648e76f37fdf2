"""What may be fetched from where: the one place that decides it.

A URL of a user's, or a redirect of a server's, is held against a ``UrlPolicy`` twice: as it is written, and by the
addresses that its host has. DNS is asked once, and what was allowed is what is connected to.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import SplitResult

__all__ = ["Address", "UrlPolicy"]

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
SCHEMES = frozenset({"http", "https"})


@dataclass(frozen=True, slots=True)
class UrlPolicy:
    """Where URLs may lead."""

    private_hosts: tuple[str, ...] = ()
    """Names, addresses and networks that are allowed although they are not public; as in the settings."""

    def check(self, url: str) -> SplitResult:
        """The parts of an http or https URL that may be fetched, by all that can be told without asking anybody.

        Raises ``BadRequestError`` that says what is wrong with it and what would be allowed.
        """
        raise NotImplementedError

    async def resolve(self, url: str) -> list[tuple[Address, int]]:
        """The addresses and the port that a URL leads to, each of them allowed; DNS is asked once.

        Connect to one of these and to no other. Raises ``BadRequestError`` where any is not allowed, or where there
        is none; ``check`` comes first.
        """
        raise NotImplementedError
