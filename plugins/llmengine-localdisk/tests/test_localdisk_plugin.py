"""The plugin declares its storage, and importing that is free."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points

from llmengine_core.interfaces.storage import Storage
from llmengine_core.plugins import import_object
from llmengine_core.types.declarations import CONTRACT_VERSION
from llmengine_localdisk import plugin


def test_it_is_found_and_speaks_the_contract() -> None:
    [entry] = entry_points(group="llmengine", name="localdisk")
    assert entry.load() is plugin
    assert plugin.CONTRACT == CONTRACT_VERSION
    [info] = plugin.register_storages()
    assert info.name == "localdisk"
    assert info.schemes == {"file"}
    assert isinstance(import_object(info.factory)("file:///"), Storage)


def test_declaring_imports_no_storage() -> None:
    check = (
        "import sys, threading, llmengine_localdisk.plugin as p; p.register_storages();"
        "assert not {'asyncio', 'anyio', 'llmengine_localdisk.storage'} & set(sys.modules);"
        "assert threading.active_count() == 1"
    )
    subprocess.run([sys.executable, "-c", check], check=True)
