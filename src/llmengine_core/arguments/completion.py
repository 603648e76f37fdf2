"""The arguments of a completion: C02, C03, C06, C11 and C13, checked once per call.

Every completion passes through here, so the usual types take the shortest way.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf, ulp
from numbers import Integral, Real
from sys import float_info
from typing import Any, TypedDict

from llmengine_core.arguments.checks import (
    boolean,
    headers,
    integer,
    real,
    refuse,
    text,
    texts,
)
from llmengine_core.arguments.client_only import refuse_client_only
from llmengine_core.errors import BadRequestError
from llmengine_core.types.sampling import SamplingParams, StructuredOutput

__all__ = ["COMPLETION_TIMEOUT", "ClientOnly", "CompletionArguments", "parse_completion"]

COMPLETION_TIMEOUT = 300
"""Seconds that a completion may take, unless its caller says otherwise."""
ABOVE_ZERO = ulp(0.0)
LARGEST = float_info.max
LONGEST_WAIT = 1e9  # 31 years: what the system's clocks and locks can still wait
NO_VOCABULARY_IS_LARGER = 2**31 - 1
CLIENT_ONLY = {"skip_special_tokens": (True, None)}

TEMPERATURE = "a number from 0 to 1 (0 is greedy)"
MAX_NEW_TOKENS = "a whole number of at least 1"
PENALTY = "a number from 0 to 2, or None for none"
TOP_K = "a whole number of at least 1, or -1 or None for all tokens"
TOP_P = "a number above 0 and at most 1, or None for 1"
TIMEOUT = "a finite number of seconds above 0"
STOP_SEQUENCES = "a list of non-empty texts, or None"
CHOICES = "a non-empty list of texts"
SCHEMA = "a JSON Schema as a dict that can be written as JSON"


class ClientOnly(TypedDict, total=False):
    """Arguments that only the original client knows; neutral values are accepted, others refused."""

    skip_special_tokens: bool | None


@dataclass(frozen=True, slots=True)
class CompletionArguments:
    """One call's arguments, checked."""

    model: str
    prompt: str
    sampling: SamplingParams
    structured: StructuredOutput | None = None
    timeout: float = float(COMPLETION_TIMEOUT)
    """Seconds for the whole call; above 0."""
    headers: Mapping[str, str] = field(default_factory=dict)


def parse_completion(
    *,
    model: object,
    prompt: object,
    max_new_tokens: object = 20,
    temperature: object = 0.2,
    stop_sequences: object = None,
    return_token_log_probs: object = False,
    presence_penalty: object = None,
    frequency_penalty: object = None,
    top_k: object = None,
    top_p: object = None,
    include_stop_str_in_output: object = None,
    guided_json: object = None,
    guided_regex: object = None,
    guided_choice: object = None,
    guided_grammar: object = None,
    timeout: object = COMPLETION_TIMEOUT,
    request_headers: object = None,
    **client_only: object,
) -> CompletionArguments:
    """Check the arguments of ``Completion.create``.

    Raises ``BadRequestError`` naming the field, ``UnsupportedFeatureError`` for a client-only argument
    that asks for something, ``TypeError`` for a name that nobody knows.
    """
    if client_only:
        refuse_client_only("create", client_only, CLIENT_ONLY)
    sampling = SamplingParams(
        max_tokens=integer("max_new_tokens", max_new_tokens, 1, MAX_NEW_TOKENS),
        temperature=real("temperature", temperature, 0.0, 1.0, TEMPERATURE),
        top_k=None if top_k is None else _top_k(top_k),
        top_p=1.0 if top_p is None else real("top_p", top_p, ABOVE_ZERO, 1.0, TOP_P),
        presence_penalty=_penalty("presence_penalty", presence_penalty),
        frequency_penalty=_penalty("frequency_penalty", frequency_penalty),
        stop=() if stop_sequences is None else texts("stop_sequences", stop_sequences, STOP_SEQUENCES),
        include_stop=_flag("include_stop_str_in_output", include_stop_str_in_output),
        logprobs=_flag("return_token_log_probs", return_token_log_probs),
    )
    return CompletionArguments(
        text("model", model, "the name of a model"),
        text("prompt", prompt),
        sampling,
        _structured(guided_json, guided_regex, guided_choice, guided_grammar),
        min(real("timeout", timeout, ABOVE_ZERO, LARGEST, TIMEOUT), LONGEST_WAIT),
        headers("request_headers", request_headers),
    )


def _flag(name: str, value: object) -> bool:
    return False if value is None or value is False else boolean(name, value)


def _penalty(name: str, value: object) -> float:
    return 0.0 if value is None else real(name, value, 0.0, 2.0, PENALTY)


def _top_k(value: object) -> int | None:
    number = integer("top_k", value, -1, TOP_K, high=inf)
    if number == 0:
        refuse("top_k", value, TOP_K)
    return None if number == -1 or number > NO_VOCABULARY_IS_LARGER else number


def _structured(schema: object, pattern: object, choices: object, grammar: object) -> StructuredOutput | None:
    if schema is None and pattern is None and choices is None and grammar is None:
        return None
    named = {
        "guided_json": schema,
        "guided_regex": pattern,
        "guided_choice": choices,
        "guided_grammar": grammar,
    }
    given = [name for name, value in named.items() if value is not None]
    if len(given) > 1:
        raise BadRequestError(
            f"{' and '.join(given)} are given; a completion takes at most one guided_* argument"
        )
    if schema is not None:
        return StructuredOutput("json", _schema_text(schema))
    if pattern is not None:
        return StructuredOutput("regex", text("guided_regex", pattern, "a regular expression", empty=True))
    if grammar is not None:
        return StructuredOutput("grammar", text("guided_grammar", grammar, "a Lark or GBNF grammar"))
    found = texts("guided_choice", choices, CHOICES, empty=True)
    return StructuredOutput("choice", found or refuse("guided_choice", choices, CHOICES))


def _schema_text(schema: object) -> str:
    # Compact, and in the caller's order: properties are generated in the order they are written in.
    if not isinstance(schema, dict):
        refuse("guided_json", schema, SCHEMA)
    try:
        written = json.dumps(
            schema, allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=_plain_number
        )
        _refuse_other_keys(schema)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadRequestError(f"guided_json can't be written as JSON: {error}; it must be {SCHEMA}") from None
    return text("guided_json", written)


def _plain_number(value: object) -> Any:
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    raise TypeError(f"it holds a {type(value).__name__}")


def _refuse_other_keys(schema: dict[Any, Any]) -> None:
    # json.dumps would write the key 1 as "1", and could write two keys alike.
    waiting: list[object] = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            for key in node:
                if not isinstance(key, str):
                    raise TypeError(f"the key {key!r} is no text")
            waiting.extend(node.values())
        elif isinstance(node, (list, tuple)):
            waiting.extend(node)
