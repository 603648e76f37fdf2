"""The fixed words of the API."""

from __future__ import annotations

from enum import StrEnum

__all__ = [
    "BatchCompletionsJobStatus",
    "FineTuneStatus",
    "GpuType",
    "LLMInferenceFramework",
    "LLMSource",
    "ModelEndpointStatus",
    "ModelEndpointType",
    "PostInferenceHooks",
    "Quantization",
]


class LLMSource(StrEnum):
    """Where a model's weights come from."""

    HUGGING_FACE = "hugging_face"


class LLMInferenceFramework(StrEnum):
    """The original frameworks. ``Model.create`` also takes "auto" and every name that a plugin registers."""

    DEEPSPEED = "deepspeed"
    TEXT_GENERATION_INFERENCE = "text_generation_inference"
    VLLM = "vllm"
    LIGHTLLM = "lightllm"
    TENSORRT_LLM = "tensorrt_llm"


class Quantization(StrEnum):
    """The original methods. ``Model.create`` also takes every method that the framework or a plugin offers."""

    BITSANDBYTES = "bitsandbytes"
    AWQ = "awq"


class GpuType(StrEnum):
    """The kinds of GPU that a worker can ask for."""

    NVIDIA_TESLA_T4 = "nvidia-tesla-t4"
    NVIDIA_AMPERE_A10 = "nvidia-ampere-a10"
    NVIDIA_AMPERE_A100 = "nvidia-ampere-a100"
    NVIDIA_AMPERE_A100E = "nvidia-ampere-a100e"
    NVIDIA_HOPPER_H100 = "nvidia-hopper-h100"
    NVIDIA_HOPPER_H100_1G_20GB = "nvidia-hopper-h100-1g20gb"
    NVIDIA_HOPPER_H100_3G_40GB = "nvidia-hopper-h100-3g40gb"


class ModelEndpointType(StrEnum):
    """How a model answers."""

    STREAMING = "streaming"


class ModelEndpointStatus(StrEnum):
    """How a model stands (M11)."""

    READY = "READY"
    UPDATE_PENDING = "UPDATE_PENDING"
    UPDATE_IN_PROGRESS = "UPDATE_IN_PROGRESS"
    UPDATE_FAILED = "UPDATE_FAILED"
    DELETE_IN_PROGRESS = "DELETE_IN_PROGRESS"


class PostInferenceHooks(StrEnum):
    """What can happen after each completion of a model."""

    CALLBACK = "callback"


class FineTuneStatus(StrEnum):
    """How a fine-tune stands (F07)."""

    PENDING = "PENDING"
    STARTED = "STARTED"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    CANCELLED = "CANCELLED"
    UNDEFINED = "UNDEFINED"


class BatchCompletionsJobStatus(StrEnum):
    """How a batch of completions stands."""

    Queued = "queued"
    Running = "running"
    Completed = "completed"
    Failed = "failed"
    Cancelled = "cancelled"
    Unknown = "unknown"
