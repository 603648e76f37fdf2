"""Where the hub may lead: to itself, whatever its address is, and elsewhere as URLs may lead."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from llmengine_core.errors import BadRequestError, ServerError
from llmengine_core.urls import Address, UrlPolicy, shown_url

__all__ = ["HubPolicy", "origin"]

PORTS = {"http": 80, "https": 443}


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of a URL; none of them where it has no such parts."""
    try:
        parts = urlsplit(url)
        return (
            parts.scheme,
            (parts.hostname or "").removesuffix("."),
            parts.port or PORTS.get(parts.scheme, 0),
        )
    except ValueError:
        return "", "", 0


@dataclass(frozen=True)
class HubPolicy(UrlPolicy):
    """A policy that trusts one server more: the operator named it, so it may have any address."""

    endpoint: str = "https://huggingface.co"

    def check(self, url: str, *, field: str = "the URL") -> SplitResult:
        """As for any URL; the hub's own may be private. From a hub with TLS nothing leads to where there is none."""
        if self._is_own(url):
            return self._own.check(url, field=field)
        parts = super().check(url, field=field)
        if parts.scheme == "http" and origin(self.endpoint)[0] == "https":
            raise BadRequestError(
                f"{field} {shown_url(url)!r} leads from https to http, where anybody may listen and change it"
            )
        return parts

    async def resolve(self, url: str, *, field: str = "the URL") -> list[tuple[Address, int]]:
        """As for any URL; the hub's own may be private.

        Its name isn't a caller's to mend: where there is no network, some resolvers say that there is no such name. So
        that is a ``ServerError`` here, as where nobody answers.
        """
        if self._is_own(url):
            try:
                return await self._own.resolve(url, field=field)
            except BadRequestError as error:
                if not isinstance(error.__cause__, socket.gaierror):
                    raise
                raise ServerError(
                    f"{origin(url)[1]} has no address here ({error.__cause__.strerror}); look at this machine's "
                    "network and DNS, or correct HF_ENDPOINT",
                    status_code=503,
                ) from error
        return await super().resolve(url, field=field)

    def _is_own(self, url: str) -> bool:
        return origin(url) == origin(self.endpoint)

    @property
    def _own(self) -> UrlPolicy:
        host = origin(self.endpoint)[1]
        return UrlPolicy((*self.private_hosts, host), lookup=self.lookup, lookup_seconds=self.lookup_seconds)
