"""llmengine's contract kit, adopted: each class inherits the laws of what the plugin adds."""

from __future__ import annotations

from llmengine_core.testing import BackendContract, ObserverContract, PluginContract, StorageContract


class TestPlugin(PluginContract):
    plugin = "llmengine_sample"


class TestBackend(BackendContract):
    backend = "sample"
    model = "sample"


class TestStorage(StorageContract):
    storage = "sample"


class TestObserver(ObserverContract):
    observer = "sample"
