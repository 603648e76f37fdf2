"""Completions and chats in OpenAI's shape, as batches of the second version take and give them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import ConfigDict, Field

from llmengine.data_types.payload import Payload

__all__ = [
    "ChatCompletionV2Request",
    "ChatCompletionV2Response",
    "ChatMessage",
    "CompletionUsage",
    "CompletionV2Request",
    "CompletionV2Response",
    "FilteredChatCompletionV2Request",
    "FilteredCompletionV2Request",
]


class ChatMessage(Payload):
    """One turn of a chat; what else a role brings (tool calls, names) is kept as given."""

    model_config = ConfigDict(extra="allow")

    role: str
    content: str | list[dict[str, Any]] | None = None


class SamplingV2(Payload):
    """What both kinds of request take."""

    best_of: int | None = None
    top_k: Annotated[int | None, Field(ge=-1)] = None
    min_p: float | None = None
    use_beam_search: bool | None = None
    length_penalty: float | None = None
    repetition_penalty: float | None = None
    early_stopping: bool | None = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    min_tokens: int | None = None
    skip_special_tokens: bool | None = True
    spaces_between_special_tokens: bool | None = True
    add_special_tokens: bool | None = None
    response_format: dict[str, Any] | None = None
    guided_json: dict[str, Any] | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    guided_decoding_backend: str | None = None
    guided_whitespace_pattern: str | None = None
    frequency_penalty: Annotated[float | None, Field(ge=-2, le=2)] = 0
    presence_penalty: Annotated[float | None, Field(ge=-2, le=2)] = 0
    logit_bias: dict[str, int] | None = None
    max_tokens: Annotated[int | None, Field(ge=0)] = None
    n: Annotated[int | None, Field(ge=1, le=128)] = 1
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = False
    stream_options: dict[str, Any] | None = None
    temperature: Annotated[float | None, Field(ge=0, le=2)] = 1
    top_p: Annotated[float | None, Field(ge=0, le=1)] = 1
    user: str | None = None


class CompletionV2(SamplingV2):
    """A completion in OpenAI's shape, whatever its model."""

    prompt: str | list[str] | list[int] | list[list[int]] | None
    best_of: Annotated[int | None, Field(ge=0, le=20)] = 1
    max_tokens: Annotated[int | None, Field(ge=0)] = 16
    echo: bool | None = False
    logprobs: Annotated[int | None, Field(ge=0, le=5)] = None
    suffix: str | None = None


class CompletionV2Request(CompletionV2):
    """A completion in OpenAI's shape."""

    model: str


class FilteredCompletionV2Request(CompletionV2):
    """A completion of a batch: its model is the batch's."""

    model: str | None = None


class ChatCompletionV2(SamplingV2):
    """A chat in OpenAI's shape, whatever its model."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    echo: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    documents: list[dict[str, str]] | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    priority: int | None = None
    metadata: dict[str, str] | None = None
    service_tier: str | None = None
    modalities: list[str] | None = None
    reasoning_effort: str | None = None
    max_completion_tokens: int | None = None
    web_search_options: dict[str, Any] | None = None
    logprobs: bool | None = False
    top_logprobs: Annotated[int | None, Field(ge=0, le=20)] = None
    audio: dict[str, Any] | None = None
    store: bool | None = False
    prediction: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    function_call: str | dict[str, Any] | None = None
    functions: Annotated[list[dict[str, Any]] | None, Field(min_length=1, max_length=128)] = None


class ChatCompletionV2Request(ChatCompletionV2):
    """A chat in OpenAI's shape."""

    model: str


class FilteredChatCompletionV2Request(ChatCompletionV2):
    """A chat of a batch: its model is the batch's."""

    model: str | None = None


class CompletionUsage(Payload):
    """What a request took, in tokens."""

    completion_tokens: int
    prompt_tokens: int
    total_tokens: int
    completion_tokens_details: dict[str, Any] | None = None
    prompt_tokens_details: dict[str, Any] | None = None


class ChatChoice(Payload):
    """One answer to a chat."""

    finish_reason: Literal["stop", "length", "tool_calls", "content_filter", "function_call"]
    index: int
    message: ChatMessage
    logprobs: dict[str, Any] | None = None


class CompletionChoice(Payload):
    """One completion."""

    finish_reason: Literal["stop", "length", "content_filter"]
    index: int
    text: str
    logprobs: dict[str, Any] | None = None


class CreateChatCompletionResponse(Payload):
    """The answer to a chat."""

    id: str
    choices: list[ChatChoice]
    created: int
    model: str
    service_tier: str | None = None
    system_fingerprint: str | None = None
    object: Literal["chat.completion"]
    usage: CompletionUsage | None = None


class CreateCompletionResponse(Payload):
    """The answer to a completion in OpenAI's shape."""

    id: str
    choices: list[CompletionChoice]
    created: int
    model: str
    system_fingerprint: str | None = None
    object: Literal["text_completion"]
    usage: CompletionUsage | None = None


ChatCompletionV2Response: TypeAlias = CreateChatCompletionResponse
CompletionV2Response: TypeAlias = CreateCompletionResponse
