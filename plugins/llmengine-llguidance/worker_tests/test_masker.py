"""Masks over a real vocabulary, judged by programs that know nothing of llguidance."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import jsonschema
import lark
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st
from masked import END, VOCABULARY, Row, Walker

from llmengine_core.types.sampling import StructuredOutput
from llmengine_core.worker.contract import Refused
from llmengine_llguidance import limits
from llmengine_llguidance.decoder import LLGuidanceDecoder

SEEDS = st.integers(0, 2**32)
CHOICES = st.lists(st.text("ab\"\\ é😀<|>_\n", max_size=8) | st.sampled_from(["<|im_end|>", "yes", "yes, please"]),
                   min_size=1, max_size=5)  # fmt: skip
ATOMS = st.sampled_from(["a", "é", "😀", r"\d", "[^a]", "[a-d ]", r"\w", r"\.", '"', "the ", "<|im_end|>"])
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.builds("{}{}".format, inner, inner),
        st.builds("(?:{}|{})".format, inner, inner),
        st.builds("({}){}".format, inner, st.sampled_from(["*", "+", "?", "{2,3}"])),
    ),
    max_leaves=5,
)
SCHEMAS: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from(
        [
            {"type": "boolean"},
            {"type": "integer", "minimum": -7, "maximum": 120},
            {"type": "string", "maxLength": 6},
            {"type": "string", "pattern": "^[A-Z]{2}-\\d+$", "maxLength": 9},
            {"type": "string", "format": "date"},
            {"enum": ["<|im_end|>", 'a"b', None, {"c": [1.5]}]},
            {"type": "number", "exclusiveMinimum": 0, "maximum": 1.5},
        ]
    ),
    lambda inner: st.one_of(
        st.builds(lambda item: {"type": "array", "items": item, "minItems": 1, "maxItems": 3}, inner),
        st.builds(
            lambda members: {
                "type": "object",
                "properties": members,
                "required": sorted(members)[:2],
                "additionalProperties": False,
            },
            st.dictionaries(st.sampled_from(["a", "b c", "é", 'q"']), inner, min_size=1, max_size=3),
        ),
        st.builds(lambda one, other: {"anyOf": [one, other]}, inner, inner),
    ),
    max_leaves=5,
)


def translated(decoder: LLGuidanceDecoder, constraint: StructuredOutput) -> str:
    return decoder.translate(constraint, "llguidance").text


def characters(octets: bytes) -> str:
    """The characters that are complete."""
    return octets.decode(errors="ignore")


@given(choices=CHOICES, seed=SEEDS)
def test_c03_one_of_the_choices_is_made(
    walker: Walker, decoder: LLGuidanceDecoder, choices: list[str], seed: int
) -> None:
    whole = {choice.encode() for choice in choices}
    grammar = translated(decoder, StructuredOutput("choice", tuple(choices)))
    for text, row in walker.walk(grammar, random.Random(seed)):
        assert any(choice.startswith(text) for choice in whole)
        assert (END in row) == (text in whole)
        assert (row == 1 << END) == (not any(choice != text and choice.startswith(text) for choice in whole))
    assert text in whole


@given(pattern=PATTERNS, seed=SEEDS)
def test_c03_a_pattern_is_matched(
    walker: Walker, decoder: LLGuidanceDecoder, pattern: str, seed: int
) -> None:
    oracle = regex.compile(pattern)
    grammar = translated(decoder, StructuredOutput("regex", pattern))
    for text, row in walker.walk(grammar, random.Random(seed), most=30):
        written = characters(text)
        assert oracle.fullmatch(written, partial=True)
        whole = len(written.encode()) == len(text) and oracle.fullmatch(written) is not None
        assert (END in row) == whole


@given(schema=SCHEMAS, seed=SEEDS)
def test_c03_a_schema_is_obeyed(walker: Walker, decoder: LLGuidanceDecoder, schema: Any, seed: int) -> None:
    constraint = StructuredOutput("json", json.dumps(schema))
    steps = list(walker.walk(translated(decoder, constraint), random.Random(seed), most=200))
    for text, _ in steps:
        assert decoder.verify(constraint, characters(text), complete=False)
    text, row = steps[-1]
    assert END in row
    value = json.loads(text)
    jsonschema.validate(value, schema, format_checker=jsonschema.FormatChecker())
    assert decoder.verify(constraint, text.decode(), complete=True)


ARITHMETIC = """start: sum
sum: product (("+" | "-") product)*
product: atom ("*" atom)*
atom: NUMBER | "(" sum ")"
NUMBER: /[0-9]{1,3}/
"""
GBNF = """root ::= "(" item ("," " "? item){0,3} ")"
item ::= [a-z]+ | root
"""
LARK_OF_GBNF = 'start: "(" item ("," " "? item)~0..3 ")"\nitem: /[a-z]+/ | start\n'


@given(seed=SEEDS)
@pytest.mark.parametrize(("grammar", "oracle"), [(ARITHMETIC, ARITHMETIC), (GBNF, LARK_OF_GBNF)])
def test_c03_a_grammar_is_followed(
    walker: Walker, decoder: LLGuidanceDecoder, grammar: str, oracle: str, seed: int
) -> None:
    constraint = StructuredOutput("grammar", grammar)
    parser = lark.Lark(oracle, parser="lalr")
    for text, row in walker.walk(translated(decoder, constraint), random.Random(seed), most=40):
        if END in row:
            parser.parse(text.decode())  # raises where it isn't in the language
        else:
            with pytest.raises(lark.exceptions.LarkError):
                parser.parse(text.decode())


@given(choices=CHOICES, seed=SEEDS)
def test_c03_no_choice_is_out_of_reach(
    walker: Walker, decoder: LLGuidanceDecoder, choices: list[str], seed: int
) -> None:
    grammar = translated(decoder, StructuredOutput("choice", tuple(choices)))
    assert all(walker.spells(grammar, choice.encode(), random.Random(seed)) for choice in choices)


@given(pattern=PATTERNS, data=st.data(), seed=SEEDS)
def test_c03_no_match_is_out_of_reach(
    walker: Walker, decoder: LLGuidanceDecoder, pattern: str, data: st.DataObject, seed: int
) -> None:
    letters = st.sampled_from('abd 1é😀."x<|im_end>the')
    text = data.draw(st.from_regex(re.compile(pattern), fullmatch=True, alphabet=letters))
    grammar = translated(decoder, StructuredOutput("regex", pattern))
    assert walker.spells(grammar, text.encode(), random.Random(seed))


@given(patterns=st.lists(PATTERNS, min_size=1, max_size=6), seed=SEEDS)
def test_a_batch_is_masked_as_each_alone(
    walker: Walker, decoder: LLGuidanceDecoder, patterns: list[str], seed: int
) -> None:
    choices = random.Random(seed)
    grammars = [translated(decoder, StructuredOutput("regex", pattern)) for pattern in patterns]
    together = [walker.masker.constraint(grammar) for grammar in grammars]
    apart = [walker.masker.constraint(grammar) for grammar in grammars]
    for _ in range(6):
        order = choices.sample(range(len(together)), len(together))
        rows = walker.rows([together[place] for place in order])
        assert rows == [walker.row(apart[place]) for place in order]
        for place, row in zip(order, rows, strict=True):
            token = END if row == 1 << END else row.draw(choices, never=END)
            together[place].accept(token)
            apart[place].accept(token)


@pytest.mark.parametrize("text", ["<|im_end|>", "<|im_start|>", "a<|im_end|>b", "<|endoftext|>"])
def test_c03_a_special_token_is_never_its_spelling(
    walker: Walker, decoder: LLGuidanceDecoder, text: str
) -> None:
    grammar = translated(decoder, StructuredOutput("choice", (text,)))
    *_, (written, row) = walker.walk(grammar, random.Random(1))
    assert written == text.encode()
    assert row == 1 << END


def test_what_does_not_compile_is_refused(walker: Walker) -> None:
    with pytest.raises(Refused, match="unknown name"):
        walker.masker.constraint("%llguidance {}\nstart: nowhere")


def test_what_has_no_first_mask_is_refused(walker: Walker, decoder: LLGuidanceDecoder) -> None:
    """It compiles; only the first look at the vocabulary shows that it is too much."""
    grammar = translated(decoder, StructuredOutput("regex", r"[\w\W]{1,300}" * 60))
    with pytest.raises(Refused, match="too many"):
        walker.masker.constraint(grammar)


def test_a_text_that_is_too_much_work_must_end(
    walker: Walker, decoder: LLGuidanceDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A grammar with more readings at each letter, on a budget that it uses up soon."""
    monkeypatch.setattr(limits, "JUDGING_SECONDS", 0.05)
    constraint = StructuredOutput("grammar", 'start: s "!"\ns: s s s | s s | "a" |')
    steps = list(walker.walk(translated(decoder, constraint), random.Random(1), most=100_000))
    text, row = steps[-1]
    assert row == 1 << END
    assert not decoder.verify(constraint, text.decode(), complete=True)


