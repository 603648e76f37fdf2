"""The client that the hub's library is given connects to what was judged, and gives the token to the hub alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from tests.servers.hub import Hub

from llmengine_core.errors import BadRequestError
from llmengine_hub.pinning import PolicyTransport, Resumed
from llmengine_hub.policy import HubPolicy, origin

KNOWN = {"Authorization": "Bearer hf_secret"}


class Names:
    """A resolver that answers differently every time."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def __call__(self, host: str) -> list[str]:
        self.asked.append(host)
        return [self.answers[min(len(self.asked), len(self.answers)) - 1]]


@pytest.fixture
def resumed(tmp_path: Path) -> Resumed:
    return Resumed()


@pytest.fixture
def names() -> Names:
    return Names("127.0.0.1", "169.254.169.254")


@pytest.fixture
def transport(server: Hub, names: Names, resumed: Resumed) -> Iterator[PolicyTransport]:
    found = PolicyTransport(HubPolicy(("127.0.0.1",), names, endpoint=server.url), resumed)
    yield found
    found.end()


@pytest.fixture
def client(transport: PolicyTransport) -> Iterator[httpx2.Client]:
    with httpx2.Client(transport=transport, follow_redirects=True, trust_env=False) as found:
        yield found


def test_a_name_is_resolved_once_and_connected_to_by_its_address(
    server: Hub, client: httpx2.Client, names: Names
) -> None:
    url = f"http://rebinding.example:{server.ports['store']}/store/{'0' * 64}"
    assert client.get(url).status_code == 404
    assert names.asked == ["rebinding.example"]
    assert server.asked[0].headers["host"] == f"rebinding.example:{server.ports['store']}"
    with pytest.raises(BadRequestError, match="link-local"):
        client.get(url)


def test_the_token_goes_to_the_hub_alone(server: Hub, client: httpx2.Client) -> None:
    """Also where somebody who makes a request thinks otherwise, as the library does of hubs that it knows."""
    client.get(f"{server.url}/api/models/org/name", headers=KNOWN)
    client.get(f"{server.store_url}/store/{'0' * 64}", headers=KNOWN)
    client.get(f"http://localhost:{server.ports['hub']}/api/models/org/name", headers=KNOWN)
    assert ["authorization" in each.headers for each in server.asked] == [True, False, False]


def test_closing_a_client_breaks_nobody_elses_download(server: Hub, transport: PolicyTransport) -> None:
    """The library closes its client whenever a connection fails."""
    commit = server.put("org/name", {"model.bin": bytes(3_000_000)})
    first = httpx2.Client(transport=transport, follow_redirects=True, trust_env=False)
    with first.stream("GET", f"{server.url}/org/name/resolve/{commit}/model.bin") as response:
        pieces = response.iter_bytes(1000)
        size = len(next(pieces))
        first.close()
        assert size + sum(map(len, pieces)) == 3_000_000


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://hub.example", ("https", "hub.example", 443)),
        ("HTTPS://Hub.Example.:443/x", ("https", "hub.example", 443)),
        ("http://hub.example:8080/a?b", ("http", "hub.example", 8080)),
        ("http://[::1]/", ("http", "::1", 80)),
        ("http://hub.example:99999", ("", "", 0)),
        ("http://[::1", ("", "", 0)),
    ],
)
def test_origins(url: str, expected: tuple[str, str, int]) -> None:
    assert origin(url) == expected


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "http://10.0.0.1", "https://hub.example", "http://hub.example:81"]
)
def test_only_the_very_hub_is_trusted(url: str) -> None:
    """Not another port of its host, nor the same host without TLS."""
    policy = HubPolicy(endpoint="http://127.0.0.1:8080")
    policy.check("http://127.0.0.1:8080/api")
    if "127" in url or "10." in url:
        with pytest.raises(BadRequestError):
            policy.check(url)
    with pytest.raises(BadRequestError, match="from https to http"):
        HubPolicy(endpoint="https://hub.example").check("http://hub.example:443/")
