"""Requests and responses of completions."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from pydantic import Field

from llmengine.data_types.payload import Payload

__all__ = [
    "CompletionOutput",
    "CompletionStreamOutput",
    "CompletionStreamRequest",
    "CompletionStreamResponse",
    "CompletionStreamV1Request",
    "CompletionStreamV1Response",
    "CompletionSyncRequest",
    "CompletionSyncResponse",
    "CompletionSyncV1Request",
    "CompletionSyncV1Response",
    "StreamError",
    "StreamErrorContent",
    "TokenOutput",
]


class CompletionSyncV1Request(Payload):
    """A completion as the REST routes take it; the model is named in the route."""

    prompt: str
    max_new_tokens: int
    temperature: Annotated[float, Field(ge=0.0, le=1.0)]
    stop_sequences: list[str] | None = None
    return_token_log_probs: bool | None = False
    presence_penalty: Annotated[float | None, Field(ge=0.0, le=2.0)] = None
    frequency_penalty: Annotated[float | None, Field(ge=0.0, le=2.0)] = None
    top_k: Annotated[int | None, Field(ge=-1)] = None
    top_p: Annotated[float | None, Field(gt=0.0, le=1.0)] = None
    include_stop_str_in_output: bool | None = None
    guided_json: dict[str, Any] | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    skip_special_tokens: bool | None = True


class CompletionStreamV1Request(CompletionSyncV1Request):
    """The same, to be answered as a stream."""


class TokenOutput(Payload):
    """One generated token."""

    token: str
    """Its text; "" until a character that it shares with others is complete."""
    log_prob: float
    """Natural logarithm of its probability under the raw model distribution; ≤ 0."""


class CompletionOutput(Payload):
    """The whole answer."""

    text: str
    num_prompt_tokens: int | None = None
    num_completion_tokens: int
    """Generated tokens, end and stop tokens included."""
    tokens: list[TokenOutput] | None = None
    """None unless ``return_token_log_probs`` was asked."""


class CompletionSyncV1Response(Payload):
    """What ``Completion.create`` answers."""

    request_id: str
    output: CompletionOutput


class CompletionStreamOutput(Payload):
    """A piece of the answer."""

    text: str
    finished: bool
    """True on the last piece of an unbroken stream."""
    num_prompt_tokens: int | None = None
    """Filled on the last piece at the latest."""
    num_completion_tokens: int | None = None
    """Generated tokens up to here."""
    token: TokenOutput | None = None
    """None unless ``return_token_log_probs`` was asked, and where a piece brings text without a new token."""


class StreamErrorContent(Payload):
    """What went wrong, and when."""

    error: str
    timestamp: str
    """ISO 8601, UTC."""


class StreamError(Payload):
    """Why a stream broke off."""

    status_code: int
    """As over HTTP: 504 where ``timeout`` ran out, 500 and up where the fault is ours or the engine's."""
    content: StreamErrorContent


class CompletionStreamV1Response(Payload):
    """What a stream gives: a piece of the answer, or why there are no more."""

    request_id: str
    """The same on every piece."""
    output: CompletionStreamOutput | None = None
    error: StreamError | None = None


CompletionSyncRequest: TypeAlias = CompletionSyncV1Request
CompletionSyncResponse: TypeAlias = CompletionSyncV1Response
CompletionStreamRequest: TypeAlias = CompletionStreamV1Request
CompletionStreamResponse: TypeAlias = CompletionStreamV1Response
