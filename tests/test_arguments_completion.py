"""What Completion.create accepts and refuses before any work."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmengine_core.arguments.checks import shown
from llmengine_core.arguments.completion import COMPLETION_TIMEOUT, CompletionArguments, parse_completion
from llmengine_core.errors import BadRequestError, UnsupportedFeatureError
from llmengine_core.types.sampling import SamplingParams, StructuredOutput

FIELDS = [
    "model",
    "prompt",
    "max_new_tokens",
    "temperature",
    "stop_sequences",
    "return_token_log_probs",
    "presence_penalty",
    "frequency_penalty",
    "top_k",
    "top_p",
    "include_stop_str_in_output",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "timeout",
    "request_headers",
    "skip_special_tokens",
]


def parse(**given_: Any) -> CompletionArguments:
    return parse_completion(**{"model": "smollm2", "prompt": "Hello"} | given_)


class Hostile:
    """Looks like a number, and fails whatever is done with it."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __index__(self) -> int:
        raise RuntimeError("no index")

    def __float__(self) -> float:
        raise RuntimeError("no float")

    def __bool__(self) -> bool:
        raise RuntimeError("no bool")


class Colour(str, Enum):  # noqa: UP042 - such enums are what the facade has
    RED = "red"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
numpy_scalars = st.one_of(
    st.integers(-(2**31), 2**31 - 1).map(np.int32),
    st.floats(width=32).map(np.float32),
    st.floats().map(np.float64),
    st.booleans().map(np.bool_),
    st.text().map(np.str_),
)
junk = st.one_of(
    json_values,
    numpy_scalars,
    st.binary(),
    st.complex_numbers(),
    st.decimals(),
    st.fractions(),
    st.text(st.characters()),
    st.dictionaries(json_values.map(shown) | st.integers() | st.binary(), json_values, max_size=3),
    st.lists(st.text(st.characters()) | json_values | st.binary(), max_size=3),
    st.sampled_from(
        [
            Hostile(),
            object(),
            10**5000,
            -(10**5000),
            Fraction(10**400),
            float("nan"),
            math.inf,
            "\ud800",
            ["a" * 10**6],
            range(3),
            {1},
            Ellipsis,
            int,
            print,
            np.array(5),
            np.array([1.0, 2.0]),
            np.longdouble("1e400"),
            np.datetime64("2026-01-01"),
        ]
    ),
)


@given(st.sampled_from(FIELDS), junk)
def test_c02_junk_in_any_field_is_the_callers_error_or_accepted(field: str, value: object) -> None:
    with suppress(BadRequestError):
        parse(**{field: value})


in_range = st.fixed_dictionaries(
    {},
    optional={
        "max_new_tokens": st.integers(1, 2**63 - 1),
        "temperature": st.floats(0, 1) | st.integers(0, 1),
        "stop_sequences": st.none()
        | st.lists(st.text(min_size=1))
        | st.lists(st.text(min_size=1)).map(tuple),
        "return_token_log_probs": st.none() | st.booleans(),
        "presence_penalty": st.none() | st.floats(0, 2) | st.integers(0, 2),
        "frequency_penalty": st.none() | st.floats(0, 2) | st.integers(0, 2),
        "top_k": st.none() | st.just(-1) | st.integers(1, 10**30),
        "top_p": st.none() | st.floats(0, 1, exclude_min=True) | st.just(1),
        "include_stop_str_in_output": st.none() | st.booleans(),
        "timeout": st.floats(0, exclude_min=True, allow_infinity=False) | st.integers(1, 10**300),
        "request_headers": st.none() | st.dictionaries(st.from_regex(r"\A[a-zA-Z-]+\Z"), st.just("a value")),
        "skip_special_tokens": st.none() | st.just(True),
    },
)


@given(in_range, st.text(min_size=1))
def test_c02_everything_in_range_is_accepted_as_it_is(given_: dict[str, Any], prompt: str) -> None:
    found = parse(prompt=prompt, **given_)
    sampling = found.sampling
    assert found.prompt == prompt
    assert sampling.max_tokens == given_.get("max_new_tokens", 20)
    assert sampling.temperature == given_.get("temperature", 0.2)
    assert sampling.top_p == (given_.get("top_p") or 1.0)
    assert sampling.presence_penalty == (given_.get("presence_penalty") or 0.0)
    assert sampling.frequency_penalty == (given_.get("frequency_penalty") or 0.0)
    assert sampling.stop == tuple(given_.get("stop_sequences") or ())
    assert sampling.logprobs is bool(given_.get("return_token_log_probs"))
    assert sampling.include_stop is bool(given_.get("include_stop_str_in_output"))
    assert found.timeout == min(given_.get("timeout", COMPLETION_TIMEOUT), 1e9)
    assert found.headers == (given_.get("request_headers") or {})