def test_a_mask_is_never_empty_even_for_a_token_that_it_did_not_allow(
    walker: Walker, decoder: LLGuidanceDecoder
) -> None:
    constraint = walker.masker.constraint(translated(decoder, StructuredOutput("choice", ("yes",))))
    constraint.accept(walker.tokens[b"no"])
    assert walker.row(constraint) == 1 << END


@pytest.mark.parametrize("shape", [(1, 1535), (2, 1536), (1, 1537)])
def test_masks_of_another_shape_are_not_written(walker: Walker, shape: tuple[int, int]) -> None:
    constraint = walker.masker.constraint('%llguidance {}\nstart: "a"')
    memory = bytearray(4 * shape[0] * shape[1])
    with pytest.raises(ValueError, match="shape"):
        walker.masker.fill([constraint], memoryview(memory).cast("I", shape))
    assert not any(memory)


def test_nobody_to_mask_is_no_work(walker: Walker) -> None:
    walker.masker.fill([], memoryview(bytearray(4 * 1536)).cast("I", (1, 1536))[:0])


def test_rows_are_as_long_as_the_vocabulary(walker: Walker) -> None:
    row = walker.row(walker.masker.constraint("%llguidance {}\nstart: /(?s:.*)/"))
    assert isinstance(row, Row)
    assert VOCABULARY - 2_000 < row.bit_count() < VOCABULARY
    assert END in row
