"""What may be fetched from where: the one place that decides it.

A URL of a user's, or a redirect of a server's, is held against a ``UrlPolicy`` twice: as it is written, and by the
addresses that its host has. DNS is asked once, and what was allowed is what is connected to.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias
from urllib.parse import SplitResult, urlsplit

from llmengine_core.errors import BadRequestError, ServerError
from llmengine_core.threads import DaemonThreads

__all__ = ["MAX_URL", "Address", "Lookup", "UrlPolicy", "shown_url"]

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Lookup: TypeAlias = Callable[[str], Iterable[str]]
"""The addresses of a host name; blocks. Raises ``OSError`` where it has none."""

MAX_URL = 8192
"""Characters that a URL may have."""
SHOWN = 200
LOOKUP_SECONDS = 20.0
PORTS = {"http": 80, "https": 443}
SETTING = "LLMENGINE_PRIVATE_HOSTS"

AUTHORITY = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{0,5}))?")
LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
NUMBER = re.compile(r"0[xX][0-9A-Fa-f]+|0[0-7]*|[1-9][0-9]*")
WRITTEN_WRONG = re.compile(r"[^\x21-\x5b\x5d-\x7e]")
"""What no URL holds: spaces, control characters, backslashes, and what isn't ASCII."""

NOT_PUBLIC: tuple[tuple[Network, str], ...] = tuple(
    (ipaddress.ip_network(network), kind)
    for network, kind in (
        ("0.0.0.0/8", "of this machine itself"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared by a provider's customers"),
        ("127.0.0.0/8", "of this machine itself"),
        ("168.63.129.16/32", "of a cloud's own services"),
        ("169.254.0.0/16", "link-local, where clouds keep machines' credentials"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "reserved"),
        ("192.88.99.0/24", "reserved"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "private"),
        ("198.51.100.0/24", "reserved"),
        ("203.0.113.0/24", "reserved"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("::/128", "of this machine itself"),
        ("::1/128", "of this machine itself"),
        ("2001::/23", "reserved"),
        ("2001:db8::/32", "reserved"),
        ("3fff::/20", "reserved"),
        ("fc00::/7", "private, where clouds keep machines' credentials"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "private"),
        ("ff00::/8", "multicast"),
    )
)
PUBLIC_V6 = ipaddress.IPv6Network("2000::/3")
"""All that has been given to anybody; the rest is reserved."""
CARRIES_V4 = (
    (ipaddress.IPv6Network("::ffff:0:0/96"), 0),
    (ipaddress.IPv6Network("64:ff9b::/96"), 0),
    (ipaddress.IPv6Network("2002::/16"), 80),
)
"""IPv6 networks that lead to an IPv4 address, and how many bits follow it: mapped, NAT64, 6to4."""
OWN = (ipaddress.IPv4Address("127.0.0.1"), ipaddress.IPv6Address("::1"))


def addresses_of(host: str) -> Iterable[str]:
    """What this machine's resolver says."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]


@dataclass(frozen=True)
class UrlPolicy:
    """Where URLs may lead: to public addresses, and where ``private_hosts`` says.

    Raises ``BadRequestError`` for an entry that is no name, address or network.
    """

    private_hosts: tuple[str, ...] = ()
    """Names, addresses and networks that are allowed although they are not public; as in the settings."""
    lookup: Lookup = field(default=addresses_of, repr=False)
    """Who is asked for the addresses of a name."""
    lookup_seconds: float = LOOKUP_SECONDS
    """How long an answer is waited for."""

    def __post_init__(self) -> None:
        _ = self._allowed

    def check(self, url: str, *, field: str = "the URL") -> SplitResult:
        """The parts of an http or https URL that may be fetched, by all that can be told without asking anybody.

        Raises ``BadRequestError`` that says what is wrong with it and what would be allowed; ``field`` is what
        it calls the URL.
        """
        parts, host, _ = _read(url, field)
        address = _literal(host)
        if address is not None:
            self._judge(url, field, host, [address])
        elif host == "localhost" or host.endswith(".localhost"):
            self._judge(url, field, host, OWN, every=False)
        return parts

    async def resolve(self, url: str, *, field: str = "the URL") -> list[tuple[Address, int]]:
        """The addresses and the port that a URL leads to, each of them allowed; DNS is asked once.

        Connect to one of these and to no other. Raises ``BadRequestError`` as ``check`` does, and where any
        address is not allowed, or where there is none; ``ServerError`` where nobody answers who could tell.
        """
        self.check(url, field=field)
        _, host, port = _read(url, field)
        address = _literal(host)
        if address is not None:
            return [(address, port)]
        found = await self._look_up(url, field, host)
        self._judge(url, field, host, found)
        return [(each, port) for each in found]

    async def _look_up(self, url: str, field: str, host: str) -> list[Address]:
        shown = f"{field} {shown_url(url)!r}"
        threads = DaemonThreads(1)  # of its own: a resolver that hangs holds up nobody else
        try:
            async with asyncio.timeout(self.lookup_seconds):
                answer = await asyncio.wrap_future(threads.submit(lambda: list(self.lookup(host))))
        except TimeoutError:
            raise ServerError(
                f"{shown}: no answer for the addresses of {host!r} within {self.lookup_seconds:g} s; look at this "
                "machine's DNS, and try again",
                status_code=503,
            ) from None
        except (OSError, UnicodeError) as error:
            if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
                raise ServerError(
                    f"{shown}: the addresses of {host!r} can't be had now ({error.strerror}); look at this machine's "
                    "network and DNS, and try again",
                    status_code=503,
                ) from error
            why = error.strerror if isinstance(error, OSError) else None
            raise BadRequestError(
                f"{shown}: its host {host!r} has no address ({why or error}); mend the name"
            ) from error
        finally:
            threads.shutdown(wait=False)
        found = list(dict.fromkeys(ipaddress.ip_address(each) for each in answer))
        if not found:
            raise BadRequestError(f"{shown}: its host {host!r} has no address; mend the name")
        return found

    @cached_property
    def _allowed(self) -> tuple[frozenset[str], tuple[Network, ...]]:
        """Names in lower case, and networks."""
        names, networks = set(), []
        for entry in self.private_hosts:
            try:
                networks.append(ipaddress.ip_network(entry, strict=False))
            except ValueError:
                name = entry.lower().removesuffix(".")
                if not _is_name(name):
                    raise BadRequestError(
                        f"private_hosts holds {entry[:SHOWN]!r}; each of {SETTING} must be a host name, an "
                        "address, or a network such as 10.0.0.0/8, without scheme, port or '*'"
                    ) from None
                names.add(name)
        return frozenset(names), tuple(networks)

    def _judge(
        self, url: str, field: str, host: str, found: Sequence[Address], *, every: bool = True
    ) -> None:
        """Raise where an address isn't allowed; with ``every=False`` where none is."""
        names, _ = self._allowed
        if host in names:
            return
        refused = [(each, kind) for each in found if (kind := self._refusal(each)) is not None]
        if not refused or (not every and len(refused) < len(found)):
            return
        address, kind = refused[0]
        raise BadRequestError(
            f"{field} {shown_url(url)!r} leads to {address}, which is {kind}; public addresses are allowed, and "
            f"others where {SETTING} names them: set it to {host}, or to {address}, if that is meant"
        )

    def _refusal(self, address: Address) -> str | None:
        """What an address is that isn't allowed; None where it is."""
        _, networks = self._allowed
        carried = _carried(address)
        if any(each in network for network in networks for each in (address, carried) if each is not None):
            return None
        if carried is not None:
            kind = _kind(carried)
            return None if kind is None else f"another form of {carried}, which is {kind}"
        return _kind(address)


def shown_url(url: str) -> str:
    """A URL for a message: without what may be secret, user and query, and not too long."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        sound = AUTHORITY.fullmatch(parts.netloc) is not None
    except ValueError:
        return "…"
    if sound:
        shown = f"{parts.scheme}://{parts.netloc}{parts.path}"
    elif not parts.netloc:
        shown = f"{parts.scheme}:…" if "@" in url and parts.scheme in PORTS else re.split(r"[?#]", url)[0]
    else:
        shown = f"{parts.scheme}://{'…@' if '@' in parts.netloc else ''}{host}…"
    return shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}…"


def _read(url: str, field: str) -> tuple[SplitResult, str, int]:
    """A URL's parts, its host in lower case without the last dot, and its port."""
    if len(url) > MAX_URL:
        raise BadRequestError(f"{field} has {len(url)} characters; at most {MAX_URL} are allowed")
    if wrong := WRITTEN_WRONG.search(url):
        raise BadRequestError(
            f"{field} {shown_url(url)!r} holds {wrong[0]!r} at character {wrong.start()}; write spaces, backslashes, "
            "control characters and what isn't ASCII percent-encoded (%20), and a host's name in its xn-- form"
        )
    try:
        parts = urlsplit(url)
    except ValueError:
        raise BadRequestError(f"{field} is no URL: its brackets don't hold an IPv6 address") from None
    shown = f"{field} {shown_url(url)!r}"
    if parts.scheme not in PORTS:
        raise BadRequestError(f"{shown} has the scheme {parts.scheme!r}; http and https are allowed here")
    if "@" in parts.netloc:
        raise BadRequestError(f"{shown} holds a user or a password; give a URL without them")
    written = AUTHORITY.fullmatch(parts.netloc)
    if written is None:
        raise BadRequestError(
            f"{shown} has no host that can be reached; it must be http(s)://HOST[:PORT]/…, the host a name or an "
            "address, IPv6 in brackets and without a zone"
        )
    port = int(written[3]) if written[3] else PORTS[parts.scheme]
    if not 1 <= port <= 65535:
        raise BadRequestError(f"{shown} has the port {port}; it must be 1 to 65535")
    host = (written[1] or written[2]).lower().removesuffix(".")
    if _literal(host) is None and not _is_name(host):
        raise BadRequestError(
            f"{shown} has the host {host[:SHOWN]!r}, which is neither an address nor a name of labels of 1 to 63 "
            "letters, digits and hyphens"
        )
    return parts, host, port


def _literal(host: str) -> Address | None:
    """The address that a host is, in any spelling that a resolver takes; None where it is none."""
    if ":" in host:
        try:
            return ipaddress.IPv6Address(host)
        except ValueError:
            return None
    numbers = host.split(".")
    if len(numbers) > 4 or not all(NUMBER.fullmatch(each) for each in numbers):
        return None
    *high, low = (_value(each) for each in numbers)
    if any(each > 255 for each in high) or low >= 256 ** (4 - len(high)):
        return None
    return ipaddress.IPv4Address(low + sum(each << 8 * (3 - at) for at, each in enumerate(high)))


def _value(number: str) -> int:
    octal = len(number) > 1 and number.isdecimal() and number[0] == "0"
    return int(number, 8 if octal else 0)


def _is_name(host: str) -> bool:
    """Whether a host is a name: what ends in a number is an address, or nothing."""
    labels = host.split(".")
    ends_in_number = re.fullmatch(r"[0-9]+|0[xX][0-9A-Fa-f]*", labels[-1]) is not None
    return len(host) <= 253 and not ends_in_number and all(LABEL.fullmatch(each) for each in labels)


def _carried(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 address leads to; None where it leads to none."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    for network, behind in CARRIES_V4:
        if address in network:
            return ipaddress.IPv4Address(int(address) >> behind & 0xFFFF_FFFF)
    return None


def _kind(address: Address) -> str | None:
    """What an address is that isn't public; None for one that is."""
    for network, kind in NOT_PUBLIC:
        if address in network:
            return kind
    return "reserved" if address.version == 6 and address not in PUBLIC_V6 else None