def test_c02_the_defaults_are_neutral() -> None:
    assert parse() == CompletionArguments("smollm2", "Hello", SamplingParams(), None, 300.0, {})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", 1.0000001),
        ("temperature", float("nan")),
        ("temperature", None),
        ("temperature", True),
        ("temperature", "0.2"),
        ("temperature", Fraction(10**400)),
        ("max_new_tokens", 0),
        ("max_new_tokens", -1),
        ("max_new_tokens", 2.5),
        ("max_new_tokens", 20.0),
        ("max_new_tokens", True),
        ("max_new_tokens", "20"),
        ("max_new_tokens", np.float64(20)),
        ("max_new_tokens", np.bool_(True)),
        ("max_new_tokens", None),
        ("max_new_tokens", 2**63),
        ("max_new_tokens", 10**5000),
        ("presence_penalty", -0.01),
        ("presence_penalty", 2.01),
        ("frequency_penalty", -1),
        ("frequency_penalty", math.inf),
        ("top_k", 0),
        ("top_k", -2),
        ("top_k", 1.5),
        ("top_k", False),
        ("top_p", 0),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_p", -math.inf),
        ("prompt", ""),
        ("prompt", b"bytes"),
        ("prompt", None),
        ("prompt", "a\ud800b"),
        ("model", ""),
        ("model", None),
        ("stop_sequences", "stop"),
        ("stop_sequences", ["\udfff"]),
        ("stop_sequences", [None]),
        ("return_token_log_probs", 1),
        ("return_token_log_probs", "True"),
        ("include_stop_str_in_output", 0),
        ("request_headers", [("a", "b")]),
        ("request_headers", {"a": 1}),
        ("request_headers", {1: "a"}),
        ("request_headers", {"a b": "c"}),
        ("request_headers", {"a": "b\r\nx: y"}),
        ("guided_regex", 5),
        ("guided_grammar", ""),
    ],
    ids=shown,
)
def test_c02_out_of_range_names_the_field(field: str, value: object) -> None:
    with pytest.raises(BadRequestError, match=field) as caught:
        parse(**{field: value})
    assert len(caught.value.message) < 300


def test_c02_an_error_says_what_was_seen_and_what_is_allowed() -> None:
    with pytest.raises(ValueError, match=r"^temperature is 1\.5; it must be a number from 0 to 1") as caught:
        parse(temperature=1.5)
    assert isinstance(caught.value, BadRequestError)
    assert caught.value.status_code == 400


@given(junk)
def test_a_shown_value_is_short_and_never_fails(value: object) -> None:
    assert 0 < len(shown(value)) <= 61
    assert shown(Hostile()) == "<Hostile>"


@pytest.mark.parametrize("number", [np.int8, np.int64, np.uint32])
def test_c02_numpy_integers_are_whole_numbers(number: Callable[[int], Any]) -> None:
    found = parse(max_new_tokens=number(7), top_k=number(5), temperature=number(1), timeout=number(3))
    assert (found.sampling.max_tokens, found.sampling.top_k) == (7, 5)
    assert type(found.sampling.max_tokens) is int
    assert type(found.sampling.top_k) is int
    assert type(found.timeout) is float


@pytest.mark.parametrize("number", [np.float16, np.float32, np.float64, np.longdouble])
def test_c02_numpy_floats_are_numbers(number: Callable[[float], Any]) -> None:
    found = parse(temperature=number(0.5), top_p=number(0.25), return_token_log_probs=np.bool_(True))
    assert (found.sampling.temperature, found.sampling.top_p, found.sampling.logprobs) == (0.5, 0.25, True)
    assert type(found.sampling.temperature) is float
    assert found.sampling.logprobs is True


def test_c02_minus_zero_is_zero() -> None:
    assert math.copysign(1, parse(temperature=-0.0).sampling.temperature) == 1


def test_c02_more_than_any_vocabulary_is_all_of_it() -> None:
    assert parse(top_k=2**31).sampling.top_k is None
    assert parse(top_k=2**31 - 1).sampling.top_k == 2**31 - 1


