"""What goes out to llama.cpp's ``/completion`` and what comes back; pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, TypeAlias

from llmengine_core.errors import BadRequestError, ServerError
from llmengine_core.gate import check_context
from llmengine_core.types.generation import FinishReason, Token
from llmengine_core.types.sampling import SamplingParams

__all__ = ["Frame", "body_of", "finish_reason_of", "is_progress", "refuse", "token_of"]

Frame: TypeAlias = dict[str, Any]
"""One event of an answer, as llama.cpp words it."""

LOWEST = -3.4028234663852886e38
"""The lowest number of single precision: what a probability of zero has for a logarithm."""
RANDOM_SEED = 0xFFFFFFFF
"""What llama.cpp takes for "choose one"."""

COLDEST = 1e-30
"""A temperature below which nothing changes any more. llama.cpp divides logits by it in 32 bits: by the smallest ones
they become infinite, and what it then takes for the likeliest token obeys nothing, constraints neither."""

# What llama.cpp would otherwise fill in from defaults of its own, and how it is to answer.
NEUTRAL: Mapping[str, Any] = {
    "stream": True,
    "return_tokens": True,
    # One event for each batch of the prompt: only where it writes does llama.cpp see a closed connection.
    "return_progress": True,
    # What is left of an earlier prompt changes how this one falls into batches, and so, in the last bits,
    # its logits: the same call would not always give the same text.
    "cache_prompt": False,
    "response_fields": ["content", "tokens", "stop", "stop_type", "tokens_predicted", "tokens_evaluated"],
    "min_p": 0.0,
    "typical_p": 1.0,
    "top_n_sigma": -1.0,
    "xtc_probability": 0.0,
    "dynatemp_range": 0.0,
    "mirostat": 0,
    "dry_multiplier": 0.0,
    "repeat_penalty": 1.0,
    "ignore_eos": False,
    "stop": [],
}


def body_of(
    prompt: str | Sequence[int], sampling: SamplingParams, *, slot: int, grammar: str | None = None
) -> Frame:
    """A request that leaves nothing to defaults. Penalties are not in it: see ``penalties``."""
    greedy = sampling.temperature == 0
    return {
        **NEUTRAL,
        "prompt": prompt,
        "id_slot": slot,
        "n_predict": sampling.max_tokens,
        "samplers": ["temperature"] if greedy else ["temperature", "top_k", "top_p"],
        "temperature": 0.0 if greedy else max(sampling.temperature, COLDEST),
        "top_k": 0 if greedy or sampling.top_k is None else sampling.top_k,
        "top_p": 1.0 if greedy else sampling.top_p,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "repeat_last_n": 0,
        "logit_bias": [],
        "seed": RANDOM_SEED if sampling.seed is None else sampling.seed % RANDOM_SEED,
        "n_probs": int(sampling.logprobs),
        "grammar": grammar or "",
    }


def is_progress(frame: Frame) -> bool:
    """Whether it only says how far the prompt was read."""
    return "prompt_progress" in frame


def token_of(frame: Frame, *, logprob: bool) -> Token:
    """The token of one event; where a character took several, the last of them with the text of all."""
    text: str = frame["content"]
    value = None
    if logprob:
        value = min(0.0, max(LOWEST, frame["completion_probabilities"][0]["logprob"]))
    return Token(frame["tokens"][0], text, text.encode(), value)


def finish_reason_of(frame: Frame) -> FinishReason:
    """Why llama.cpp ended; it isn't given stop sequences, so only the model itself stops."""
    return "stop" if frame["stop_type"] == "eos" else "length"


def refuse(status: int, body: bytes, *, max_tokens: int = 0) -> NoReturn:
    """Raise what a refusal by llama.cpp means for the caller."""
    try:
        error = json.loads(body)["error"]
        status, message = int(error["code"]), str(error["message"])
    except (ValueError, KeyError, TypeError):
        raise ServerError(f"llama.cpp answered with status {status}: {body[:200]!r}") from None
    if error.get("type") == "exceed_context_size_error":
        check_context(error["n_prompt_tokens"], max_tokens, context_length=error["n_ctx"])
    if status == 400:
        raise BadRequestError(f"llama.cpp refused the request: {message}")
    raise ServerError(f"llama.cpp failed with status {status}: {message}")
