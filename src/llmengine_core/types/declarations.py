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
    "EnvironmentBuild",
    "EnvironmentSpec",
    "GuidedDecoderInfo",
    "Info",
    "ObserverInfo",
    "QuantizationMethod",
    "QuantizerInfo",
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
class EnvironmentBuild:
    """What to install to get one version of something, on some devices; known to work together."""

    version: str
    """Of the distribution that the environment is for; "5.23.0"."""
    requirements: tuple[str, ...]
    """What is asked for (PEP 508)."""
    accelerators: frozenset[str] = frozenset({"cpu", "cuda"})
    """The devices that it is for: "cpu", "cuda"."""
    pins: str | None = None
    """"package:path/in/it.txt": a file of the plugin's with a line "name==version" for each distribution that
    the installer may choose; None where nothing is pinned."""
    overrides: tuple[str, ...] = ()
    """Requirements that stand in for every other one of the same name, whoever asks for it. One whose marker is
    never true leaves the distribution out: "torchvision; sys_platform == 'never'"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentSpec:
    """The Python environment that something needs: this one, where it is there, or one of its own."""

    distribution: str
    """Whose version counts: "xllamacpp"."""
    module: str
    """What must be importable: "xllamacpp". It is looked for, never imported."""
    requirements: tuple[str, ...] = ()
    """What to install to get it into the current environment (PEP 508)."""
    builds: tuple[EnvironmentBuild, ...] = ()
    """Environments of its own that it can have, the preferred one first; none for what lives in the core's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendInfo(Info):
    """An inference engine. ``factory()`` takes no arguments and gives a ``Backend``."""

    capabilities: Capabilities
    formats: frozenset[str]
    """Checkpoint formats that it loads as they are."""
    architectures: frozenset[str] | None = None
    """Model architectures that it loads; None where only trying tells."""
    quantizations: frozenset[str] = frozenset()
    """Methods that it applies by itself when it loads. What transforms and quantizers add is not listed here."""
    loads_quantized: frozenset[str] | None = None
    """Ways to have been quantized before that it loads by itself, as checkpoints name them; None for any."""
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
    takes_masker: bool = False
    """Whether constraints are enforced by a guided decoder's masker in its process: without one in the
    environment it has none of ``capabilities.structured``."""
    remote_code: bool = False
    """Whether it can run code that comes with a checkpoint, where the settings allow that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationMethod:
    """One way to quantize, under the name that users write in ``quantize``."""

    name: str
    bits: float
    """That a weight takes, its share of the scales included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizerInfo(Info):
    """Quantizes weights while a backend loads them. ``factory()`` takes no arguments and gives a ``Quantizer``."""

    methods: tuple[QuantizationMethod, ...]
    backends: frozenset[str]
    """Names of the backends that take its load options."""
    stored: frozenset[str] = frozenset()
    """Ways to have been quantized before, as checkpoints name them, that it lets those backends load."""
    accelerators: frozenset[str] = frozenset({"cpu"})
    environment: EnvironmentSpec | None = None
    """What must be in the backend's environment besides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformInfo(Info):
    """Offline work on checkpoints. ``factory()`` takes no arguments and gives a ``Transform``."""

    source_format: str
    target_format: str
    methods: frozenset[str] = frozenset()
    """Quantizations that it can produce; empty for a mere conversion."""
    sources: frozenset[str] | None = None
    """Quantizations of a checkpoint that it starts from, besides full precision; None for any."""
    architectures: frozenset[str] | None = None
    """Model architectures that it can work on; None where only trying tells."""
    environment: EnvironmentSpec | None = None
    """Where it runs; None for the current one."""
    revision: int = 1
    """Raised when it comes to write other bytes of the same checkpoint: what an earlier one made isn't taken then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuidedDecoderInfo(Info):
    """A checker of constraints. ``factory()`` takes no arguments and gives a ``GuidedDecoder``."""

    kinds: frozenset[StructuredKind]
    dialects: frozenset[str]
    """Languages of engines that it translates into."""
    masker: str | None = None
    """"package.module:Class" of a ``llmengine_core.worker.contract.Masker`` that runs beside a backend's logits
    and reads those dialects; imported by the environment's interpreter only."""
    environment: EnvironmentSpec | None = None
    """What the masker needs in the backend's environment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageInfo(Info):
    """Objects by URL. ``factory(url)`` gives a ``Storage`` whose keys are relative to that URL."""

    schemes: frozenset[str]
    writable: bool = True
    """Whether objects can be written; else ``put``, ``delete`` and ``copy`` raise ``StorageError`` that says so."""
    takes_policy: bool = False
    """Whether the factory is called as ``factory(url, policy=...)`` with the ``UrlPolicy`` of the settings: for
    storages that go where URLs of users, or redirects of servers, lead."""


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
    quantizers: tuple[Declared[QuantizerInfo], ...] = ()
    guided_decoders: tuple[Declared[GuidedDecoderInfo], ...] = ()
    faults: tuple[PluginFault, ...] = ()
    """Plugins that failed."""
    left_out: tuple[PluginFault, ...] = ()
    """Plugins that are installed, but that the settings leave out."""
