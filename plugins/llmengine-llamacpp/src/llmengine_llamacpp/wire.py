"""What goes out to llama.cpp's ``/completion`` and what comes back; pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llmengine_core.errors import BadRequestError, LLMEngineError, ServerError
from llmengine_core.types.generation import FinishReason, Token
from llmengine_core.types.sampling import SamplingParams

__all__ = ["body_of", "error_of", "finish_reason_of", "token_of"]

LOWEST = -3.4028234663852886e38
"""What a probability of zero has for a logarithm: the lowest single-precision number."""
RANDOM_SEED = 0xFFFFFFFF

# Every value that llama.cpp would otherwise take from defaults of its own, which sample.
NEUTRAL: Mapping[str, Any] = {
    "stream": True,
    "return_tokens": True,
    # Headers and one event per batch come while a prompt is read: only so is a closed connection noticed.
    "return_progress": True,
    # What is left of an earlier prompt would change how this one is cut into batches, and so its text.
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
    prompt: str | Sequence[int],
    sampling: SamplingParams,
    *,
    grammar: str | None = None,
    logit_bias: Sequence[tuple[int, float]] = (),
    context_length: int,
) -> dict[str, Any]:
    """A request that leaves nothing to llama.cpp's defaults."""
    greedy = sampling.temperature == 0
    penalties = bool(sampling.presence_penalty or sampling.frequency_penalty)
    samplers = ["penalties"] * penalties + ["temperature"] + ["top_k", "top_p"] * (not greedy)
    seed = RANDOM_SEED if sampling.seed is None else sampling.seed % RANDOM_SEED
    return {
        **NEUTRAL,
        "prompt": prompt,
        "n_predict": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_k": 0 if greedy or sampling.top_k is None else sampling.top_k,
        "top_p": 1.0 if greedy else sampling.top_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "repeat_last_n": context_length if penalties else 0,
        "samplers": samplers,
        "seed": seed,
        "n_probs": 1 if sampling.logprobs else 0,
        "logit_bias": list(logit_bias),
        "grammar": grammar or "",
    }


def token_of(frame: Mapping[str, Any]) -> Token:
    """The token of one frame; where a character took several, all of them as one."""
    text: str = frame["content"]
    logprob = None
    if probabilities := frame.get("completion_probabilities"):
        logprob = min(0.0, max(LOWEST, probabilities[0]["logprob"]))
    return Token(frame["tokens"][-1], text, text.encode(), logprob)


def finish_reason_of(frame: Mapping[str, Any]) -> FinishReason:
    """Why the engine ended; it isn't given stop sequences, so only the model itself stops."""
    return "stop" if frame["stop_type"] == "eos" else "length"


def error_of(status: int, body: bytes) -> LLMEngineError:
    """What a refusal of the engine means for the caller."""
    try:
        error = json.loads(body)["error"]
        status, message = int(error["code"]), str(error["message"])
    except (ValueError, KeyError, TypeError):
        return ServerError(f"llama.cpp answered with status {status}: {body[:200]!r}")
    if status == 400:
        return BadRequestError(f"llama.cpp refused the request: {message}")
    return ServerError(f"llama.cpp failed with status {status}: {message}")
