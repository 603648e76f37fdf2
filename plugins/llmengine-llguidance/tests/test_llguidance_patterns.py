from __future__ import annotations

import json
import re

import pytest
import regex
from byte_matchers import EmbeddedMatcher, accepts
from hypothesis import given
from hypothesis import strategies as st

from llmengine_core.errors import BadRequestError, UnsupportedFeatureError
from llmengine_core.testing.checkers import begun, legal
from llmengine_core.types.sampling import StructuredOutput
from llmengine_llguidance.decoder import LLGuidanceDecoder

ALPHABET = "ab1'_- \n/\"\\[]{}^$.(é😀"
LITERALS = st.sampled_from("ab1_/\"'é😀-.{}")
ESCAPES = st.sampled_from([rf"\{each}" for each in "dwsDWS./\\n-"] + [r"\x61", r"\u00e9", "a{b"])
CLASSES = st.sampled_from(
    ["[ab]", "[^a]", "[a-c1]", r"[\d_-]", r"[^\s\\]", "[]a]", r"[\]^]", "[/\"']", r"[^\n]"]
)
ATOMS = LITERALS | ESCAPES | CLASSES
COUNTS = st.sampled_from(["*", "+", "?", "{2}", "{0,2}", "{1,}", "*?", "+?", "{0}"])


def _compound(patterns: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.builds(lambda one, other: one + other, patterns, patterns),
        st.builds(lambda one, other: f"(?:{one}|{other})", patterns, patterns),
        st.builds(lambda one, count: f"({one}){count}", patterns, COUNTS),
        st.builds(lambda one: f"(?i:{one})", patterns),
    )


PATTERNS = st.recursive(ATOMS, _compound, max_leaves=6)
TEXTS = st.text(alphabet=ALPHABET, max_size=6)


