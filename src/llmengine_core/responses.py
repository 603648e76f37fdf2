"""Results in the shape of the API's responses, as plain values that JSON can write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

from llmengine_core.errors import LLMEngineError
from llmengine_core.types.generation import GenerationChunk, Token
from llmengine_core.types.models import ModelRecord
from llmengine_core.types.objects import FileRecord

if TYPE_CHECKING:
    from llmengine_core.services.completions import Completed

__all__ = ["StreamResponses", "completion_response", "file_response", "model_response"]

Response: TypeAlias = dict[str, Any]


def completion_response(done: Completed, *, log_probs: bool) -> Response:
    """A whole answer."""
    output = {
        "text": done.text,
        "num_prompt_tokens": done.usage.prompt_tokens,
        "num_completion_tokens": done.usage.completion_tokens,
        "tokens": [_token(each) for each in done.tokens] if log_probs else None,
    }
    return {"request_id": done.request_id, "output": output}


class StreamResponses:
    """The responses of one stream (C09): the same ``request_id``, and a count of tokens that never falls."""

    def __init__(self, request_id: str, *, log_probs: bool) -> None:
        self.request_id = request_id
        self._log_probs = log_probs
        self._tokens = 0

    def chunk(self, chunk: GenerationChunk) -> Sequence[Response]:
        """One response; with log probabilities one for each token, and at least one."""
        tokens = chunk.tokens
        if self._log_probs and len(tokens) > 1:
            return self._one_for_each(chunk)
        self._tokens += len(tokens)
        return (self._last(chunk, chunk.text, tokens[0] if self._log_probs and tokens else None),)

    def error(self, error: Exception) -> Response:
        """What ends a stream that began well."""
        status = error.status_code if isinstance(error, LLMEngineError) else None
        content = {"error": str(error), "timestamp": datetime.now(UTC).isoformat()}
        return {
            "request_id": self.request_id,
            "output": None,
            "error": {"status_code": status or 500, "content": content},
        }

    def _one_for_each(self, chunk: GenerationChunk) -> list[Response]:
        # Each token goes with its own text where the chunk holds back none of it; else the last has it all.
        *firsts, last = chunk.tokens
        whole = "".join(token.text for token in chunk.tokens) == chunk.text
        responses = []
        for token in firsts:
            self._tokens += 1
            responses.append(self._response(token.text if whole else "", token))
        self._tokens += 1
        return [*responses, self._last(chunk, last.text if whole else chunk.text, last)]

    def _last(self, chunk: GenerationChunk, text: str, token: Token | None) -> Response:
        usage = chunk.usage
        if usage is None:
            return self._response(text, token, finished=chunk.finish_reason is not None)
        self._tokens = max(self._tokens, usage.completion_tokens)
        return self._response(text, token, usage.prompt_tokens, finished=chunk.finish_reason is not None)

    def _response(
        self, text: str, token: Token | None, prompt_tokens: int | None = None, *, finished: bool = False
    ) -> Response:
        output = {
            "text": text,
            "finished": finished,
            "num_prompt_tokens": prompt_tokens,
            "num_completion_tokens": self._tokens,
            "token": None if token is None else _token(token),
        }
        return {"request_id": self.request_id, "output": output, "error": None}


def _token(token: Token) -> Response:
    return {"token": token.text, "log_prob": token.logprob}


def file_response(record: FileRecord) -> Response:
    """A file."""
    return {"id": record.id, "filename": record.filename, "size": record.size}


def model_response(record: ModelRecord) -> Response:
    """A model: what was asked for, and the framework that serves it where any would do."""
    spec, plan = record.spec, record.plan
    framework = plan.chosen or spec.inference_framework if spec.inference_framework == "auto" else None
    return {
        "id": record.id,
        "name": spec.name,
        "model_name": spec.model,
        "source": spec.source,
        "status": str(record.status),
        "inference_framework": framework or spec.inference_framework,
        "inference_framework_tag": spec.inference_framework_image_tag,
        "num_shards": spec.num_shards,
        "quantize": spec.quantize,
        "checkpoint_path": spec.checkpoint_path,
        "reason": record.reason,
        "spec": _endpoint(record),
    }


def _endpoint(record: ModelRecord) -> Response:
    """The original's description of an endpoint, and the plan."""
    spec = record.spec
    hardware = record.plan.hardware
    created_at = datetime.fromtimestamp(record.created_at, UTC).isoformat()
    return {
        "id": record.id,
        "name": spec.name,
        "endpoint_type": spec.endpoint_type,
        "destination": record.plan.chosen or spec.inference_framework,
        "deployment_name": None,
        "metadata": None,
        "bundle_name": spec.model,
        "status": str(record.status),
        "post_inference_hooks": list(spec.post_inference_hooks),
        "default_callback_url": spec.default_callback_url,
        "default_callback_auth": None,
        "labels": dict(spec.labels),
        "aws_role": None,
        "results_s3_bucket": None,
        "created_by": record.owner,
        "created_at": created_at,
        "last_updated_at": created_at,
        "deployment_state": {
            "min_workers": spec.min_workers,
            "max_workers": spec.max_workers,
            "per_worker": spec.per_worker,
            "available_workers": None,
            "unavailable_workers": None,
        },
        "resource_state": {
            "cpus": hardware.cpus if hardware else spec.cpus,
            "gpus": hardware.gpus if hardware else spec.gpus,
            "memory": hardware.memory if hardware else spec.memory,
            "gpu_type": hardware.gpu_type if hardware else spec.gpu_type,
            "storage": hardware.storage if hardware else spec.storage,
            "nodes_per_worker": 1,
            "optimize_costs": None,
        },
        "num_queued_items": None,
        "public_inference": spec.public_inference,
        "plan": asdict(record.plan),
    }
