"""What may be fetched from where, held against the standard library's own idea of what is public."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Iterable

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from llmengine_core.errors import BadRequestError, ServerError
from llmengine_core.urls import MAX_URL, Address, UrlPolicy, shown_url

PUBLIC = UrlPolicy()
STRICTER = [
    ipaddress.ip_network(each) for each in ("168.63.129.16/32", "192.0.0.0/24", "192.88.99.0/24", "2001::/23")
]
"""Refused although the library calls them, or a part of them, public."""
EDGES = [
    ipaddress.ip_address(each)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24"),
        *("203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "::/128", "::1/128", "2001::/23", "2001:db8::/32"),
        *("3fff::/20", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8", "2000::/3", "64:ff9b:1::/48"),
    )
    for first, last in [(ipaddress.ip_network(network)[0], ipaddress.ip_network(network)[-1])]
    for value in (int(first) - 1, int(first), int(last), int(last) + 1)
    if 0 <= value < 2 ** (32 if first.version == 4 else 128)
    for each in [type(first)(value)]
]
V4 = st.ip_addresses(v=4) | st.sampled_from([each for each in EDGES if each.version == 4])
V6 = st.ip_addresses(v=6) | st.sampled_from([each for each in EDGES if each.version == 6])


def is_public(address: Address) -> bool:
    """The standard library's word on an address that carries no other."""
    if address.version == 6 and (address.is_site_local or address not in ipaddress.ip_network("2000::/3")):
        return False
    if address in ipaddress.ip_network("3fff::/20"):  # that of Python 3.11 doesn't know yet
        return False
    strict = any(address in network for network in STRICTER)
    return address.is_global and not (address.is_multicast or address.is_reserved or strict)


def written(address: Address) -> str:
    return f"http://[{address}]/x" if address.version == 6 else f"http://{address}/x"


def allowed(policy: UrlPolicy, url: str) -> bool:
    try:
        policy.check(url)
    except BadRequestError:
        return False
    return True


def answering(*addresses: str) -> UrlPolicy:
    return UrlPolicy(lookup=lambda host: addresses)


# --- addresses


@given(V4 | V6)
def test_an_address_is_allowed_where_the_library_calls_it_public(address: Address) -> None:
    carries = any(
        address in ipaddress.ip_network(each) for each in ("::ffff:0:0/96", "64:ff9b::/96", "2002::/16")
    )
    assume(not carries)
    assert allowed(PUBLIC, written(address)) == is_public(address)


@given(V4, st.sampled_from(["mapped", "nat64", "6to4"]), st.integers(0, 2**80 - 1))
def test_an_address_that_leads_to_another_is_judged_by_that(
    inner: ipaddress.IPv4Address, how: str, rest: int
) -> None:
    outer = {
        "mapped": lambda: 0xFFFF << 32 | int(inner),
        "nat64": lambda: 0x64FF9B << 96 | int(inner),
        "6to4": lambda: 0x2002 << 112 | int(inner) << 80 | rest,
    }[how]()
    address = ipaddress.IPv6Address(outer)
    if how == "mapped":
        assert address.ipv4_mapped == inner
    if how == "6to4":
        assert address.sixtofour == inner
    assert allowed(PUBLIC, written(address)) == is_public(inner)
    assert allowed(UrlPolicy((str(inner),)), written(address))


@st.composite
def spellings(draw: st.DrawFn) -> str:
    """An IPv4 address in any of the forms that C libraries read."""
    value = int(draw(V4))
    count = draw(st.integers(1, 4))
    parts = [value >> 8 * (3 - at) & 255 for at in range(count - 1)]
    parts.append(value & (1 << 8 * (5 - count)) - 1)
    return ".".join(draw(st.sampled_from([f"{n}", f"{n:#x}", f"0X{n:X}", f"0{n:o}"])) for n in parts)


@given(spellings(), st.sampled_from(["", "."]))
def test_an_odd_spelling_of_an_address_is_judged_as_what_c_reads_in_it(spelled: str, dot: str) -> None:
    meant = ipaddress.ip_address(socket.inet_aton(spelled))
    url = f"http://{spelled}{dot}/"
    assert allowed(PUBLIC, url) == is_public(meant)
    everywhere = UrlPolicy(("0.0.0.0/0",))
    assert asyncio.run(everywhere.resolve(url)) == [(meant, 80)]


