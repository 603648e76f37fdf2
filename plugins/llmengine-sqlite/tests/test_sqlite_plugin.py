"""The plugin declares its store, and importing that is free."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points

from llmengine_core.interfaces.store import Store
from llmengine_core.plugins import import_object
from llmengine_core.types.declarations import CONTRACT_VERSION
from llmengine_sqlite import plugin


def test_it_is_found_and_speaks_the_contract() -> None:
    [entry] = entry_points(group="llmengine", name="sqlite")
    assert entry.load() is plugin
    assert plugin.CONTRACT == CONTRACT_VERSION
    [info] = plugin.register_stores()
    assert info.name == "sqlite"
    assert info.schemes == {"sqlite"}
    assert isinstance(import_object(info.factory)("sqlite:////nowhere/state.db"), Store)


def test_declaring_imports_no_store() -> None:
    check = (
        "import sys, threading, llmengine_sqlite.plugin as p; p.register_stores();"
        "assert not {'asyncio', 'sqlite3', 'llmengine_sqlite.store'} & set(sys.modules);"
        "assert threading.active_count() == 1"
    )
    subprocess.run([sys.executable, "-c", check], check=True)
