"""Requests and responses of batches of completions."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from llmengine.data_types.chat import FilteredChatCompletionV2Request, FilteredCompletionV2Request
from llmengine.data_types.enums import BatchCompletionsJobStatus
from llmengine.data_types.model import VLLMModelConfig
from llmengine.data_types.payload import Payload

__all__ = [
    "BatchCompletionContent",
    "BatchCompletionsJob",
    "BatchCompletionsModelConfig",
    "CreateBatchCompletionsModelConfig",
    "CreateBatchCompletionsRequest",
    "CreateBatchCompletionsRequestContent",
    "CreateBatchCompletionsResponse",
    "CreateBatchCompletionsV1ModelConfig",
    "CreateBatchCompletionsV1Request",
    "CreateBatchCompletionsV1RequestContent",
    "CreateBatchCompletionsV1Response",
    "CreateBatchCompletionsV2ModelConfig",
    "CreateBatchCompletionsV2Request",
    "CreateBatchCompletionsV2RequestContent",
    "CreateBatchCompletionsV2Response",
    "ToolConfig",
]

DAY = 24 * 3600


class ToolConfig(Payload):
    """The tool that a batch may call between tokens."""

    name: str
    """"code_evaluator"."""
    max_iterations: int | None = 10
    execution_timeout_seconds: int | None = 60
    should_retry_on_error: bool | None = True


class BatchCompletionsModelConfig(VLLMModelConfig):
    """The model that a batch runs on; it needs no endpoint."""

    model: str
    checkpoint_path: str | None = None
    num_shards: Annotated[int | None, Field(ge=1)] = 1
    max_context_length: Annotated[int | None, Field(ge=1)] = None
    response_role: str | None = None


class CreateBatchCompletionsV1ModelConfig(BatchCompletionsModelConfig):
    """The same, with labels."""

    labels: dict[str, str] = Field(default_factory=dict)


class CreateBatchCompletionsV1RequestContent(Payload):
    """The prompts of a batch and how to complete them."""

    prompts: list[str]
    max_new_tokens: int
    temperature: Annotated[float, Field(ge=0.0, le=1.0)]
    stop_sequences: list[str] | None = None
    return_token_log_probs: bool | None = False
    presence_penalty: Annotated[float | None, Field(ge=0.0, le=2.0)] = None
    frequency_penalty: Annotated[float | None, Field(ge=0.0, le=2.0)] = None
    top_k: Annotated[int | None, Field(ge=-1)] = None
    top_p: Annotated[float | None, Field(gt=0.0, le=1.0)] = None
    skip_special_tokens: bool | None = True


CreateBatchCompletionsV2RequestContent: TypeAlias = (
    list[FilteredCompletionV2Request] | list[FilteredChatCompletionV2Request]
)
BatchCompletionContent: TypeAlias = (
    CreateBatchCompletionsV1RequestContent | CreateBatchCompletionsV2RequestContent
)


class BatchRequest(Payload):
    """What both versions of a batch take."""

    input_data_path: str | None = None
    output_data_path: str
    labels: dict[str, str] = Field(default_factory=dict)
    data_parallelism: Annotated[int | None, Field(ge=1, le=64)] = 1
    max_runtime_sec: Annotated[int | None, Field(ge=1, le=2 * DAY)] = DAY
    priority: str | None = None
    tool_config: ToolConfig | None = None
    cpus: str | int | float | None = None
    gpus: int | None = None
    memory: str | int | float | None = None
    gpu_type: str | None = None
    storage: str | int | float | None = None
    nodes_per_worker: int | None = None


class CreateBatchCompletionsV1Request(BatchRequest):
    """A batch as the first REST route takes it; the JSON key of ``model_cfg`` is ``model_config``."""

    content: CreateBatchCompletionsV1RequestContent | None = None
    model_cfg: Annotated[CreateBatchCompletionsV1ModelConfig, Field(alias="model_config")]


class CreateBatchCompletionsV1Response(Payload):
    """What ``Completion.batch_create`` answers."""

    job_id: str


class CreateBatchCompletionsV2Request(BatchRequest):
    """A batch as the second REST route takes it; the JSON key of ``model_cfg`` is ``model_config``."""

    content: BatchCompletionContent | None = None
    model_cfg: Annotated[BatchCompletionsModelConfig, Field(alias="model_config")]


class BatchCompletionsJob(Payload):
    """What ``Completion.batch_create(use_v2=True)`` answers; the JSON key of ``model_cfg`` is ``model_config``."""

    job_id: str
    input_data_path: str | None = None
    output_data_path: str
    model_cfg: Annotated[BatchCompletionsModelConfig, Field(alias="model_config")]
    priority: str | None = None
    status: BatchCompletionsJobStatus
    created_at: str
    expires_at: str
    completed_at: str | None
    metadata: dict[str, str] | None


CreateBatchCompletionsModelConfig: TypeAlias = CreateBatchCompletionsV1ModelConfig
CreateBatchCompletionsRequest: TypeAlias = CreateBatchCompletionsV1Request
CreateBatchCompletionsRequestContent: TypeAlias = CreateBatchCompletionsV1RequestContent
CreateBatchCompletionsResponse: TypeAlias = CreateBatchCompletionsV1Response
CreateBatchCompletionsV2ModelConfig: TypeAlias = BatchCompletionsModelConfig
CreateBatchCompletionsV2Response: TypeAlias = BatchCompletionsJob
