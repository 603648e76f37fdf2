"""What is refused before anything runs (C04, C13)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmengine_core.errors import BadRequestError, UnsupportedFeatureError
from llmengine_core.gate import check_capabilities, check_context, check_length, surely_fits
from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.generation import Text
from llmengine_core.types.sampling import SamplingParams, StructuredOutput

EVERYTHING = Capabilities(
    logprobs=True,
    presence_penalty=True,
    frequency_penalty=True,
    top_k=True,
    top_p=True,
    seed=True,
    structured=frozenset({"json", "regex", "choice", "grammar"}),
)
ASKED = {
    "return_token_log_probs": (SamplingParams(logprobs=True), None),
    "presence_penalty": (SamplingParams(presence_penalty=0.1), None),
    "frequency_penalty": (SamplingParams(frequency_penalty=2), None),
    "top_k": (SamplingParams(top_k=5), None),
    "top_p": (SamplingParams(top_p=0.5), None),
    "seed": (SamplingParams(seed=1), None),
    "guided_json": (SamplingParams(), StructuredOutput("json", "{}")),
    "guided_choice": (SamplingParams(), StructuredOutput("choice", ("a",))),
}


def gate(sampling: SamplingParams, structured: StructuredOutput | None, declared: Capabilities) -> None:
    check_capabilities(
        Text("x"),
        sampling,
        structured,
        None,
        declared=declared,
        backend="small",
        others=lambda: [("small", declared), ("big", EVERYTHING)],
    )


@pytest.mark.parametrize("what", ASKED)
def test_c13_what_is_not_declared_is_refused_and_who_could_is_named(what: str) -> None:
    with pytest.raises(UnsupportedFeatureError, match=f"'small' does not support {what}; big could"):
        gate(*ASKED[what], Capabilities())
    gate(*ASKED[what], EVERYTHING)


@pytest.mark.parametrize("what", [name for name in ASKED if not name.startswith("guided_")])
def test_c13_what_does_not_go_with_a_constraint_is_refused_and_who_could_is_named(what: str) -> None:
    excluded = "logprobs" if what == "return_token_log_probs" else what
    apart = replace(EVERYTHING, structured_excludes=frozenset({excluded}))
    sampling, constraint = ASKED[what][0], StructuredOutput("regex", "a")
    with pytest.raises(
        UnsupportedFeatureError,
        match=f"'small' does not support {what} together with guided_regex; big could",
    ):
        gate(sampling, constraint, apart)
    gate(sampling, None, apart)
    gate(SamplingParams(), constraint, apart)
    gate(sampling, constraint, EVERYTHING)


@given(*[st.booleans()] * 4, st.sampled_from([frozenset(), frozenset({"presence_penalty"})]))
def test_what_excludes_less_is_no_narrowing(
    penalty: bool, logprobs: bool, constraints: bool, both: bool, excludes: frozenset[str]
) -> None:
    declared = replace(EVERYTHING, structured_excludes=excludes)
    narrow = Capabilities(
        presence_penalty=penalty,
        logprobs=logprobs,
        structured=frozenset({"json"}) if constraints else frozenset(),
        structured_excludes=frozenset() if both else frozenset({"presence_penalty"}),
    )
    assert narrow.within(declared) == (not (penalty and constraints and both and excludes))
    assert declared.within(declared)


@given(st.sampled_from([None, 0.0]), st.floats(0, 1))
def test_c02_neutral_values_are_never_refused(penalty: float | None, temperature: float) -> None:
    neutral = SamplingParams(
        temperature=temperature, presence_penalty=penalty or 0.0, frequency_penalty=penalty or 0.0
    )
    gate(neutral, None, Capabilities())


def test_c05_what_has_no_effect_on_greedy_is_not_refused() -> None:
    gate(SamplingParams(temperature=0, top_k=3, top_p=0.5), None, Capabilities())


@given(st.text(), st.integers(1, 50), st.integers(0, 3), st.integers(1, 200))
def test_c04_a_bound_that_proves_the_fit_is_never_wrong(text: str, most: int, over: int, length: int) -> None:
    if surely_fits(Text(text), most, overhead=over, context_length=length):
        assert len(text.encode()) + over + most <= length


@given(st.text(), st.integers(1, 50), st.integers(1, 30), st.integers(1, 200), st.integers(0, 50))
def test_c04_only_what_counting_would_refuse_is_refused_for_its_length(
    text: str, most: int, longest: int, length: int, more: int
) -> None:
    least = -(-len(text.encode()) // longest)

    def check() -> None:
        check_length(Text(text), most, longest_token=longest, context_length=length)

    if least + most <= length:
        check()
        return
    with pytest.raises(BadRequestError) as caught:
        check()
    for said in (f"(at least {least} tokens)", f"({most})", f"({length})"):
        assert said in str(caught.value)
    with pytest.raises(BadRequestError):
        check_context(least + more, most, context_length=length)


def test_without_a_longest_token_no_length_is_refused() -> None:
    check_length(Text("a" * 1000), 1, longest_token=None, context_length=10)


@given(st.integers(0, 100), st.integers(1, 100), st.integers(1, 150))
def test_c04_what_does_not_fit_is_refused_with_the_three_numbers(prompt: int, most: int, length: int) -> None:
    if prompt + most <= length:
        check_context(prompt, most, context_length=length)
    else:
        with pytest.raises(BadRequestError) as caught:
            check_context(prompt, most, context_length=length)
        assert all(f"({n}" in str(caught.value) for n in (prompt, most, length))
