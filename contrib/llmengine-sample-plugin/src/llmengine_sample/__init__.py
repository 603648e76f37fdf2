"""What the plugin declares. It is imported whenever plugins are loaded, so it imports nothing heavy."""

from __future__ import annotations

from llmengine_core.hookspecs import hookimpl
from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.declarations import BackendInfo, ObserverInfo, StorageInfo
from llmengine_core.types.models import ModelCard, WeightsSource

CONTRACT = 1
"""The version of llmengine's contract that this is written for."""
CAPABILITIES = Capabilities()
"""What the backend can do beyond what every backend must: nothing yet. Declare what works, and the kit proves it."""


@hookimpl
def register_backends() -> list[BackendInfo]:
    """The backend ``sample``."""
    backend = BackendInfo(
        name="sample",
        factory="llmengine_sample.backend:SampleBackend",
        priority=1000,  # before engines that would try any file of that format
        capabilities=CAPABILITIES,
        formats=frozenset({"gguf"}),
        architectures=frozenset({"echo"}),
    )
    return [backend]


@hookimpl
def register_models() -> list[ModelCard]:
    """The model ``sample``. Its weights are a header alone, which comes with llmengine."""
    weights = WeightsSource(url="package://llmengine_core/testing/echo.gguf", format="gguf")
    model = ModelCard(
        name="sample",
        sources=(weights,),
        parameters=1,
        context_length=4096,
        license="Apache-2.0",
    )
    return [model]


@hookimpl
def register_storages() -> list[StorageInfo]:
    """The storage of ``sample://`` URLs."""
    storage = StorageInfo(
        name="sample",
        factory="llmengine_sample.storage:SampleStorage",
        schemes=frozenset({"sample"}),
    )
    return [storage]


@hookimpl
def register_observers() -> list[ObserverInfo]:
    """The observer ``sample``."""
    observer = ObserverInfo(
        name="sample",
        factory="llmengine_sample.observer:SampleObserver",
    )
    return [observer]
