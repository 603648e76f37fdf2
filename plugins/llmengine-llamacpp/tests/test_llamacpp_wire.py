"""What goes over the wire, and what is made of the answers; no engine."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmengine_core.errors import BadRequestError, LLMEngineError, ServerError
from llmengine_core.types.sampling import SamplingParams
from llmengine_llamacpp.penalties import with_frequency_penalty
from llmengine_llamacpp.wire import RANDOM_SEED, body_of, refuse, token_of

SAMPLING = st.builds(
    SamplingParams,
    max_tokens=st.integers(1, 10_000),
    temperature=st.floats(0, 1),
    top_k=st.none() | st.integers(1, 100),
    top_p=st.floats(0, 1, exclude_min=True),
    presence_penalty=st.floats(0, 2),
    frequency_penalty=st.floats(0, 2),
    stop=st.lists(st.text(min_size=1)).map(tuple),
    logprobs=st.booleans(),
    seed=st.none() | st.integers(),
)

# Everything of llama.cpp's that bends the distribution, and the value at which it doesn't.
DEFAULTS_THAT_SAMPLE = {
    "min_p": 0, "typical_p": 1, "top_n_sigma": -1, "xtc_probability": 0, "dynatemp_range": 0, "mirostat": 0,
    "dry_multiplier": 0, "repeat_penalty": 1, "presence_penalty": 0, "frequency_penalty": 0,
}  # fmt: skip


@given(SAMPLING)
def test_c02_no_default_of_the_engine_leaks_in(sampling: SamplingParams) -> None:
    body = body_of("x", sampling, slot=0)
    assert DEFAULTS_THAT_SAMPLE.items() <= body.items()
    assert body["temperature"] == (max(sampling.temperature, 1e-30) if sampling.temperature else 0)
    assert body["n_predict"] == sampling.max_tokens
    if sampling.temperature:
        assert body["top_k"] == (sampling.top_k or 0)
        assert body["top_p"] == sampling.top_p
        assert {"temperature", "top_k", "top_p"} == set(body["samplers"])
    assert None not in body.values()
    json.dumps(body, allow_nan=False)


@given(SAMPLING)
def test_c06_the_engine_is_given_no_stop_sequences(sampling: SamplingParams) -> None:
    assert body_of("x", sampling, slot=0)["stop"] == []


@given(SAMPLING)
def test_c05_greedy_requests_differ_in_nothing_but_their_length(sampling: SamplingParams) -> None:
    greedy = replace(sampling, temperature=0.0, seed=None, logprobs=False, max_tokens=5)
    assert body_of("x", greedy, slot=1) == body_of("x", SamplingParams(5, 0.0), slot=1)


@given(st.integers())
def test_a_seed_is_never_the_number_that_means_none(seed: int) -> None:
    assert 0 <= body_of("x", SamplingParams(seed=seed), slot=0)["seed"] < RANDOM_SEED


@given(st.lists(st.integers(0, 9)), st.floats(0, 2, exclude_min=True))
def test_what_is_subtracted_for_the_prompt_is_added_back(prompt: list[int], penalty: float) -> None:
    body = with_frequency_penalty(body_of(prompt, SamplingParams(), slot=0), penalty, prompt, 100)
    assert dict(body["logit_bias"]) == {token: prompt.count(token) * penalty for token in prompt}
    assert body["samplers"][0] == "penalties"


@given(st.floats(allow_nan=False))
def test_c07_log_probs_are_finite_and_not_positive(logprob: float) -> None:
    frame = {"content": "é", "tokens": [7], "completion_probabilities": [{"logprob": logprob}]}
    token = token_of(frame, logprob=True)
    assert (token.id, token.text, token.bytes) == (7, "é", "é".encode())
    assert token.logprob is not None
    assert math.isfinite(token.logprob)
    assert token.logprob <= 0


@pytest.mark.parametrize(
    ("status", "answer", "expected", "words"),
    [
        (
            400,
            {"error": {"code": 400, "message": "bad grammar", "type": "x"}},
            BadRequestError,
            "bad grammar",
        ),
        (
            401,
            {"error": {"code": 401, "message": "Invalid API Key", "type": "x"}},
            ServerError,
            "Invalid API",
        ),
        (500, {"error": {"code": 500, "message": "oh", "type": "server_error"}}, ServerError, "500: oh"),
        (503, {"error": {"code": 503, "message": "Loading model", "type": "x"}}, ServerError, "Loading"),
        (502, b"<html>", ServerError, "502"),
        (200, [1, 2], ServerError, "200"),
        (400, {"error": "no"}, ServerError, "400"),
    ],
)
def test_refusals_become_errors_of_ours(
    status: int, answer: Any, expected: type[LLMEngineError], words: str
) -> None:
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    with pytest.raises(expected, match=words) as refusal:
        refuse(status, body)
    assert type(refusal.value) is expected


def test_c04_a_refusal_for_length_has_the_three_numbers() -> None:
    error = {
        "type": "exceed_context_size_error",
        "code": 400,
        "message": "!",
        "n_prompt_tokens": 70,
        "n_ctx": 64,
    }
    with pytest.raises(BadRequestError, match=r"70.*\(5\).*75.*64"):
        refuse(400, json.dumps({"error": error}).encode(), max_tokens=5)
