"""The contract kit: property-based laws for every hook that a plugin can fill, and doubles for anybody's tests.

A plugin's whole test file::

    from llmengine_core.testing import BackendContract, PluginContract

    class TestPlugin(PluginContract):
        plugin = "llmengine_sample"

    class TestSample(BackendContract):
        backend = "sample"
        model = "echo"

The contracts need the extra ``llmengine-core[testing]``; the doubles ``echo``, ``toy``, ``scripted``, ``faulty``,
``memory_storage`` and ``memory_store`` need nothing. ``llmengine conformance NAME`` tries the same laws without
pytest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmengine_core.testing.contracts.backends.lifecycle import BackendLifecycleContract
    from llmengine_core.testing.contracts.engines.contract import EngineContract
    from llmengine_core.testing.contracts.guided.contract import GuidedDecoderContract
    from llmengine_core.testing.contracts.observer import ObserverContract
    from llmengine_core.testing.contracts.plugins.contract import PluginContract
    from llmengine_core.testing.contracts.quantizer import QuantizerContract
    from llmengine_core.testing.contracts.runtimes.contract import RuntimeContract
    from llmengine_core.testing.contracts.sessions.contract import BackendContract, SessionContract
    from llmengine_core.testing.contracts.storages.contract import StorageContract
    from llmengine_core.testing.contracts.stores.contract import StoreContract
    from llmengine_core.testing.contracts.transforms.contract import TransformContract
    from llmengine_core.testing.laws import Contract, Quirk, law
    from llmengine_core.testing.verdicts import Verdict, run_contract

__all__ = [
    "BackendContract",
    "BackendLifecycleContract",
    "Contract",
    "EngineContract",
    "GuidedDecoderContract",
    "ObserverContract",
    "PluginContract",
    "QuantizerContract",
    "Quirk",
    "RuntimeContract",
    "SessionContract",
    "StorageContract",
    "StoreContract",
    "TransformContract",
    "Verdict",
    "law",
    "run_contract",
]

_HOMES = {
    "BackendContract": "contracts.sessions.contract",
    "BackendLifecycleContract": "contracts.backends.lifecycle",
    "Contract": "laws",
    "EngineContract": "contracts.engines.contract",
    "GuidedDecoderContract": "contracts.guided.contract",
    "ObserverContract": "contracts.observer",
    "PluginContract": "contracts.plugins.contract",
    "QuantizerContract": "contracts.quantizer",
    "Quirk": "laws",
    "RuntimeContract": "contracts.runtimes.contract",
    "SessionContract": "contracts.sessions.contract",
    "StorageContract": "contracts.storages.contract",
    "StoreContract": "contracts.stores.contract",
    "TransformContract": "contracts.transforms.contract",
    "Verdict": "verdicts",
    "law": "laws",
    "run_contract": "verdicts",
}


def __getattr__(name: str) -> object:
    """Import what is asked for, then: the doubles must not cost what the laws need."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(__name__):
            raise
        raise ModuleNotFoundError(
            f"the contract kit needs {error.name}: python -m pip install 'llmengine-core[testing]'",
            name=error.name,
        ) from error
