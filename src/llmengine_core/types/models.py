"""Models: what was asked for, what is known by name, what is in the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from llmengine_core.types.plan import Plan

__all__ = ["ModelCard", "ModelRecord", "ModelSpec", "ModelStatus", "WeightsSource"]


class ModelStatus(StrEnum):
    """M11: the states of a model."""

    READY = "READY"
    """Its weights are verified and it can be served."""
    UPDATE_PENDING = "UPDATE_PENDING"
    UPDATE_IN_PROGRESS = "UPDATE_IN_PROGRESS"
    UPDATE_FAILED = "UPDATE_FAILED"
    DELETE_IN_PROGRESS = "DELETE_IN_PROGRESS"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """The validated arguments of ``Model.create``, under their own names. Quantities are as given."""

    name: str
    model: str
    inference_framework_image_tag: str = "latest"
    source: str = "hugging_face"
    inference_framework: str = "vllm"
    num_shards: int = 1
    quantize: str | None = None
    checkpoint_path: str | None = None
    cpus: int | None = None
    memory: str | None = None
    storage: str | None = None
    gpus: int | None = None
    min_workers: int = 0
    max_workers: int = 1
    per_worker: int = 2
    endpoint_type: str = "streaming"
    gpu_type: str | None = None
    high_priority: bool = False
    post_inference_hooks: tuple[str, ...] = ()
    default_callback_url: str | None = None
    public_inference: bool = True
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsSource:
    """One place that a base model's weights can come from."""

    url: str
    """A storage URL, or ``package://import_name/path`` for a file inside an installed package."""
    format: str
    """"gguf", "safetensors", "pytorch"."""
    sha256: str | None = None
    """Hex digest of a single file; None where the source is a folder or can't be known ahead."""
    size: int | None = None
    """Bytes."""
    quantization: str | None = None
    """As stored, "q4_1" for example; None is full precision."""
    mend: str | None = None
    """The command that brings the weights here, where they aren't."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """A base model known by name."""

    name: str
    sources: tuple[WeightsSource, ...]
    """In order of preference."""
    parameters: int
    """How many weights it has."""
    context_length: int
    """Most tokens that it was trained for."""
    license: str
    """SPDX identifier, or a URL."""
    description: str = ""
    homepage: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecord:
    """A model in the store, or a base model that stands ready by its card."""

    id: str
    spec: ModelSpec
    owner: str
    status: ModelStatus
    plan: Plan
    """The resolution that serves it now."""
    created_at: float
    """Seconds since the epoch, UTC."""
    reason: str | None = None
    """Why the last change failed; only with UPDATE_FAILED."""
    builtin: bool = False
    version: int = 0
    """Of the row, for compare-and-set; 0 for a base model."""
    pending: Mapping[str, Any] | None = None
    """A change that is being carried out: its spec and plan, as JSON. The old plan serves until then."""

    @property
    def is_pending(self) -> bool:
        """Whether a creation or a change of it is still to be carried out."""
        return self.status in (ModelStatus.UPDATE_PENDING, ModelStatus.UPDATE_IN_PROGRESS)

    def visible_to(self, caller: str) -> bool:
        """M09: whether a caller may see and use it."""
        return self.builtin or self.spec.public_inference or self.owner == caller
