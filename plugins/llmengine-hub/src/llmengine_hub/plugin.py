"""What this plugin registers with llmengine."""

from __future__ import annotations

from llmengine_core.hookspecs import hookimpl
from llmengine_core.types.declarations import StorageInfo
from llmengine_core.types.models import ModelCard
from llmengine_hub.zoo import cards

__all__ = ["CONTRACT", "register_models", "register_storages"]

CONTRACT = 1


@hookimpl
def register_storages() -> list[StorageInfo]:
    """Repositories of the hub, by ``hf://org/name[@revision]`` URLs."""
    return [
        StorageInfo(
            name="hub",
            schemes=frozenset({"hf"}),
            factory="llmengine_hub.storage:HubStorage",
            writable=False,
            takes_policy=True,
        )
    ]


@hookimpl
def register_models() -> list[ModelCard]:
    """The base models of the reference's world, and SmolLM2, which a laptop can serve."""
    return cards()
