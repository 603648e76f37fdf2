"""What the hub refuses is told with what mends it, wherever it leads is judged, and no token is told or goes astray."""

from __future__ import annotations

import socket
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hub_uses import bring, content, listed
from tests.servers.hub import Fault, Hub, hub
from tests.servers.web import Authority

from llmengine_core.interfaces.storage import ObjectMissing, StorageError
from llmengine_core.urls import UrlPolicy
from llmengine_hub.storage import HubStorage

Open = Callable[[str], HubStorage]
TOKEN = "hf_secretsecretsecret"
METADATA = "http://169.254.169.254/latest/meta-data"


@pytest.fixture
def known(server: Hub, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Gives us a token that opens some repositories."""

    def give(*opens: str, valid: bool = True) -> None:
        server.tokens = {TOKEN: frozenset(opens)} if valid else {}
        monkeypatch.setenv("HF_TOKEN", TOKEN)

    return give


async def refusal(storage: HubStorage, key: str | None = None) -> str:
    """What is said where a repository can't be listed, or a file of it not be brought."""
    with pytest.raises(StorageError) as caught:
        await (listed(storage) if key is None else bring(storage, [key]))
    told = "".join(traceback.format_exception(caught.value))
    assert TOKEN not in told
    assert "Signature" not in str(caught.value)
    return str(caught.value)


async def test_what_is_missing(server: Hub, opened: Open, known: Callable[..., None]) -> None:
    server.put("org/name", {"config.json": b"{}"})
    said = await refusal(opened("hf://org/absent"))
    mend = "correct the name, or set HF_TOKEN to a token that may see it"
    assert said == f"{server.url} has no repository 'org/absent', or it is private; {mend}"
    said = await refusal(opened("hf://org/name@v2"))
    assert f"org/name has no revision 'v2'; they are at {server.url}/org/name/tree/main" in said
    known()
    assert "the token in HF_TOKEN may not see it" in await refusal(opened("hf://org/absent"))
    storage = opened("hf://org/name")
    with pytest.raises(ObjectMissing, match=r"hf://org/name has no file 'model.bin'"):
        await content(storage, "model.bin")
    await listed(storage)
    server.repos["org/name"].commits[server.repos["org/name"].refs["main"]].clear()  # while we are at it
    with pytest.raises(ObjectMissing, match=r"hf://org/name has no file 'config.json'"):
        await content(storage, "config.json")
    with pytest.raises(ObjectMissing, match=r"hf://org/name has no file 'config.json'"):
        await bring(storage, ["config.json"])


async def test_what_is_gated(server: Hub, opened: Open, known: Callable[..., None]) -> None:
    server.put("org/gated", {"config.json": b"{}"}, gated=True)
    storage = opened("hf://org/gated")
    said = await refusal(storage, "config.json")
    assert said.startswith(
        f"org/gated is gated: accept its terms at {server.url}/org/gated, then set HF_TOKEN"
    )
    with pytest.raises(StorageError, match="org/gated is gated"):
        await content(storage, "config.json")
    known()
    assert "the account of the token in HF_TOKEN has no access" in await refusal(
        opened("hf://org/gated"), "config.json"
    )
    known("org/gated")
    assert await content(opened("hf://org/gated"), "config.json") == b"{}"


async def test_what_is_private_and_whose_token_goes_where(
    server: Hub, opened: Open, known: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.put("org/private", {"model.bin": b"private"}, private=True)
    assert "or it is private" in await refusal(opened("hf://org/private"))
    known("org/private")
    storage = opened("hf://org/private")
    assert await content(storage, "model.bin") == b"private"
    await bring(storage, ["model.bin"])
    assert TOKEN not in repr(storage)
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    assert "or it is private" in await refusal(opened("hf://org/private"))
    for each in server.asked:
        if each.server == "store":
            assert "authorization" not in each.headers
    assert server.count("store GET") == 2


async def test_a_token_that_is_not_taken(server: Hub, opened: Open, known: Callable[..., None]) -> None:
    server.put("org/name", {"config.json": b"{}"})
    known(valid=False)
    said = await refusal(opened("hf://org/name"))
    assert f"{server.url} doesn't take the token in HF_TOKEN: it is wrong, or has expired" in said


async def test_a_login_that_has_expired_is_renewed(server: Hub, opened: Open, tmp_path: Path) -> None:
    """As `hf auth login` leaves it, from a login in a browser: hours later nobody takes the token."""
    server.put("org/name", {"config.json": b"{}"})
    server.renewals = {"hf_refresh": "hf_renewed"}
    home = tmp_path / "home"
    home.mkdir()
    (home / "token").write_text("hf_old", encoding="utf-8")
    kept = "[me]\nhf_token = hf_old\nrefresh_token = hf_refresh\nexpires_at = 1\n"
    (home / "stored_tokens").write_text(kept, encoding="utf-8")
    assert await content(opened("hf://org/name"), "config.json") == b"{}"
    assert (home / "token").read_text(encoding="utf-8") == "hf_renewed"
    server.tokens = {}
    said = await refusal(opened("hf://org/name"))
    assert (
        f"doesn't take the token in {home / 'token'}: it is wrong, or has expired. Run `hf auth login`"
        in said
    )
    assert not server.renewals


@pytest.mark.parametrize("token", ["hf with space", "hf\nX-Evil: 1 1", "hf_\x00", "hfé"])
async def test_what_is_no_token_is_never_sent(
    server: Hub, opened: Open, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    with suppress(ValueError):
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(StorageError, match="the hub's token in HF_TOKEN holds what no token has"):
            await listed(opened("hf://org/name"))
    assert not server.asked


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault("/revision/", times=9, status=429, headers={"Retry-After": "300"}), "in 300 s, or set HF_TOKEN"),
        (Fault("/revision/", times=9, status=403), "refuses hf://org/name (403): there is no token"),
        (Fault("/revision/", times=9, status=418), "answered 418 for hf://org/name, as no hub does"),
        (Fault("/revision/", times=9, status=503), "is out of order (503)"),
        (Fault("/revision/", times=9, status=302, headers={"Location": METADATA}), "leads to 169.254.169.254"),
        (Fault("store GET", times=9, status=403), "refuses hf://org/name (403)"),
        (Fault("hub HEAD", times=9, status=302, headers={"Location": f"{METADATA}?Signature=1"}), "as no hub does"),
    ],
    ids=lambda given: str(getattr(given, "status", "")),
)  # fmt: skip
async def test_what_else_the_hub_may_say(server: Hub, opened: Open, fault: Fault, said: str) -> None:
    server.put("org/name", {"model.bin": b"content"})
    server.faults.append(fault)
    assert said in await refusal(opened("hf://org/name"), "model.bin")