@given(
    st.lists(st.from_regex(r"0[xX]?[0-9a-f]*|[0-9]+", fullmatch=True), min_size=1, max_size=6).map(".".join)
)
def test_a_host_that_ends_in_a_number_is_what_c_reads_or_nothing(host: str) -> None:
    try:
        meant = ipaddress.ip_address(socket.inet_aton(host))
    except OSError:
        meant = None
    policy = UrlPolicy(("0.0.0.0/0",), lookup=lambda name: pytest.fail(f"asked for {name}"))
    if not host.rpartition(".")[2].isdecimal() and meant is None:
        return  # a name
    if meant is None:
        with pytest.raises(BadRequestError):
            asyncio.run(policy.resolve(f"http://{host}/"))
    else:
        assert asyncio.run(policy.resolve(f"http://{host}/")) == [(meant, 80)]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://127.1/",
        "http://0x7f.1/",
        "http://2130706433/",
        "http://017700000001/",
        "http://0/",
        "http://[::1]/",
        "http://[::]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[2002:7f00:1::]/",
        "http://[::127.0.0.1]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00:ec2::254]/latest/meta-data/",
        "http://100.100.100.200/",
        "http://168.63.129.16/",
        "http://localhost:8000/",
        "http://LocalHost./",
        "http://a.localhost/",
    ],
)
def test_what_isnt_public_is_named_with_the_setting_that_allows_it(url: str) -> None:
    with pytest.raises(BadRequestError, match=r"leads to [0-9a-f.:]+, which is .*LLMENGINE_PRIVATE_HOSTS"):
        PUBLIC.check(url)


# --- texts


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "scheme ''"),
        ("model.tar", "scheme ''"),
        ("//host/x", "scheme ''"),
        ("file:///etc/passwd", "scheme 'file'"),
        ("ftp://example.com/x", "scheme 'ftp'"),
        ("gopher://example.com:70/1", "scheme 'gopher'"),
        ("data:text/plain,x", "scheme 'data'"),
        ("http:example.com", "no host"),
        ("http:///x", "no host"),
        ("http://?x", "no host"),
        ("http://:80/", "no host"),
        ("http://user:s3cret@example.com/", "user or a password"),
        ("http://user@example.com/", "user or a password"),
        ("http://@example.com/", "user or a password"),
        ("http://example.com:0/", "port 0"),
        ("http://example.com:65536/", "port 65536"),
        ("http://example.com:800000/", "no host"),
        ("http://example.com:x/", "no host"),
        ("http://example.com:80:80/", "no host"),
        ("http://[::1]x:80/", "no host"),
        ("http://[::1%25lo]/", "host"),
        ("http://[fe80::1%eth0]/", "host"),
        ("http://[v1.x]/", "host"),
        ("http://[::1/", "no URL"),
        ("http://[1.2.3.4]/", "no URL|neither|no host"),
        ("http://[:]/", "no URL|neither"),
        ("http://1.2.3.4.5/", "neither"),
        ("http://256.1.1.1/", "neither"),
        ("http://4294967296/", "neither"),
        ("http://08.1.1.1/", "neither"),
        ("http://a..b/", "neither"),
        ("http://-a.com/", "neither"),
        (f"http://{'a' * 64}.com/", "neither"),
        (f"http://{'a.' * 127}com/", "neither"),
        ("http://exa%6dple.com/", "no host"),
        ("http://*.example.com/", "no host"),
        ("http://example.com/a b", "holds ' ' at character 20"),
        (" http://example.com/", "holds ' ' at character 0"),
        ("http://example.com/\r\nHost: other", r"holds '\\r'"),
        ("http://example.com\\@127.0.0.1/", r"holds '\\\\'"),
        ("http://example.com/\x00", r"holds '\\x00'"),
        ("http://example.com/\x7f", r"holds '\\x7f'"),
        ("http://１２７.0.0.1/", "isn't ASCII"),
        ("http://münchen.example/", "xn--"),
        ("http://example.com/é", "isn't ASCII"),
        (f"http://example.com/{'a' * MAX_URL}", f"at most {MAX_URL}"),
    ],
)
def test_a_url_that_cant_be_fetched_is_refused_with_the_reason(url: str, why: str) -> None:
    with pytest.raises(BadRequestError, match=why):
        PUBLIC.check(url)


@given(st.text() | st.from_regex(r"https?://[^/]{0,30}(/.*)?"))
def test_any_text_is_either_refused_or_a_url_with_a_host(text: str) -> None:
    try:
        parts = PUBLIC.check(text)
    except BadRequestError:
        return
    assert parts.scheme in ("http", "https")
    assert parts.hostname
    assert parts.username is None
    assert text.isascii()
    assert text.isprintable()


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("http://example.com", 80),
        ("HTTPS://Example.COM./a?b#c", 443),
        ("https://example.com:8443/", 8443),
        ("https://example.com:/", 443),
        ("https://my_bucket.xn--mnchen-3ya.example/x", 443),
    ],
)
async def test_a_url_leads_to_all_addresses_of_its_host(url: str, port: int) -> None:
    asked: list[str] = []

    def lookup(host: str) -> Iterable[str]:
        asked.append(host)
        return ["93.184.215.14", "2606:2800:21f::1", "93.184.215.14"]

    found = await UrlPolicy(lookup=lookup).resolve(url)
    assert found == [(ipaddress.ip_address(each), port) for each in ("93.184.215.14", "2606:2800:21f::1")]
    (host,) = asked
    assert host == host.lower()
    assert not host.endswith(".")


