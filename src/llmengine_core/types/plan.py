"""Facts that were seen, and the plan that was made of them: what was decided, and every reason why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = [
    "BackendFacts",
    "Candidate",
    "CheckpointFacts",
    "CheckpointFile",
    "EnvironmentFacts",
    "Facts",
    "Hardware",
    "HostFacts",
    "Plan",
    "PluginFault",
    "Problem",
    "RuleResult",
    "TransformStep",
    "Verdict",
]


class Verdict(StrEnum):
    """What became of a rule."""

    PASSED = "passed"
    FAILED = "failed"
    UNKNOWN = "unknown"
    """Could not be seen ahead; checked again when the plan is carried out."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong on this machine, and what mends it."""

    message: str
    mend: str | None = None


@dataclass(frozen=True, slots=True)
class PluginFault:
    """A plugin that could not be used."""

    plugin: str
    """The entry point's name."""
    distribution: str
    """"llmengine-trt 0.3", or "" where it isn't known."""
    message: str
    mend: str | None = None
    registers: tuple[str, ...] = ()
    """Names that it would have registered, where they could be told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFile:
    """One file that an engine needs of a checkpoint."""

    name: str
    """Relative to the checkpoint's folder, "/" between folders; the file's own name where it is a single one."""
    size: int
    """Bytes."""
    etag: str | None = None
    """As the storage gave it when it was looked at."""
    sha256: str | None = None
    """What it must hash to, where the storage or a card vouches for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFacts:
    """What was seen of the weights that a spec names."""

    url: str
    """Where they are, as the storage or the card names it."""
    format: str | None = None
    """"gguf", "safetensors", "pytorch", "adapter"; None where nothing known was found."""
    path: str | None = None
    """On this machine; None while they must be fetched."""
    size: int | None = None
    """Bytes of the weights."""
    sha256: str | None = None
    """What they must hash to, where somebody vouched for it."""
    quantization: str | None = None
    architecture: str | None = None
    parameters: int | None = None
    context_length: int | None = None
    heads: int | None = None
    cache_bytes: int | None = None
    """What a token of context takes in a cache of 16 bits."""
    remote_code: bool = False
    """Whether its configuration names code of its own that a loader would have to run."""
    base: str | None = None
    """For an adapter, the base model that it says it was trained on, in whatever words."""
    files: tuple[CheckpointFile, ...] = ()
    """What must be fetched where they lie elsewhere: the weights that are served and what belongs to them, nothing
    else. Empty for what is on this machine."""
    archive: str | None = None
    """"tar", "tar.gz" or "tar.zst" where they lie packed in one file; the other facts are of what is inside."""
    problem: Problem | None = None
    """Why they can't be used: missing, unreadable, not what they seem."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentFacts:
    """A Python environment on this machine that something can run in."""

    python: str
    """Its interpreter, absolute."""
    version: str
    """Of the distribution that it was looked at for."""
    name: str = ""
    """Its folder among the engine environments; "" for the one that this process runs in."""
    accelerators: frozenset[str] | None = None
    """The devices that it was built for; None where nobody said."""
    holds: Mapping[str, str] = field(default_factory=dict)
    """Version by distribution of what engines, quantizers, maskers and transforms ask for; more may be there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendFacts:
    """What was seen of one backend on this machine."""

    environments: tuple[EnvironmentFacts, ...] = ()
    """Those that its engine is in, the current one first, then the newest version first."""
    problems: tuple[Problem, ...] = ()
    """What its probe found wrong on this host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What this machine has."""

    cpus: int
    memory: int
    """Bytes in all."""
    gpus: int = 0
    gpu_memory: int = 0
    """Bytes of the smallest GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """M06: what each worker should get, as given or inferred from the model's size."""

    cpus: int
    memory: str | None
    """A Kubernetes quantity, "24Gi"; None where the size of the weights isn't known."""
    storage: str | None
    gpus: int
    gpu_type: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that resolution may know; seen by ``inspection``, never by the resolver itself."""

    checkpoint: CheckpointFacts
    """Of the base model, where there is an adapter."""
    host: HostFacts
    adapter: CheckpointFacts | None = None
    """What is to be loaded on the base model, where the spec's checkpoint_path is an adapter."""
    backends: Mapping[str, BackendFacts] = field(default_factory=dict)
    """By backend name."""
    transforms: Mapping[str, tuple[EnvironmentFacts, ...]] = field(default_factory=dict)
    """By name, the environments that each transform with one of its own can run in."""
    pins: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Version by distribution, by ``EnvironmentBuild.pins``, of those that could be read."""
    allow_remote_code: bool = False
    """Whether the settings allow that code of a checkpoint runs."""
    structured_checker: bool = False
    """Whether a guided decoder is installed."""


@dataclass(frozen=True, slots=True)
class RuleResult:
    """One rule applied to one candidate."""

    rule: str
    verdict: Verdict
    fact: str
    """What was seen, for people."""
    mend: str | None = None
    """The command or change that would make it pass; None where it passed or nothing would."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformStep:
    """One piece of offline work on a checkpoint."""

    transform: str
    """The registered name."""
    source_format: str
    target_format: str
    method: str | None = None
    revision: int = 1
    """``TransformInfo.revision`` when this was planned; counts where its plugin is gone."""
    python: str = ""
    """The interpreter that it runs in, absolute; "" for the one that runs us."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One backend, or one plugin that failed, with every rule it was held against."""

    name: str
    plugin: str
    version: str | None = None
    """Of the engine that would run."""
    priority: int = 0
    rules: tuple[RuleResult, ...] = ()
    transforms: tuple[TransformStep, ...] = ()
    """What must be done to the checkpoint first."""
    environment: EnvironmentFacts | None = None
    """Where its engine would run; None where it isn't on this machine, or needs none."""
    quantizer: str | None = None
    """The registered name of what quantizes as it loads; None where nothing does, or the backend itself."""
    masker: str | None = None
    """The registered name of the guided decoder whose masker runs beside it."""

    @property
    def fits(self) -> bool:
        """Whether no rule failed."""
        failed = Verdict.FAILED  # looked up once: enumerations are slow at it
        return failed not in [rule.verdict for rule in self.rules]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What was decided for a spec, and why. Serialisable; the same object is explained, stored and raised."""

    model: str
    framework: str
    """As asked for: a name, or "auto"."""
    checkpoint: CheckpointFacts
    """Of the base model, where there is an adapter."""
    candidates: tuple[Candidate, ...]
    """Every one, the best first."""
    chosen: str | None
    """The name of the candidate that is to be used; None where nothing fits."""
    adapter: CheckpointFacts | None = None
    """What is loaded on the base model beside others' adapters; None where the base is served as it is."""
    asked: Mapping[str, str] = field(default_factory=dict)
    """What else the spec asked for, for people: "quantize" → "awq"."""
    why: str = ""
    """Why the chosen one and no other: "priority 20; transformers has 0"."""
    notes: tuple[str, ...] = ()
    """What the caller should know although it fits."""
    hardware: Hardware | None = None
    """What each worker of the chosen candidate should get."""

    @property
    def choice(self) -> Candidate | None:
        """The chosen candidate."""
        return next((c for c in self.candidates if c.name == self.chosen), None)