async def test_what_the_hub_leads_to_is_judged(server: Hub, opened: Open) -> None:
    server.put("org/name", {"model.bin": b"content"})
    commit = server.repos["org/name"].refs["main"]
    led = {"X-Repo-Commit": commit, "X-Linked-Etag": '"0"', "Location": f"{METADATA}?Signature=1"}
    server.faults += [
        Fault("hub HEAD", status=302, headers=led),
        Fault("hub GET .*/resolve/", status=302, headers=led),
    ]
    storage = opened("hf://org/name")
    said = await refusal(storage, "model.bin")
    assert (
        "can't be fetched: what the hub leads to, 'http://169.254.169.254/latest/meta-data' leads to" in said
    )
    with pytest.raises(StorageError, match=r"leads to 169\.254\.169\.254, which is link-local"):
        await content(storage, "model.bin")

    strict = HubStorage("hf://org/name", policy=UrlPolicy())  # the hub may be anywhere, but not its store
    assert [each.key for each in await listed(strict)] == ["model.bin"]
    assert "which is of this machine itself" in await refusal(strict, "model.bin")
    assert not server.count("store GET")


async def test_another_host_is_resolved_once_and_connected_to_by_its_address(
    server: Hub, opened: Open
) -> None:
    port = server.store_url.rpartition(":")[2]
    server.put("org/name", {"model.bin": b"content"})
    server.store_url = f"http://rebinding.example:{port}"  # a name that nobody else could resolve
    looked_up = []

    def lookup(host: str) -> list[str]:
        looked_up.append(host)
        return ["127.0.0.1"] if len(looked_up) == 1 else ["169.254.169.254"]

    storage = HubStorage("hf://org/name", policy=UrlPolicy(("127.0.0.1",), lookup=lookup))
    assert await content(storage, "model.bin") == b"content"
    assert looked_up == ["rebinding.example"]
    with pytest.raises(StorageError, match=r"leads to 169\.254\.169\.254"):
        await content(storage, "model.bin")

    server.store_url = f"http://localhost:{port}"  # in the process that downloads
    await bring(opened("hf://org/name"), ["model.bin"])
    hosts = [each.headers["host"] for each in server.asked if each.server == "store"]
    assert hosts == [f"rebinding.example:{port}", f"localhost:{port}"]


async def test_tls_is_verified_by_name_wherever_it_leads(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    policy = UrlPolicy(("localhost", "127.0.0.1"))
    with hub(tls=authority.context("DNS:localhost")) as safe:
        monkeypatch.setenv("HF_ENDPOINT", safe.url)
        safe.put("org/name", {"config.json": b"{}", "model.bin": b"content"})
        storage = HubStorage("hf://org/name", policy=policy)
        assert await content(storage, "model.bin") == b"content"
        safe.store_url = server.store_url  # without TLS
        for call in (content(storage, "model.bin"), bring(storage, ["model.bin"])):
            with pytest.raises(StorageError, match="leads from https to http"):
                await call
        safe.store_url = safe.url.replace("localhost", "127.0.0.1")  # as somebody else
        said = await refusal(HubStorage("hf://org/name", policy=policy), "model.bin")
        assert "the certificate of 127.0.0.1 can't be trusted" in said
        safe.store_url = safe.url.replace(safe.url.rpartition(":")[2], str(safe.ports["store"]))
        await bring(storage, ["config.json", "model.bin"])
        assert {each.headers["host"].partition(":")[0] for each in safe.asked} == {"localhost"}
    with hub(tls=authority.context("DNS:else.example")) as other:
        monkeypatch.setenv("HF_ENDPOINT", other.url)
        said = await refusal(HubStorage("hf://org/name", policy=policy))
    assert "the certificate of localhost" in said
    assert not other.asked


async def test_nobody_there(server: Hub, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        said = await refusal(opened("hf://org/name@v1"))
    assert "can't be reached" in said
    assert "Run `hf download org/name --revision v1` where the hub can be reached" in said


@pytest.mark.parametrize("endpoint", ["ftp://hub", "hub.example", "file:///hub"])
async def test_an_endpoint_that_is_none(
    server: Hub, opened: Open, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    assert "must be the http(s) URL of a hub" in await refusal(opened("hf://org/name"))
