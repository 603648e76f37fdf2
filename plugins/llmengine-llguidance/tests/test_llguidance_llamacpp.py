"""Translations as llama.cpp enforces them. It drops what it can't compile or follow, and goes on without."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest
from llama_engine import LlamaEngine

from llmengine_core.types.sampling import StructuredOutput
from llmengine_llguidance.decoder import LLGuidanceDecoder

pytestmark = pytest.mark.engine


def generated(
    llama: LlamaEngine,
    decoder: LLGuidanceDecoder,
    constraint: StructuredOutput,
    *,
    max_tokens: int = 60,
    seed: int = 1,
) -> tuple[str, bool]:
    """The text, verified, and whether it ended by itself."""
    decoder.check(constraint)
    answer = llama.complete(
        decoder.translate(constraint, "llguidance").text, max_tokens=max_tokens, seed=seed
    )
    assert decoder.verify(constraint, answer.text, complete=answer.ended), answer
    return answer.text, answer.ended


@pytest.mark.parametrize(
    "grammar",
    ["start: nowhere", 'start: "yes"~1..2 "no"', "start: " + "|".join(f'"w{n}"' for n in range(3_000))],
)
def test_llama_cpp_goes_on_without_a_grammar_that_it_cannot_follow(llama: LlamaEngine, grammar: str) -> None:
    """Why nothing unchecked may reach it; and a proof that the tests below could fail."""
    text = llama.complete(f"%llguidance {{}}\n{grammar}", max_tokens=12).text
    assert not re.fullmatch("(yes){1,2}no|w[0-9]+", text)


def test_a_special_token_in_place_of_its_spelling_is_noticed(
    llama: LlamaEngine, decoder: LLGuidanceDecoder
) -> None:
    """llama.cpp turns forced text into tokens, and reads special ones in it; they leave no text."""
    constraint = StructuredOutput("choice", ("<|im_end|>",))
    answer = llama.complete(decoder.translate(constraint, "llguidance").text)
    assert decoder.verify(constraint, answer.text, complete=True) == (answer.text == "<|im_end|>")


CHOICES = [
    "yes",
    "yes please",
    'a "b"',
    "x\ny",
    "\\",
    "é😀",
    "/",
    "  two blanks",
    "\u2028",
    "it's",
    "%llguidance {}",
]


@pytest.mark.parametrize("choice", CHOICES)
def test_c03_a_choice_is_made(llama: LlamaEngine, decoder: LLGuidanceDecoder, choice: str) -> None:
    assert generated(llama, decoder, StructuredOutput("choice", (choice,))) == (choice, True)


def test_c03_one_of_many_choices_is_made(llama: LlamaEngine, decoder: LLGuidanceDecoder) -> None:
    few, many = tuple(CHOICES), tuple(f"number {n}" for n in range(10_000))
    for seed in range(3):
        assert generated(llama, decoder, StructuredOutput("choice", few), seed=seed)[0] in few
    assert generated(llama, decoder, StructuredOutput("choice", many))[0] in many
    assert generated(llama, decoder, StructuredOutput("choice", ("",))) == ("", True)


@pytest.mark.parametrize(
    "pattern",
    [
        r"[0-9]{3}-[0-9]{4}",
        r'/[a-z]{2,5}/"\\n\?\.',
        "é+😀\n[\"'/]{3}",
        r"(?i)hello|bye",
        r"\d{2}\s\w{3}\W",
        r"[^a-z\n]{4}",
        r"(ab|cd){2,3}?",
        "",
    ],
)
def test_c03_a_regex_is_matched(llama: LlamaEngine, decoder: LLGuidanceDecoder, pattern: str) -> None:
    text, ended = generated(llama, decoder, StructuredOutput("regex", pattern))
    assert not ended or re.fullmatch(pattern, text)
    assert ended or len(text) > 8  # only é+ and (ab|cd) could go on, and they end soon


SCHEMAS: list[Any] = [
    {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 3},
    {
        "type": "object",
        "properties": {
            'q"é/\\': {"enum": ['a"', "b\n", {"c": [1.5, None]}]},
            "born": {"type": "string", "format": "date"},
            "n": {"type": "integer", "minimum": 3, "maximum": 9},
            "id": {"type": "string", "pattern": "^[A-Z]{2}-\\d{2}$"},
        },
        "required": ['q"é/\\', "born", "n", "id"],
        "additionalProperties": False,
    },
    {
        "$id": "https://example.org/pet.json",
        "$defs": {
            "cat": {
                "properties": {
                    "kind": {"const": "cat"},
                    "lives": {"type": "integer", "multipleOf": 3, "maximum": 9},
                }
            },
            "dog": {"properties": {"kind": {"const": "dog"}, "host": {"type": "string", "format": "ipv4"}}},
        },
        "oneOf": [
            {"$ref": "#/$defs/cat", "type": "object", "required": ["kind", "lives"], "maxProperties": 2},
            {
                "$ref": "pet.json#/$defs/dog",
                "type": "object",
                "required": ["kind", "host"],
                "maxProperties": 2,
            },
        ],
    },
    {"enum": [f"value {n}" for n in range(5_000)]},
    {
        "type": "object",
        "properties": {f"p{n}": {"type": "null"} for n in range(350)},
        "additionalProperties": False,
    },
]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_c03_a_schema_is_obeyed(llama: LlamaEngine, decoder: LLGuidanceDecoder, schema: Any) -> None:
    text, ended = generated(llama, decoder, StructuredOutput("json", json.dumps(schema)), max_tokens=100)
    if ended:
        jsonschema.validate(json.loads(text), schema, format_checker=jsonschema.FormatChecker())
    assert ended or "p349" in json.dumps(schema)  # all others end by themselves


@pytest.mark.parametrize(
    ("grammar", "pattern"),
    [
        ('start: "John" | "Mary"', "John|Mary"),
        ('root ::= "John" | "Mary"', "John|Mary"),
        ('%import common.DIGIT\n?start: "(" x~1..2 ")"\nx: DIGIT | "\\x41" /[bc]\\/"?/', r'\(([0-9]|A[bc]/"?){1,2}\)'),
        ('root ::= "{" ws "\\"" [^"\\n]{2} "\\"" ws "}"\nws ::= ([ \\t] ws)?', r'\{[ \t]*"[^"\n]{2}"[ \t]*\}'),
        (r'root ::= [a-c]* "b" "\u00e9" .{2}', r"(?s)[a-c]*bé.{2}"),
    ],
)  # fmt: skip
def test_c03_a_grammar_is_followed(
    llama: LlamaEngine, decoder: LLGuidanceDecoder, grammar: str, pattern: str
) -> None:
    text, ended = generated(llama, decoder, StructuredOutput("grammar", grammar))
    assert not ended or re.fullmatch(pattern, text)
    assert text