def test_c02_texts_become_plain_strings() -> None:
    found = parse(prompt=np.str_("ü"), model=Colour.RED)
    assert (type(found.prompt), found.prompt) == (str, "ü")
    assert (type(found.model), found.model) == (str, "red")


GUIDED = {
    "guided_json": {"type": "object"},
    "guided_regex": "",
    "guided_choice": ["a", ""],
    "guided_grammar": 'start: "John"',
}


@given(st.sets(st.sampled_from(sorted(GUIDED)), min_size=2))
def test_c03_at_most_one_constraint(names: set[str]) -> None:
    with pytest.raises(BadRequestError, match="at most one") as caught:
        parse(**{name: GUIDED[name] for name in names})
    assert all(name in caught.value.message for name in names)


@pytest.mark.parametrize(
    ("name", "kind", "value"),
    [
        ("guided_json", "json", '{"type":"object"}'),
        ("guided_regex", "regex", ""),
        ("guided_choice", "choice", ("a", "")),
        ("guided_grammar", "grammar", 'start: "John"'),
    ],
)
def test_c03_one_constraint_is_kept(name: str, kind: Any, value: Any) -> None:
    assert parse(**{name: GUIDED[name]}).structured == StructuredOutput(kind, value)


@pytest.mark.parametrize("choices", [[], (), "ab", {"a": 1}, ["a", 1], ["a", "\ud800"], 5])
def test_c03_choices_are_a_non_empty_list_of_texts(choices: object) -> None:
    with pytest.raises(BadRequestError, match="guided_choice"):
        parse(guided_choice=choices)


finite_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), finite_json, max_size=4))
def test_c03_a_schema_is_stored_as_json_in_its_own_order(schema: dict[str, Any]) -> None:
    structured = parse(guided_json=schema).structured
    assert structured is not None
    written = structured.value
    assert isinstance(written, str)
    assert json.loads(written) == schema
    assert list(json.loads(written)) == list(schema)
    assert written == json.dumps(json.loads(written), ensure_ascii=False, separators=(",", ":"))


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


circle: dict[str, Any] = {}
circle["circle"] = circle


@pytest.mark.parametrize(
    "schema",
    [
        '{"type": "object"}',
        [],
        True,
        {"a": float("nan")},
        {"a": object()},
        {"a": b""},
        {"a": {1}},
        {1: "a"},
        {"a": [{None: 1}]},
        {"a": "\ud800"},
        {"a": 10**5000},
        circle,
        deep(100_000),
    ],
    ids=lambda schema: shown(schema)[:20],
)
def test_c03_what_json_cannot_write_is_refused(schema: object) -> None:
    with pytest.raises(BadRequestError, match="guided_json"):
        parse(guided_json=schema)


def test_c03_numpy_numbers_in_a_schema_are_numbers() -> None:
    structured = parse(guided_json={"maxLength": np.int64(5), "maximum": np.float32(0.5)}).structured
    assert structured == StructuredOutput("json", '{"maxLength":5,"maximum":0.5}')


@pytest.mark.parametrize("stops", [[""], ["a", ""], ("",)])
def test_c06_empty_stop_sequences_are_refused(stops: object) -> None:
    with pytest.raises(BadRequestError, match=r"stop_sequences\[\d\]"):
        parse(stop_sequences=stops)


def test_c06_any_number_of_stop_sequences_is_taken() -> None:
    stops = [str(number) for number in range(1000)]
    assert parse(stop_sequences=stops).sampling.stop == tuple(stops)


@pytest.mark.parametrize("timeout", [0, -1, 0.0, math.inf, math.nan, None, "300", True, 10**400])
def test_c11_a_timeout_is_finite_and_above_zero(timeout: object) -> None:
    with pytest.raises(BadRequestError, match="timeout"):
        parse(timeout=timeout)


@pytest.mark.parametrize("value", [True, None])
def test_c13_neutral_values_of_the_original_clients_arguments_are_accepted(value: object) -> None:
    assert parse(skip_special_tokens=value) == parse()


@pytest.mark.parametrize("value", [False, 1, "yes", np.bool_(True)])
def test_c13_other_values_of_the_original_clients_arguments_are_refused(value: object) -> None:
    with pytest.raises(UnsupportedFeatureError, match="skip_special_tokens"):
        parse(skip_special_tokens=value)


def test_c13_a_name_that_nobody_knows_is_a_type_error() -> None:
    with pytest.raises(TypeError, match=r"create\(\) got an unexpected keyword argument 'max_tokens'"):
        parse(max_tokens=5)
