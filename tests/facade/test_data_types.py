"""Requests and responses: their keys, their JSON, and the original client's methods, without a warning."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from llmengine import data_types
from llmengine.data_types import (
    BatchCompletionsJob,
    CompletionStreamResponse,
    CompletionSyncResponse,
    CompletionSyncV1Request,
    CreateBatchCompletionsModelConfig,
    CreateBatchCompletionsRequest,
    CreateBatchCompletionsRequestContent,
    CreateFineTuneResponse,
    FilteredChatCompletionV2Request,
    FineTuneStatus,
    GetFineTuneResponse,
    GetLLMEndpointResponse,
    LLMInferenceFramework,
    ModelEndpointStatus,
    Quantization,
    StreamError,
    ToolConfig,
    UploadFileResponse,
)

MODEL = {
    "id": None,
    "name": "llama-2-7b.suffix.2023-07-18-12-00-00",
    "model_name": None,
    "source": "hugging_face",
    "status": "READY",
    "inference_framework": "text_generation_inference",
    "inference_framework_tag": None,
    "num_shards": None,
    "quantize": None,
    "spec": None,
}

# The reference's examples.
EXAMPLES: list[tuple[str, dict[str, Any]]] = [
    (
        "CompletionSyncResponse",
        {"request_id": "8bbd0e83", "output": {"text": "___", "num_completion_tokens": 10}},
    ),
    (
        "CompletionStreamResponse",
        {"request_id": "ebbde00c", "output": {"text": "’", "finished": False, "num_completion_tokens": 4}},
    ),
    ("CreateFineTuneResponse", {"fine_tune_id": "ft-cir3eevt71r003ks6il0"}),
    ("GetFineTuneResponse", {"fine_tune_id": "ft-cir3eevt71r003ks6il0", "status": "STARTED"}),
    (
        "GetFineTuneEventsResponse",
        {"events": [{"timestamp": 1689665099.6704428, "message": "{'loss': 2.108}", "level": "info"}]},
    ),
    ("ListFineTunesResponse", {"jobs": [{"fine_tune_id": "ft_def456", "status": "SUCCESS"}]}),
    ("CancelFineTuneResponse", {"success": True}),
    ("GetLLMEndpointResponse", MODEL),
    ("ListLLMEndpointsResponse", {"model_endpoints": [MODEL, MODEL | {"inference_framework": "deepspeed"}]}),
    ("DeleteLLMEndpointResponse", {"deleted": True}),
    ("ModelDownloadResponse", {"urls": {"my_model_file": "https://url-to-my-model-weights"}}),
    ("UploadFileResponse", {"id": "file-abc123"}),
    ("GetFileResponse", {"id": "file-abc123", "filename": "training_dataset.csv", "size": 100}),
    ("GetFileContentResponse", {"id": "file-abc123", "content": "Hello world!"}),
    (
        "ListFilesResponse",
        {"files": [{"id": "file-abc123", "filename": "training_dataset.csv", "size": 100}]},
    ),
    ("DeleteFileResponse", {"deleted": True}),
    ("CreateBatchCompletionsResponse", {"job_id": "job-1"}),
    ("CreateLLMEndpointResponse", {"endpoint_creation_task_id": "task-1"}),
    ("UpdateLLMEndpointResponse", {"endpoint_creation_task_id": "task-1"}),
]


def holds(found: Any, wanted: Any) -> bool:
    """Whether every key and value that is wanted is found, at every depth."""
    if isinstance(wanted, dict):
        return all(key in found and holds(found[key], value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(holds, found, wanted))
    return bool(found == wanted)


@pytest.mark.parametrize(("name", "example"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_a_response_holds_the_references_keys(name: str, example: dict[str, Any]) -> None:
    response = getattr(data_types, name).parse_obj(example)
    assert holds(json.loads(response.json()), example)
    assert holds(response.dict(), example)
    assert type(response).parse_obj(response.dict()) == response


def test_nulls_are_written_unless_excluded() -> None:
    response = CompletionSyncResponse.parse_obj(EXAMPLES[0][1])
    assert json.loads(response.json())["output"] == {
        "text": "___",
        "num_prompt_tokens": None,
        "num_completion_tokens": 10,
        "tokens": None,
    }
    assert json.loads(response.json(exclude_none=True)) == EXAMPLES[0][1]
    assert response.dict(exclude_none=True) == EXAMPLES[0][1]
    assert json.loads(CompletionStreamResponse(request_id="a").json()) == {
        "request_id": "a",
        "output": None,
        "error": None,
    }


def test_json_is_written_as_json_dumps_writes_it() -> None:
    response = UploadFileResponse(id="file-ä")
    assert response.json() == '{"id": "file-\\u00e4"}'
    assert response.json(ensure_ascii=False) == '{"id": "file-ä"}'
    assert response.json(indent=4) == '{\n    "id": "file-\\u00e4"\n}'
    assert response.json(include=set()) == "{}"
    assert response.dict(exclude={"id"}) == {}


def test_what_does_not_fit_is_a_validation_error() -> None:
    with pytest.raises(ValidationError):
        CompletionSyncResponse.parse_obj({"request_id": "a"})
    with pytest.raises(ValueError, match="temperature"):
        CompletionSyncV1Request(prompt="a", max_new_tokens=1, temperature=1.5)


def test_f06_the_id_of_a_fine_tune_goes_by_two_names() -> None:
    for given in ({"id": "ft-1"}, {"fine_tune_id": "ft-1"}, {"id": "ft-1", "fine_tune_id": "ft-1"}):
        response = CreateFineTuneResponse.parse_obj(given)
        assert response.id == response.fine_tune_id == "ft-1"
        assert json.loads(response.json()) == {"id": "ft-1", "fine_tune_id": "ft-1"}
    job = GetFineTuneResponse(id="ft-1", status=FineTuneStatus.STARTED)
    assert json.loads(job.json()) == {
        "id": "ft-1",
        "fine_tune_id": "ft-1",
        "fine_tuned_model": None,
        "status": "STARTED",
    }
    with pytest.raises(ValidationError):
        CreateFineTuneResponse.parse_obj({})


def test_f07_the_status_of_a_fine_tune() -> None:
    assert {*FineTuneStatus} == {"PENDING", "STARTED", "SUCCESS", "FAILURE", "CANCELLED", "UNDEFINED"}


def test_m02_a_framework_is_the_enums_member_or_any_registered_name() -> None:
    known = GetLLMEndpointResponse.parse_obj(MODEL | {"quantize": "awq"})
    assert known.inference_framework is LLMInferenceFramework.TEXT_GENERATION_INFERENCE
    assert known.quantize is Quantization.AWQ
    other = GetLLMEndpointResponse.parse_obj(MODEL | {"inference_framework": "llama_cpp", "quantize": "q8_0"})
    assert (other.inference_framework, other.quantize) == ("llama_cpp", "q8_0")
    assert json.loads(other.json())["inference_framework"] == "llama_cpp"


def test_m11_the_status_of_a_model() -> None:
    assert GetLLMEndpointResponse.parse_obj(MODEL).status is ModelEndpointStatus.READY
    assert len(ModelEndpointStatus) == 5


def test_enums_print_their_values() -> None:
    assert f"{LLMInferenceFramework.VLLM}" == LLMInferenceFramework.VLLM.value == "vllm"


def test_b01_the_key_of_a_batchs_model_is_model_config() -> None:
    config = CreateBatchCompletionsModelConfig(model="llama-2-7b", labels={"team": "my-team"})
    content = CreateBatchCompletionsRequestContent(prompts=["a"], max_new_tokens=10, temperature=0.0)
    request = CreateBatchCompletionsRequest.parse_obj(
        {"model_config": config, "content": content, "output_data_path": "s3://my-path"}
    )
    assert request.model_cfg == config
    written = json.loads(request.json())
    assert written["model_config"]["model"] == "llama-2-7b"
    assert (written["data_parallelism"], written["max_runtime_sec"]) == (1, 86_400)
    assert CreateBatchCompletionsRequest.parse_obj(written) == request
    assert "model_config" in BatchCompletionsJob.model_json_schema()["properties"]


def test_b01_the_references_chat_request_is_accepted() -> None:
    content = {
        "messages": [
            {"role": "user", "content": "What is a good place for travel in the US?"},
            {"role": "assistant", "content": "California."},
            {"role": "user", "content": "What can I do in California?", "name": "me"},
        ],
        "logprobs": True,
    }
    request = FilteredChatCompletionV2Request(**content)  # type: ignore[arg-type]
    assert holds(json.loads(request.json()), content)
    assert ToolConfig(name="code_evaluator").max_iterations == 10


def test_a_stream_error_has_the_references_shape() -> None:
    error = StreamError.parse_obj(
        {"status_code": 504, "content": {"error": "late", "timestamp": "2026-01-01"}}
    )
    assert json.loads(error.json()) == {
        "status_code": 504,
        "content": {"error": "late", "timestamp": "2026-01-01"},
    }


def test_every_model_can_describe_itself() -> None:
    for name in data_types.__all__:
        kind = getattr(data_types, name)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            assert kind.model_json_schema()["type"] == "object"
