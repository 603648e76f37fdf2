"""The waist: what a session is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.sampling import SamplingParams, StructuredOutput

__all__ = [
    "FinishReason",
    "GenerationChunk",
    "GenerationRequest",
    "Message",
    "Messages",
    "Prompt",
    "SessionFacts",
    "Text",
    "Token",
    "TokenIds",
    "Usage",
]

FinishReason: TypeAlias = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, slots=True)
class Text:
    """A prompt that is sent verbatim: the engine adds no template, only its start token if it has one."""

    text: str


@dataclass(frozen=True, slots=True)
class TokenIds:
    """A prompt given as the engine's own token ids (capability ``token_ids``)."""

    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Messages:
    """A conversation; the engine applies the model's chat template (capability ``messages``)."""

    messages: tuple[Message, ...]


Prompt: TypeAlias = Text | TokenIds | Messages


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One validated request."""

    prompt: Prompt
    sampling: SamplingParams = field(default_factory=SamplingParams)
    structured: StructuredOutput | None = None
    adapter: str | None = None
    deadline: float | None = None
    """When the whole call must be over, on the clock of ``time.monotonic()``; None is never."""


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token."""

    id: int
    text: str
    """What it adds to the text; "" for an end token and until a character is complete."""
    bytes: bytes | None = None
    logprob: float | None = None
    """Natural logarithm, ≤ 0 and finite; None unless ``SamplingParams.logprobs`` was asked."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a request took, in tokens of its model."""

    prompt_tokens: int
    completion_tokens: int
    """All generated tokens, end and stop tokens included."""


@dataclass(frozen=True, slots=True)
class GenerationChunk:
    """A piece of an answer.

    The last chunk, and only it, has ``finish_reason`` and ``usage``. ``text`` holds whole characters
    and is never taken back; ``tokens`` may run ahead of it while text is held back.
    """

    text: str
    tokens: tuple[Token, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """What a live session knows of itself. It may narrow what its backend declared, never widen it."""

    context_length: int
    """Most tokens that a prompt and its completion may have together."""
    capabilities: Capabilities
    versions: Mapping[str, str] = field(default_factory=dict)
    """Version by name of what is running: the engine, its weights' digest, ..."""
    prompt_token_overhead: int | None = None
    """k, where a prompt of n UTF-8 bytes never takes more than n + k tokens; None where that isn't known."""
    longest_token: int | None = None
    """k, where a prompt of n UTF-8 bytes never takes fewer than n / k tokens; None where that isn't known."""
    max_concurrent: int | None = None
    """Most requests that it works on at once; further ones wait inside it. None is no limit."""
