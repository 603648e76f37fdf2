"""What may not be seen: keys by other processes, our secrets by the replicas."""

from __future__ import annotations

import asyncio
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from llmengine_core.testing.contracts.runtimes.ground import RuntimeGround
from llmengine_core.testing.laws import NotApplicable, law

__all__ = ["SecretLaws"]

SECRETS = (
    "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "LLMENGINE_DATABASE_URL", "OPENAI_API_KEY", "PGPASSWORD", "SCALE_API_KEY",
    "SECRET_OF_OUR_OWN", "XDG_ACCESS_TOKEN",
)  # fmt: skip
"""Variables that hold what engines have no business with."""
LONGEST = 107
"""Bytes that the address of a unix socket may have, its closing zero aside."""
SHORTEST_KEY = 16


class SecretLaws(RuntimeGround):
    """Laws on what is kept from whom."""

    @law()
    async def test_secrets_of_this_process_stay_here(self) -> None:
        """A child sees the spec's variables, and no secret of this process's environment."""
        secret = f"s3cr3t-{secrets.token_hex(8)}"
        with _environment(dict.fromkeys(SECRETS, secret)):
            async with self.replica(("ready", {}), env={"FLAVOUR": "plain"}) as (replica, _):
                seen = replica.endpoint.facts["seen"]["env"]
        shown = sorted(name for name, value in seen.items() if secret in value)
        assert not shown, f"the child sees secrets of this process in its environment: {', '.join(shown)}"
        assert seen.get("FLAVOUR") == "plain", (
            f"the spec's env has FLAVOUR=plain; the child sees {seen.get('FLAVOUR')!r}"
        )

    @law()
    async def test_keys_are_not_in_arguments_or_environments(self) -> None:
        """A replica's key is in no process's arguments or environment, and can't be guessed or printed by accident."""
        async with self.replica() as (replica, _):
            endpoint = replica.endpoint
            assert not endpoint.facts["seen"]["key_shown"], (
                "the key is in the child's arguments or environment, where every user of the machine may read it"
            )
            assert len(endpoint.key) >= SHORTEST_KEY, (
                f"the key has {len(endpoint.key)} characters; fewer than {SHORTEST_KEY} can be guessed"
            )
            found = await asyncio.to_thread(_whoever_shows, endpoint.key)
            assert not found, f"the key can be read in {', '.join(found)}"
            assert endpoint.key not in repr(endpoint), "the endpoint's repr shows the key"

    @law()
    async def test_sockets_are_private_and_short(self) -> None:
        """A unix socket lies in a folder that only this user enters, under a path that the system takes."""
        async with self.replica() as (replica, _):
            kind, _, address = replica.endpoint.address.partition(":")
            if kind != "unix":
                raise NotApplicable(f"replicas answer at {replica.endpoint.address}, no unix socket")
            path = Path(address)
            found = await asyncio.to_thread(os.lstat, path)
            folder = await asyncio.to_thread(os.lstat, path.parent)
        assert stat.S_ISSOCK(found.st_mode), f"{path} is no socket"
        assert len(os.fsencode(path)) <= LONGEST, f"{path} has more than {LONGEST} bytes"
        mode = stat.S_IMODE(folder.st_mode)
        assert not mode & 0o077, f"the mode of {path.parent} is {mode:o}: others may enter; 700 is right"


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """These variables in this process's environment."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _whoever_shows(text: str) -> list[str]:
    """Files of /proc with the arguments or environment of a process that hold a text; none where there is no /proc."""
    found: list[str] = []
    if not os.path.isdir("/proc/self"):
        return found
    for name in os.listdir("/proc"):
        for kind in ("cmdline", "environ") if name.isdigit() else ():
            with suppress(OSError):
                if text.encode() in Path("/proc", name, kind).read_bytes():
                    found.append(f"/proc/{name}/{kind}")
    return found