@given(pattern=PATTERNS, texts=st.lists(TEXTS, max_size=4), data=st.data())
def test_c03_a_guided_regex_matches_the_whole_text(
    decoder: LLGuidanceDecoder, pattern: str, texts: list[str], data: st.DataObject
) -> None:
    constraint = StructuredOutput("regex", pattern)
    engine = decoder.translate(constraint, "llguidance").text
    matching = data.draw(
        st.from_regex(re.compile(pattern), fullmatch=True, alphabet=st.sampled_from(ALPHABET + "AB,:"))
    )
    for text in (matching, matching[: len(matching) // 2], *texts):
        whole, start = legal(constraint, text), begun(constraint, text)
        assert decoder.verify(constraint, text, complete=True) == whole
        assert decoder.verify(constraint, text, complete=False) == start
        assert accepts(EmbeddedMatcher(engine), text) == (start, whole)


@given(
    pattern=PATTERNS, starts=st.booleans(), ends=st.booleans(), texts=st.lists(TEXTS, min_size=1, max_size=5)
)
def test_c03_a_pattern_of_a_schema_is_searched_for(
    decoder: LLGuidanceDecoder, pattern: str, starts: bool, ends: bool, texts: list[str]
) -> None:
    pattern = f"{'^' * starts}(?:{pattern}){'$' * ends}"
    constraint = StructuredOutput("json", json.dumps({"type": "string", "pattern": pattern}))
    if "[]" in pattern:
        with pytest.raises(UnsupportedFeatureError, match="a class that starts with ]"):
            decoder.check(constraint)
        return
    engine = decoder.translate(constraint, "llguidance").text
    # ECMAScript's \d and \w are ASCII, and $ is the very end. Python's wider readings have to agree with a match.
    readings = [regex.compile(pattern.removesuffix("$") + r"\Z" * ends, flags) for flags in (0, regex.ASCII)]
    for text in texts:
        quoted = json.dumps(text, ensure_ascii=False)
        found = decoder.verify(constraint, quoted, complete=True)
        assert accepts(EmbeddedMatcher(engine), quoted)[1] == found
        matches = [reading.search(text) is not None for reading in readings]
        assert all(matches) if found else not (all(matches) and text.isascii())


@pytest.mark.parametrize(
    ("pattern", "legal", "illegal"),
    [
        (r"", [""], ["a"]),
        (r"^ab$", ["ab"], ["xab", "^ab$"]),
        (r"(^|,)x(,|$)", ["x", ",x", "x,", ",x,"], ["ax"]),
        (r"\Aab\Z", ["ab"], ["Aab"]),
        (r"(?i)straße", ["STRAßE"], ["strase"]),
        (r"(?s)a.b", ["a\nb"], ["ab"]),
        (r"a.b", ["a\rb"], ["a\nb"]),
        (r"(?P<year>\d{4})-(?<month>\d\d)", ["2024-05"], ["2024-5"]),
        (r"\ud83d\ude00\U0001F600", ["😀😀"], ["😀"]),
        (r"\p{Lu}\p{L}*", ["Éa"], ["éa"]),
        (r"[\b]", ["\b"], ["b"]),
        (r"a{", ["a{"], ["a"]),
        (r"\$\{x\}", ["${x}"], ["x"]),
    ],
)
def test_c03_constructs_of_patterns(
    decoder: LLGuidanceDecoder, pattern: str, legal: list[str], illegal: list[str]
) -> None:
    constraint = StructuredOutput("regex", pattern)
    engine = decoder.translate(constraint, "llguidance").text
    for text in legal + illegal:
        assert decoder.verify(constraint, text, complete=True) == (text in legal)
        assert accepts(EmbeddedMatcher(engine), text)[1] == (text in legal)


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(ab", "a ( is never closed at character 1"),
        ("ab)", "a ) closes nothing at character 3"),
        ("[ab", "a [ is never closed at character 1"),
        ("*a", "* repeats nothing at character 1"),
        ("a**", "a repetition is repeated at character 3"),
        ("a{3,1}", "{3,1} ends before it begins"),
        ("[z-a]", "a range ends before it begins"),
        (r"[\d-z]", "a range has a class for an end"),
        (r"\q", r"\q is no escape at character 1"),
        (r"\x6", r"\x is no escape"),
        ("a\\", "a \\ escapes nothing"),
        (r"\ud800", "U+D800 is no character"),
        ("(?Z)", "flag 'Z'"),
        ("(?<n>a)(?<n>b)", "the name n is given again"),
        ("(?", "an unknown kind of group begins"),
        (r"\p{Nonsense}", "Unicode property not found"),
        ("a\udc00", "lone surrogate"),
    ],
)
def test_c03_an_invalid_regex_is_refused_with_its_reason(
    decoder: LLGuidanceDecoder, pattern: str, reason: str
) -> None:
    with pytest.raises(BadRequestError, match=re.escape(reason)):
        decoder.check(StructuredOutput("regex", pattern))


@pytest.mark.parametrize(
    ("pattern", "construct"),
    [
        ("(?=a)a", "a look-ahead at character 2"),
        ("a(?!b)", "a look-ahead"),
        ("(?<=a)b", "a look-behind"),
        ("(?<!a)b", "a look-behind"),
        (r"(a)\1", "a backreference at character 4"),
        (r"(?P<n>a)(?P=n)", "a backreference"),
        (r"\bfoo", "a word boundary"),
        ("a*+", "a possessive repetition"),
        ("(?>a)", "an atomic group"),
        ("[[:alpha:]]", r"a [ in a class at character 2 can't be enforced; write \["),
        ("[a-z&&[^b]]", "a set operation in a class"),
        ("a{,3}", "write {0,"),
        ("(?x) a", "the flag 'x'"),
        ("a(?i)b", "a flag that is not at the start"),
        ("a^b", "at the ends of a pattern only"),
        ("a{70000}", "a repetition over 65536"),
    ],
)
def test_c03_what_no_automaton_enforces_is_refused_by_name(
    decoder: LLGuidanceDecoder, pattern: str, construct: str
) -> None:
    with pytest.raises(UnsupportedFeatureError, match=re.escape(construct)):
        decoder.check(StructuredOutput("regex", pattern))
