from __future__ import annotations

import pytest
from byte_matchers import EmbeddedMatcher, accepts
from hypothesis import given
from hypothesis import strategies as st

from llmengine_core.errors import BadRequestError
from llmengine_core.testing.checkers import begun
from llmengine_core.types.sampling import StructuredOutput
from llmengine_llguidance.decoder import LLGuidanceDecoder

TRICKY = st.sampled_from(
    [
        "",
        " a",
        "a ",
        "/",
        '"',
        '\\"',
        "\\",
        "\n",
        "\0",
        "\x7f",
        "\u2028",
        "é",
        "😀",
        "%llguidance",
        "# a",
        "<|x|>",
        "'",
        "i",
    ]
)
CHOICES = st.lists(st.text(max_size=6) | TRICKY | st.text(alphabet="ab", max_size=4), min_size=1, max_size=6)


@given(choices=CHOICES, other=st.text(max_size=6) | TRICKY, data=st.data())
def test_c03_the_text_is_one_of_the_choices(
    decoder: LLGuidanceDecoder, choices: list[str], other: str, data: st.DataObject
) -> None:
    constraint = StructuredOutput("choice", tuple(choices))
    engine = decoder.translate(constraint, "llguidance").text
    chosen = data.draw(st.sampled_from(choices))
    cut = chosen[: data.draw(st.integers(0, len(chosen)))]
    for text in (chosen, cut, other, chosen + other):
        is_start = begun(constraint, text)
        assert decoder.verify(constraint, text, complete=True) == (text in choices)
        assert decoder.verify(constraint, text, complete=False) == is_start
        assert accepts(EmbeddedMatcher(engine), text) == (is_start, text in choices)


def test_c03_a_choice_may_begin_another(decoder: LLGuidanceDecoder) -> None:
    constraint = StructuredOutput("choice", ("yes", "yes, please", "yes"))
    assert decoder.verify(constraint, "yes", complete=True)
    assert decoder.verify(constraint, "yes, please", complete=True)
    assert not decoder.verify(constraint, "yes,", complete=True)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ((), "guided_choice has 0 choices; 1 to 10,000 are taken"),
        (tuple(map(str, range(10_001))), "guided_choice has 10,001 choices"),
        (("a" * 300_000,), "guided_choice has 300,000 characters; at most 262,144"),
        (("a\ud800",), "guided_choice holds a lone surrogate at character 2"),
    ],
)
def test_c03_choices_out_of_bounds_are_refused(
    decoder: LLGuidanceDecoder, choices: tuple[str, ...], message: str
) -> None:
    with pytest.raises(BadRequestError, match=message):
        decoder.check(StructuredOutput("choice", choices))


def test_c03_ten_thousand_choices_are_one_reading_for_the_engine(decoder: LLGuidanceDecoder) -> None:
    # As alternatives of a rule they would pass the 2,000 readings that llama.cpp follows before it gives up.
    constraint = StructuredOutput("choice", tuple(f"choice {n}" for n in range(10_000)))
    engine = EmbeddedMatcher(decoder.translate(constraint, "llguidance").text)
    assert accepts(engine, "choice 9999") == (True, True)
