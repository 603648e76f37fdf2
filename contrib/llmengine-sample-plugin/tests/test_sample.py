"""llmengine's contract kit, adopted: each class inherits the laws of what the plugin adds."""

from __future__ import annotations

from pathlib import Path

from llmengine_core.testing import (
    BackendContract,
    BackendLifecycleContract,
    ObserverContract,
    PluginContract,
    StorageContract,
)


class TestPlugin(PluginContract):
    plugin = "llmengine_sample"


class TestBackend(BackendContract):
    backend = "sample"
    model = "sample"


class TestBackendLifecycle(BackendLifecycleContract):
    backend = "sample"
    model = "sample"


class TestStorage(StorageContract):
    storage = "sample"

    def fresh_url(self, folder: Path) -> str:
        return (folder / "objects.db").as_uri().replace("file:", "sample:", 1)


class TestObserver(ObserverContract):
    observer = "sample"
