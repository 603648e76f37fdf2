"""Requests and responses of models."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, TypeAlias

from pydantic import Field

from llmengine.data_types.enums import (
    LLMInferenceFramework,
    LLMSource,
    ModelEndpointStatus,
    ModelEndpointType,
    Quantization,
)
from llmengine.data_types.payload import Payload

__all__ = [
    "CreateLLMEndpointResponse",
    "DeleteLLMEndpointResponse",
    "GetLLMEndpointResponse",
    "GetModelEndpointResponse",
    "ListLLMEndpointsResponse",
    "ModelDownloadRequest",
    "ModelDownloadResponse",
    "ModelEndpointDeploymentState",
    "ModelEndpointResourceState",
    "UpdateLLMEndpointResponse",
    "VLLMEndpointAdditionalArgs",
    "VLLMModelConfig",
]

# A member of the enum where the word is one of the original's, else the word.
Framework: TypeAlias = Annotated[LLMInferenceFramework | str, Field(union_mode="left_to_right")]
Method: TypeAlias = Annotated[Quantization | str, Field(union_mode="left_to_right")]


class VLLMModelConfig(Payload):
    """What vLLM is told of a model; None leaves it to vLLM."""

    max_model_len: int | None = None
    max_num_seqs: int | None = None
    enforce_eager: bool | None = None
    trust_remote_code: bool | None = False
    pipeline_parallel_size: int | None = None
    tensor_parallel_size: int | None = None
    quantization: str | None = None
    disable_log_requests: bool | None = None
    chat_template: str | None = None
    tool_call_parser: str | None = None
    enable_auto_tool_choice: bool | None = None
    load_format: str | None = None
    config_format: str | None = None
    tokenizer_mode: str | None = None
    limit_mm_per_prompt: str | None = None
    max_num_batched_tokens: int | None = None
    tokenizer: str | None = None
    dtype: str | None = None
    seed: int | None = None
    revision: str | None = None
    code_revision: str | None = None
    rope_scaling: dict[str, Any] | None = None
    tokenizer_revision: str | None = None
    quantization_param_path: str | None = None
    max_seq_len_to_capture: int | None = None
    disable_sliding_window: bool | None = None
    skip_tokenizer_init: bool | None = None
    served_model_name: str | None = None
    override_neuron_config: dict[str, Any] | None = None
    mm_processor_kwargs: dict[str, Any] | None = None
    block_size: int | None = None
    gpu_memory_utilization: float | None = None
    swap_space: float | None = None
    cache_dtype: str | None = None
    num_gpu_blocks_override: int | None = None
    enable_prefix_caching: bool | None = None


class VLLMEndpointAdditionalArgs(VLLMModelConfig):
    """The same, and what vLLM's process is told."""

    max_gpu_memory_utilization: float | None = None
    attention_backend: str | None = None


class CreateLLMEndpointResponse(Payload):
    """What ``Model.create`` answers."""

    endpoint_creation_task_id: str


class UpdateLLMEndpointResponse(Payload):
    """What ``Model.update`` answers."""

    endpoint_creation_task_id: str


class DeleteLLMEndpointResponse(Payload):
    """What ``Model.delete`` answers."""

    deleted: bool


class ModelEndpointDeploymentState(Payload):
    """How many workers a model may have."""

    min_workers: Annotated[int, Field(ge=0)]
    max_workers: Annotated[int, Field(ge=0)]
    per_worker: Annotated[int, Field(gt=0)]
    available_workers: Annotated[int | None, Field(ge=0)] = None
    unavailable_workers: Annotated[int | None, Field(ge=0)] = None


class ModelEndpointResourceState(Payload):
    """What each worker gets; None where it is inferred."""

    cpus: str | int | float | None = None
    gpus: Annotated[int | None, Field(ge=0)] = None
    memory: str | int | float | None = None
    gpu_type: str | None = None
    storage: str | int | float | None = None
    nodes_per_worker: Annotated[int | None, Field(ge=1)] = None
    optimize_costs: bool | None = None


class GetModelEndpointResponse(Payload):
    """A model in full: the original's shape, and ``plan``."""

    id: str
    name: str
    endpoint_type: ModelEndpointType
    destination: str
    """What answers: the backend."""
    deployment_name: str | None = None
    metadata: dict[str, Any] | None = None
    bundle_name: str
    """The base model that is served."""
    status: ModelEndpointStatus
    post_inference_hooks: list[str] | None = None
    default_callback_url: str | None = None
    default_callback_auth: dict[str, Any] | None = None
    labels: dict[str, str] | None = None
    aws_role: str | None = None
    results_s3_bucket: str | None = None
    created_by: str
    created_at: datetime
    last_updated_at: datetime
    deployment_state: ModelEndpointDeploymentState | None = None
    resource_state: ModelEndpointResourceState | None = None
    num_queued_items: int | None = None
    public_inference: bool | None = None
    plan: dict[str, Any] | None = None
    """Every candidate with every rule, the chosen one by name: what ``llmengine explain`` prints."""


class GetLLMEndpointResponse(Payload):
    """What ``Model.get`` answers."""

    id: str | None = None
    name: str
    """What ``Completion.create`` takes as ``model``."""
    model_name: str | None = None
    """The base model."""
    source: LLMSource
    status: ModelEndpointStatus
    inference_framework: Framework
    """A member of ``LLMInferenceFramework`` where it is one, else the name as registered."""
    inference_framework_tag: str | None = None
    num_shards: int | None = None
    quantize: Method | None = None
    checkpoint_path: str | None = None
    reason: str | None = None
    """Why the last change failed; only with UPDATE_FAILED."""
    spec: GetModelEndpointResponse | None = None


class ListLLMEndpointsResponse(Payload):
    """What ``Model.list`` answers."""

    model_endpoints: list[GetLLMEndpointResponse]


class ModelDownloadRequest(Payload):
    """A download as the REST route takes it."""

    model_name: str
    download_format: str | None = "hugging_face"


class ModelDownloadResponse(Payload):
    """What ``Model.download`` answers."""

    urls: dict[str, str]
    """URL by file name."""
