"""The hub's own library, at work in a process of its own: see ``downloading``, which is that process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from llmengine_core.processes import spawn
from llmengine_core.types.launch import Exit
from llmengine_core.urls import UrlPolicy
from llmengine_hub.environment import HubEnvironment
from llmengine_hub.refusals import failure
from llmengine_hub.repositories import File, Repository

__all__ = ["Download", "download", "renew"]


@dataclass(frozen=True, slots=True)
class Download:
    """What is to come into the library's cache."""

    repository: Repository
    commit: str
    files: Sequence[File]
    offline: bool
    """Only check what is there."""


async def download(
    hub: HubEnvironment, policy: UrlPolicy, order: Download, on_done: Callable[[int], None]
) -> None:
    """Have files fetched and checked; ``on_done`` hears how many bytes of them are there.

    The process ends with this call, however that ends. Raises ``StorageError``.
    """
    document = {
        "name": order.repository.name,
        "revision": order.repository.revision,
        "commit": order.commit,
        "files": [asdict(file) for file in order.files],
    }
    said, end = await _run(hub, policy, document, on_done, offline=order.offline)
    if not said.get("ok"):
        raise failure(said.get("error"), end, order.repository, hub)


async def renew(hub: HubEnvironment, policy: UrlPolicy) -> None:
    """Have the token renewed in its file, where it is one of those that can be, from a login in a browser."""
    if not hub.token_named:
        await _run(hub, policy, {"renew": True}, lambda _: None, offline=False)


async def _run(
    hub: HubEnvironment,
    policy: UrlPolicy,
    document: Mapping[str, Any],
    on_done: Callable[[int], None],
    *,
    offline: bool,
) -> tuple[dict[str, Any], Exit]:
    """What the process said last, and how it ended."""
    said: dict[str, Any] = {}

    def on_message(message: dict[str, Any]) -> None:
        if "done" in message:
            on_done(int(message["done"]))
        else:
            said.update(message)

    env = {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HUB_CACHE": str(hub.cache),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "0" if hub.xet else "1",
        "HF_HUB_OFFLINE": "1" if offline else "0",
    }
    child = await spawn(
        (sys.executable, "-P", "-m", "llmengine_hub.downloading"),
        env=env,
        document={**document, "private_hosts": list(policy.private_hosts)},
        on_message=on_message,
    )
    try:
        return said, await child.wait()
    finally:
        await child.aclose()