@given(st.sampled_from(["user:s3cret@", "s3cret@", "a:s3cret:b@"]), st.sampled_from(["/x", "/x?y", "#z", ""]))
def test_secrets_of_a_url_are_in_no_message(user: str, rest: str) -> None:
    for url in (
        f"http://{user}127.0.0.1{rest}",
        f"ftp://{user}host{rest}",
        "http://10.0.0.1/x?token=s3cret#s3cret",
        f"http://user:s3cret/x@host{rest}",
        f"http://user:s3cret?x@host{rest}",
        f"http:s3cret/{user}host",
    ):
        with pytest.raises(BadRequestError) as caught:
            PUBLIC.check(url)
        assert "s3cret" not in str(caught.value)


# --- names


@pytest.mark.parametrize(
    "addresses",
    [
        ["10.0.0.1"],
        ["93.184.215.14", "10.0.0.1"],
        ["2606:2800:21f::1", "fe80::1%eth0"],
        ["169.254.169.254"],
        ["fd00:ec2::254"],
        ["::ffff:169.254.169.254"],
        ["64:ff9b::a9fe:a9fe"],
    ],
)
async def test_a_name_with_any_address_that_isnt_public_is_refused(addresses: list[str]) -> None:
    with pytest.raises(
        BadRequestError, match=r"'https://rebound\.example/x' leads to .*LLMENGINE_PRIVATE_HOSTS"
    ):
        await answering(*addresses).resolve("https://rebound.example/x?token=s3cret")


@pytest.mark.parametrize(
    ("entry", "url"),
    [
        ("intra.example", "http://INTRA.example./x"),
        ("Intra.Example.", "http://intra.example/x"),
        ("10.1.2.3", "http://intra.example/x"),
        ("10.0.0.0/8", "http://intra.example/x"),
        ("10.9.9.9/8", "http://intra.example/x"),
        ("10.0.0.0/8", "http://10.1.2.3/x"),
        ("10.0.0.0/8", "http://[::ffff:10.1.2.3]/x"),
    ],
)
async def test_private_hosts_are_allowed_by_name_address_or_network(entry: str, url: str) -> None:
    found = await UrlPolicy((entry,), lookup=lambda host: ["10.1.2.3"]).resolve(url)
    assert len(found) == 1


@pytest.mark.parametrize(
    "entry", ["other.example", "example", "10.1.2.4", "10.2.0.0/16", "fd00::/8", "10.1.2.3/32"]
)
async def test_what_private_hosts_dont_name_stays_refused(entry: str) -> None:
    policy = UrlPolicy((entry,), lookup=lambda host: ["10.1.2.3", "192.168.0.1"])
    with pytest.raises(BadRequestError, match="leads to"):
        await policy.resolve("http://intra.example/")


@pytest.mark.parametrize(
    "entry", ["*", "*.example", "http://host", "host:80", "[::1]", "a b", "", "10.0.0.0/33", "127.1"]
)
def test_an_entry_that_says_nothing_is_refused_at_once(entry: str) -> None:
    with pytest.raises(BadRequestError, match="LLMENGINE_PRIVATE_HOSTS"):
        UrlPolicy((entry,))


async def test_localhost_is_allowed_by_its_name_and_by_either_address() -> None:
    for entry in ("localhost", "127.0.0.1", "127.0.0.0/8", "::1"):
        assert allowed(UrlPolicy((entry,)), "http://localhost:8000/hook")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), BadRequestError),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), ServerError),
        (UnicodeError("label too long"), BadRequestError),
    ],
)
async def test_a_name_that_isnt_found_is_said(error: Exception, kind: type[Exception]) -> None:
    def lookup(host: str) -> Iterable[str]:
        raise error

    with pytest.raises(kind, match=r"gone\.example"):
        await UrlPolicy(lookup=lookup).resolve("http://gone.example/")
    with pytest.raises(BadRequestError, match="has no address"):
        await answering().resolve("http://gone.example/")


async def test_a_resolver_that_doesnt_answer_is_not_waited_for() -> None:
    never = threading.Event()
    policy = UrlPolicy(lookup=lambda host: [str(never.wait())], lookup_seconds=0.05)
    try:
        with pytest.raises(ServerError, match="no answer for the addresses"):
            await policy.resolve("http://slow.example/")
    finally:
        never.set()


async def test_the_machines_own_resolver_is_asked() -> None:
    with pytest.raises(BadRequestError, match=r"leads to (127\.0\.0\.1|::1)"):
        await PUBLIC.resolve("http://localhost/")
    found = await UrlPolicy(("localhost",)).resolve("http://localhost:81/")
    assert {(str(address), port) for address, port in found} <= {("127.0.0.1", 81), ("::1", 81)}


def test_a_url_is_shown_without_what_may_be_secret() -> None:
    assert shown_url("https://host:1/a/b?token=s#t") == "https://host:1/a/b"
    assert shown_url("https://u:p@host/a") == "https://…@host…"
    assert shown_url("http://[::1") == "…"
