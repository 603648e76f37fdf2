"""What plugins declare: frozen descriptions that are read without importing any engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.plan import PluginFault
from llmengine_core.types.sampling import StructuredKind

__all__ = [
    "CONTRACT_VERSION",
    "BackendInfo",
    "Declarations",
    "Declared",
    "EnvironmentSpec",
    "GuidedDecoderInfo",
    "Info",
    "ObserverInfo",
    "RuntimeInfo",
    "StorageInfo",
    "StoreInfo",
    "TransformInfo",
]

CONTRACT_VERSION = 1
"""The contract that this core speaks. A plugin module states the one it is written for: ``CONTRACT = 1``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    """What every declaration has."""

    name: str
    """Lower case letters, digits, "_"; what users write in a spec. One of a kind among all plugins."""
    factory: str
    """"package.module:Class", imported when a plan is carried out; importing it imports no engine."""
    priority: int = 0
    """Among those that fit, the higher is chosen; then the name decides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentSpec:
    """The Python environment that an engine needs."""

    distribution: str
    """Whose version counts as the engine's: "xllamacpp"."""
    module: str
    """What must be importable: "xllamacpp". It is looked for, never imported."""
    requirements: tuple[str, ...] = ()
    """What to install to get it (PEP 508)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendInfo(Info):
    """An inference engine. ``factory()`` takes no arguments and gives a ``Backend``."""

    capabilities: Capabilities
    formats: frozenset[str]
    """Checkpoint formats that it loads as they are."""
    architectures: frozenset[str] | None = None
    """Model architectures that it loads; None where only trying tells."""
    quantizations: frozenset[str] = frozenset()
    """Methods that it applies by itself when it loads. What transforms add is not listed here."""
    accelerators: frozenset[str] = frozenset({"cpu"})
    """"cpu", "cuda"."""
    max_shards: int = 1
    """Most devices that one replica can be split over."""
    environment: EnvironmentSpec | None = None
    """None for an engine that runs elsewhere and is only spoken to."""
    probe: str | None = None
    """"package.module:function"; no arguments, gives this host's problems as a tuple, no engine import."""
    memory_factor: float = 1.2
    """Memory that it takes to serve weights of one byte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformInfo(Info):
    """Offline work on checkpoints. ``factory()`` takes no arguments and gives a ``Transform``."""

    source_format: str
    target_format: str
    methods: frozenset[str] = frozenset()
    """Quantizations that it can produce; empty for a mere conversion."""
    sources: frozenset[str] | None = None
    """Quantizations of a checkpoint that it starts from, besides full precision; None for any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuidedDecoderInfo(Info):
    """A checker of constraints. ``factory()`` takes no arguments and gives a ``GuidedDecoder``."""

    kinds: frozenset[StructuredKind]
    dialects: frozenset[str]
    """Languages of engines that it translates into."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageInfo(Info):
    """Objects by URL. ``factory(url)`` gives a ``Storage`` whose keys are relative to that URL."""

    schemes: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreInfo(Info):
    """Metadata by URL. ``factory(url)`` gives a ``Store``."""

    schemes: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeInfo(Info):
    """Where replicas run. ``factory(home)`` takes the state folder as a ``Path`` and gives a ``Runtime``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserverInfo(Info):
    """Somebody who wants to know. ``factory()`` takes no arguments and gives an ``Observer``."""


T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Declared(Generic[T_co]):
    """A declaration, and the plugin that it came from."""

    info: T_co
    plugin: str
    """The entry point's name."""
    distribution: str = ""
    """"llmengine-llamacpp 0.1.0", or "" where it isn't known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declarations:
    """All that resolution knows of the plugins. Their order means nothing."""

    backends: tuple[Declared[BackendInfo], ...] = ()
    transforms: tuple[Declared[TransformInfo], ...] = ()
    guided_decoders: tuple[Declared[GuidedDecoderInfo], ...] = ()
    faults: tuple[PluginFault, ...] = ()
    """Plugins that failed."""
    left_out: tuple[PluginFault, ...] = ()
    """Plugins that are installed, but that the settings leave out."""
