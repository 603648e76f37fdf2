"""Results in the shape of the API's responses, as plain values for JSON."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from llmengine_core.errors import LLMEngineError

if TYPE_CHECKING:
    from llmengine_core.services.completions import Completed
    from llmengine_core.types.generation import GenerationChunk, Token
    from llmengine_core.types.models import ModelRecord

__all__ = ["StreamResponses", "completion_response", "model_response"]


def completion_response(done: Completed, *, log_probs: bool) -> dict[str, Any]:
    """A whole answer."""
    output = {
        "text": done.text,
        "num_prompt_tokens": done.usage.prompt_tokens,
        "num_completion_tokens": done.usage.completion_tokens,
        "tokens": [_token(each) for each in done.tokens] if log_probs else None,
    }
    return {"request_id": done.request_id, "output": output}


class StreamResponses:
    """The responses of one stream; counts the tokens that went by."""

    def __init__(self, request_id: str, *, log_probs: bool) -> None:
        self._request_id = request_id
        self._log_probs = log_probs
        self._tokens = 0

    def chunk(self, chunk: GenerationChunk) -> Iterator[dict[str, Any]]:
        """One response, or with log probabilities one for each token; the last has the text."""
        tokens = chunk.tokens if self._log_probs else ()
        for token in tokens[:-1]:
            self._tokens += 1
            yield self._response("", token)
        self._tokens += 1 if tokens else len(chunk.tokens)
        yield self._response(chunk.text, tokens[-1] if tokens else None, chunk)

    def error(self, error: LLMEngineError) -> dict[str, Any]:
        """What ends a stream that began well."""
        content = {"error": error.message, "timestamp": datetime.now(UTC).isoformat()}
        status = {"status_code": error.status_code or 500, "content": content}
        return {"request_id": self._request_id, "output": None, "error": status}

    def _response(
        self, text: str, token: Token | None, last: GenerationChunk | None = None
    ) -> dict[str, Any]:
        usage = last.usage if last else None
        output = {
            "text": text,
            "finished": last is not None and last.finish_reason is not None,
            "num_prompt_tokens": usage.prompt_tokens if usage else None,
            "num_completion_tokens": usage.completion_tokens if usage else self._tokens,
            "token": _token(token) if token else None,
        }
        return {"request_id": self._request_id, "output": output, "error": None}


def _token(token: Token) -> dict[str, Any]:
    return {"token": token.text, "log_prob": token.logprob}


def model_response(record: ModelRecord) -> dict[str, Any]:
    """A model."""
    spec = record.spec
    return {
        "id": record.id,
        "name": spec.name,
        "model_name": spec.model,
        "source": spec.source,
        "status": record.status,
        "inference_framework": spec.inference_framework,
        "inference_framework_tag": spec.inference_framework_image_tag,
        "num_shards": spec.num_shards,
        "quantize": spec.quantize,
        "spec": {"owner": record.owner, "created_at": record.created_at, "reason": record.reason},
    }
