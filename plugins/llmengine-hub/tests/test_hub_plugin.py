"""The plugin declares its storage, and importing that is free; so is the storage: the hub's library is not imported."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points

from llmengine_core.plugins import import_object
from llmengine_core.types.declarations import CONTRACT_VERSION
from llmengine_hub import plugin


def test_it_is_found_and_speaks_the_contract() -> None:
    [entry] = entry_points(group="llmengine", name="hub")
    assert entry.load() is plugin
    assert plugin.CONTRACT == CONTRACT_VERSION
    [info] = plugin.register_storages()
    assert (info.name, info.schemes) == ("hub", frozenset({"hf"}))
    assert info.takes_policy
    assert not info.writable
    assert import_object(info.factory)("hf://org/name")


def test_neither_declaring_nor_opening_imports_the_library() -> None:
    check = (
        "import sys, threading, llmengine_hub.plugin as p; p.register_storages();"
        "assert not {'asyncio', 'anyio', 'llmengine_hub.storage'} & set(sys.modules);"
        "from llmengine_hub.storage import HubStorage; HubStorage('hf://org/name');"
        "assert not {'huggingface_hub', 'httpx2', 'tqdm', 'filelock', 'hf_xet'} & set(sys.modules);"
        "assert threading.active_count() == 1"
    )
    subprocess.run([sys.executable, "-c", check], check=True)
