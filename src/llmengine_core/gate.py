"""Refuses what a backend doesn't declare, and what doesn't fit its context."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from operator import attrgetter
from typing import TypeAlias

from llmengine_core.errors import BadRequestError, UnsupportedFeatureError
from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.generation import GenerationRequest, Messages, Text, TokenIds
from llmengine_core.types.sampling import SamplingParams, StructuredKind, StructuredOutput

__all__ = ["check_capabilities", "check_context", "check_length", "refuse_undeclared", "surely_fits"]

Prompt = Text | TokenIds | Messages
Need: TypeAlias = tuple[str, Callable[[Capabilities], bool]]
"""What is asked for, in a user's words, and whether a backend has it."""
WORDS = {"logprobs": "return_token_log_probs"}
"""What users call a capability, where it isn't by its name."""


def needs(
    prompt: Prompt, sampling: SamplingParams, structured: StructuredOutput | None, adapter: str | None
) -> Iterable[Need]:
    """What a request asks for beyond what every backend does, and how to tell that it is declared."""
    values = list(_values(sampling))
    for name in values:
        yield WORDS.get(name, name), attrgetter(name)
    if structured is not None:
        kind = structured.kind
        yield f"guided_{kind}", lambda c: kind in c.structured
        for name in values:
            yield f"{WORDS.get(name, name)} together with guided_{kind}", partial(_combines, name, kind)
    if isinstance(prompt, TokenIds):
        yield "a prompt of token ids", lambda c: c.token_ids
    if isinstance(prompt, Messages):
        yield "messages", lambda c: c.messages
    if adapter is not None:
        yield "an adapter", lambda c: c.adapters != "none"


def _values(sampling: SamplingParams) -> Iterable[str]:
    """The capabilities that sampling values ask for, where they have an effect."""
    if sampling.logprobs:
        yield "logprobs"
    if sampling.presence_penalty:
        yield "presence_penalty"
    if sampling.frequency_penalty:
        yield "frequency_penalty"
    if sampling.temperature > 0 and sampling.top_k is not None:
        yield "top_k"
    if sampling.temperature > 0 and sampling.top_p < 1:
        yield "top_p"
    if sampling.seed is not None:
        yield "seed"


def _combines(name: str, kind: StructuredKind, capabilities: Capabilities) -> bool:
    alone: bool = getattr(capabilities, name)
    return alone and kind in capabilities.structured and name not in capabilities.structured_excludes


def check_capabilities(
    prompt: Prompt,
    sampling: SamplingParams,
    structured: StructuredOutput | None,
    adapter: str | None,
    *,
    declared: Capabilities,
    backend: str,
    others: Callable[[], Iterable[tuple[str, Capabilities]]],
) -> None:
    """C13: raise ``UnsupportedFeatureError`` for the first thing asked that isn't declared; name who has it."""
    for what, has in needs(prompt, sampling, structured, adapter):
        if not has(declared):
            able = sorted(name for name, capabilities in others() if has(capabilities))
            could = f"; {', '.join(able)} could" if able else "; no installed backend could"
            raise UnsupportedFeatureError(f"the backend {backend!r} does not support {what}{could}")


def refuse_undeclared(request: GenerationRequest, declared: Capabilities, *, who: str) -> None:
    """C13 in a session: raise ``UnsupportedFeatureError`` for the first thing asked that it doesn't declare.

    ``who`` is what the session calls itself. One call, before anything else, is all that an author needs; what has
    no effect (a penalty of 0, ``top_k`` at temperature 0) is never refused.
    """
    for what, has in needs(request.prompt, request.sampling, request.structured, request.adapter):
        if not has(declared):
            raise UnsupportedFeatureError(f"{who} does not support {what}")


def surely_fits(prompt: Prompt, max_tokens: int, *, overhead: int | None, context_length: int) -> bool:
    """Whether a prompt fits whatever its tokens are: n bytes never take more than n + ``overhead`` tokens."""
    if overhead is None or not isinstance(prompt, Text):
        return False
    # A character is at most four bytes; only a prompt near the limit is worth encoding.
    length = len(prompt.text)
    if 4 * length + overhead + max_tokens > context_length:
        length = len(prompt.text.encode())
    else:
        length *= 4
    return length + overhead + max_tokens <= context_length


def check_length(prompt: Prompt, max_tokens: int, *, longest_token: int | None, context_length: int) -> None:
    """C04 for a prompt that doesn't fit whatever its tokens are, each of at most ``longest_token`` bytes.

    Raises what ``check_context`` raises, without a token counted.
    """
    if longest_token is None or not isinstance(prompt, Text):
        return
    # A character is at most four bytes; only a long prompt is worth encoding.
    if -(-4 * len(prompt.text) // longest_token) + max_tokens > context_length:
        least = -(-len(prompt.text.encode()) // longest_token)
        check_context(least, max_tokens, context_length=context_length, exactly=False)


def check_context(prompt_tokens: int, max_tokens: int, *, context_length: int, exactly: bool = True) -> None:
    """C04: raise ``BadRequestError`` with the three numbers where they don't fit.

    ``exactly`` says whether the prompt has this many tokens, or may have more.
    """
    if prompt_tokens + max_tokens > context_length:
        least = "" if exactly else "at least "
        raise BadRequestError(
            f"the prompt ({least}{prompt_tokens} tokens) and max_new_tokens ({max_tokens}) are "
            f"{least}{prompt_tokens + max_tokens} tokens together, more than the model's context length "
            f"({context_length}); shorten one of them"
        )
