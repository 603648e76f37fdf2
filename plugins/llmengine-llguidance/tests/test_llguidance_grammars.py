from __future__ import annotations

import re
from itertools import product

import lark
import pytest
from byte_matchers import MATCHERS, EmbeddedMatcher, InstalledMatcher, accepts
from gbnf_language import ALPHABET, GRAMMARS, Grammar, ends, written
from hypothesis import given, reject
from hypothesis import strategies as st
from llguidance import gbnf_to_lark

from llmengine_core.errors import BadRequestError, UnsupportedFeatureError
from llmengine_core.testing.checkers import begun, legal
from llmengine_core.types.sampling import StructuredOutput
from llmengine_llguidance.decoder import LLGuidanceDecoder
from llmengine_llguidance.lark import COMMON_TERMINALS

SHORT_TEXTS = ["".join(chars) for length in range(3) for chars in product(ALPHABET, repeat=length)]

ARITHMETIC = r"""root  ::= (expr "=" ws term "\n")+
expr  ::= term ([-+*/] term)*
term  ::= ident | num | "(" ws expr ")" ws
ident ::= [a-z] [a-z0-9_]* ws
num   ::= [0-9]+ ws
ws    ::= [ \t\n]*
"""


@given(grammar=GRAMMARS, longer=st.lists(st.text(ALPHABET, min_size=3, max_size=6), max_size=8))
def test_c03_gbnf_keeps_its_language(decoder: LLGuidanceDecoder, grammar: Grammar, longer: list[str]) -> None:
    constraint = StructuredOutput("grammar", written(grammar))
    endless = [name for name in grammar if not ends(grammar, name)]
    if endless:
        with pytest.raises(BadRequestError, match=f"the rule {endless[0]} can never end"):
            decoder.check(constraint)
        return
    engine = decoder.translate(constraint, "llguidance").text
    for text in SHORT_TEXTS + longer:
        whole, start = legal(constraint, text), begun(constraint, text)
        assert decoder.verify(constraint, text, complete=True) == whole, text
        assert decoder.verify(constraint, text, complete=False) == start, text
        assert accepts(EmbeddedMatcher(engine), text)[1] == whole, text


@pytest.mark.parametrize(
    ("grammar", "legal", "illegal"),
    [
        ('root ::= "John"', ["John"], ["Jo", "John "]),
        ("# start: no\nroot ::= [a-z]* \"b\"", ["b", "aab"], ["a"]),
        ('root ::= "ab" "d" | "a" "bc"', ["abd", "abc"], ["ab"]),
        ('root ::= "(" root ")" | [a-z]* "end"', ["end", "((theend))"], ["(end"]),
        (r'root ::= "\x41\u00e9\U0001F600\"\\\n" .', ['Aé😀"\\\n\n'], ['Aé😀"\\\n']),
        (r"root ::= [\]\\^a-c-] [^\n]", ["]x", "-y", "^ "], ["dx", "a\n"]),
        ('root ::= start FOO foo\nstart ::= "s"\nFOO ::= "F"\nfoo ::= "f"', ["sFf"], ["sff"]),
        ('root ::= item ("," ws item)*\n  | "none"\nitem ::= [0-9]{1,3}\nws ::= ([ \\t] ws)?',
         ["1,  22", "none"], ["1,,2", "1234"]),
        ('root ::= "a"{0} "b"{2} "c"{1,}', ["bbc", "bbccc"], ["abbc", "bb"]),
        (ARITHMETIC, ["x=1\n", "(x+1)*2=3\ny=4\n\n"], ["x=1", "1+=2\n"]),
        ("root ::= list\nlist ::= list \",\" [a-z] | [a-z]", ["a,b,c"], ["a,"]),
    ],
)  # fmt: skip
def test_c03_gbnf_constructs(
    decoder: LLGuidanceDecoder, grammar: str, legal: list[str], illegal: list[str]
) -> None:
    constraint = StructuredOutput("grammar", grammar)
    engine = decoder.translate(constraint, "llguidance").text
    for text in legal + illegal:
        assert decoder.verify(constraint, text, complete=True) == (text in legal), text
        assert accepts(EmbeddedMatcher(engine), text)[1] == (text in legal), text


def test_gbnf_is_rewritten_here_since_lexemes_are_greedy() -> None:
    """Why the converter that comes with llguidance is not used: by it, this example of llama.cpp never ends."""
    theirs = InstalledMatcher(gbnf_to_lark.gbnf_to_lark(ARITHMETIC))
    assert theirs.error == ""
    assert accepts(theirs, "x=1\n") == (True, False)


def test_c03_tail_recursion_is_as_good_as_repetition(decoder: LLGuidanceDecoder) -> None:
    constraint = StructuredOutput("grammar", 'root ::= "\\"" chars\nchars ::= [^"] chars | "\\""')
    text = '"' + "long " * 1_000
    assert decoder.verify(constraint, text, complete=False)
    assert decoder.verify(constraint, text + '"', complete=True)


# ----------------------------------------------------------------------------------------------------- Lark

LETTERS = st.sampled_from(['"a"', '"b"', "/[ab]/", "A", '"a".."b"', "/b/i"])
EXPRESSIONS = st.recursive(
    LETTERS | st.sampled_from(["x", "y"]),
    lambda inner: st.one_of(
        st.builds(lambda one, other: f"{one} {other}", inner, inner),
        st.builds(lambda one, other: f"({one} | {other})", inner, inner),
        st.builds(lambda one: f"[{one}]", inner),
        st.builds(
            lambda one, count: f"({one}){count}", LETTERS, st.sampled_from(["+", "*", "?", "~2", "~1..2"])
        ),
    ),
    max_leaves=4,
)


@given(
    start=EXPRESSIONS,
    x=EXPRESSIONS,
    y=EXPRESSIONS,
    texts=st.lists(st.text("abB", max_size=4), max_size=4, unique=True),
)
def test_c03_lark_is_read_as_lark_reads_it(
    decoder: LLGuidanceDecoder, start: str, x: str, y: str, texts: list[str]
) -> None:
    # Lexemes of one character: on longer ones llguidance, which is the reference, is greedier than Lark.
    grammar = (
        f'// comment\n?start: {start}\n!x: {x} -> alias\n  | "b"\ny: {y} | "a"  # comment\nA: "a" | "b"\n'
    )
    constraint = StructuredOutput("grammar", grammar)
    try:
        parses = {text: legal(constraint, text) for text in ["", *texts]}
    except lark.exceptions.GrammarError:
        reject()  # Lark takes no alternative twice
    engine = decoder.translate(constraint, "llguidance").text
    for text in texts:
        assert decoder.verify(constraint, text, complete=True) == parses[text], text
        assert accepts(EmbeddedMatcher(engine), text)[1] == parses[text], text


@pytest.mark.parametrize(
    ("grammar", "legal", "illegal"),
    [
        ('start: "John"', ["John"], ["Jo"]),
        ('%llguidance {}\nstart: "a"', ["a"], ["b"]),
        ('start: "\\x41\\u00e9\\"\\\\" /\\/[\\/"]é/', ['Aé"\\/"é', 'Aé"\\//é'], ["x"]),
        ('%import common.INT\n%import common (WS, CNAME)\n%ignore WS\nstart: INT CNAME', ["12 ab"], ["ab 12"]),
        ("%import common.SIGNED_NUMBER -> N\nstart: N", ["-1.5"], ["x"]),
        ('start: "a"?x "b" ~ 1..2\nx: "c"{2}', ["accb", "ccbb"], ["acb"]),
        ('start: ("a" | "b")+ ["c"] -> foo\n  |', ["", "abc"], ["c"]),
        ('?start: _a\n_a: B\nB: "x" & /[a-z]/', ["x"], ["y"]),
        ('start: "a"i /b/i', ["Ab", "aB"], ["c"]),
        ('start: "::=" x\nx: "root ::= "', ["::=root ::= "], ["x"]),
        ("start: e\ne: e \"+\" e | /[0-9]+/", ["1+2+3"], ["1+"]),
        ('start: "a" start? | ("b" start)~0..2 | [start] "c"', ["aac", "bab", ""], ["x"]),
        ('start: x\r\nx: "a"\r\n', ["a"], ["b"]),
    ],
)  # fmt: skip
def test_c03_lark_constructs(
    decoder: LLGuidanceDecoder, grammar: str, legal: list[str], illegal: list[str]
) -> None:
    constraint = StructuredOutput("grammar", grammar)
    engine = decoder.translate(constraint, "llguidance").text
    for text in legal + illegal:
        assert decoder.verify(constraint, text, complete=True) == (text in legal), text
        for name, matcher in MATCHERS.items():
            assert accepts(matcher(engine), text)[1] == (text in legal), (name, text)


@pytest.mark.parametrize("name", sorted(COMMON_TERMINALS))
def test_c03_common_terminals_mean_the_same_to_the_engine(decoder: LLGuidanceDecoder, name: str) -> None:
    constraint = StructuredOutput("grammar", f"%import common.{name}\nstart: {name}")
    engine = decoder.translate(constraint, "llguidance").text
    texts = [
        "a",
        "Z",
        "é",
        "a1_",
        "_b",
        "1",
        "f",
        "-1",
        "+1.5",
        "1.5e-3",
        ".5",
        " ",
        "\t ",
        "\n",
        "\r\n",
        '"a\\"b"',
        "# x",
        "// x",
    ]
    for text in [*texts, "/* x */", "-- x", "'", ""]:
        assert decoder.verify(constraint, text, complete=True) == accepts(EmbeddedMatcher(engine), text)[1], (
            text
        )


# ------------------------------------------------------------------------------------------------ rejections


@pytest.mark.parametrize(
    ("grammar", "reason"),
    [
        ("", "is no Lark grammar, as a whole: it has no rule named start"),
        ('foo: "a"', "it has no rule named start"),
        ('start: "a" foo', "line 1, column 12: there is no rule or terminal named foo"),
        ('start: "a"\nunused: nowhere', "line 2, column 9: there is no rule or terminal named nowhere"),
        ('start: "a"\nstart: "b"', "line 2, column 1: start is defined again"),
        ('start: "a', "line 1, column 8: a string is never closed"),
        ("start: 'a'", """line 1, column 8: unexpected "'\""""),
        ('start "a"', "line 1, column 1: : is missing after start"),
        ('start: "\\q"', "line 1, column 8: \\q is no escape"),
        ("start: /(/", "line 1, column 8: /(/ is no regular expression: a ( is never closed"),
        ('start: "a"{3,1}', "line 1, column 8: range end must be >= start, got (3, 1)"),
        ('start: ("a"', "does not compile, line 1, column"),
        ("start: A\nA: B\nB: A | \"b\"", 'does not compile, line 3, column 4: circular reference in token "A"'),
        ('start: "a\0b"', "a string is never closed"),
        ('start: "a" start', "as a whole: the rule start can never end"),
        ('start: "a" | x\nx: ("b" y | y)+ ["c"]\ny: x "d"', "the rule x can never end"),
        ('root ::= "a" | x\nx ::= [] | "b" x', "the rule x can never end"),
        ('foo ::= "a"', "is no GBNF grammar, as a whole: it has no rule named root"),
        ("root ::= foo", "is no GBNF grammar, line 1, column 10: there is no rule named foo"),
        ('root ::= "a"\nroot ::= "b"', "line 2, column 1: the rule root is defined again"),
        ('root ::= "a', "line 1, column 12: a string is never closed"),
        ("root ::= [a", "line 1, column 12: a class is never closed"),
        ('root ::= ("a"', "line 1, column 10: a ( is never closed"),
        ("root ::= [z-a]", "the range from 'z' to 'a' is empty"),
        ('root ::= "\\q"', "line 1, column 11: \\t \\n"),
        ('root ::= "\\ud800"', "U+D800 is no character"),
        ("root ::= 'a'", "line 1, column 10: a string, a class, a rule or a group is missing"),
        ('root ::= "a"{3,1}', "{3,1} is not from a smaller to a larger number"),
        ('root ::= "a" ]', "line 1, column 14"),
        ("root ::= a\udc00", "lone surrogate"),
    ],
)  # fmt: skip
def test_c03_an_invalid_grammar_is_refused_with_its_place(
    decoder: LLGuidanceDecoder, grammar: str, reason: str
) -> None:
    with pytest.raises(BadRequestError, match=re.escape(reason)) as caught:
        decoder.check(StructuredOutput("grammar", grammar))
    assert type(caught.value) is BadRequestError


@pytest.mark.parametrize(
    ("grammar", "construct"),
    [
        ('start: %json {"type": "string"}', "line 1, column 8: %json can't be enforced"),
        ('start: %regex {"substring_chars": "x"}', "%regex"),
        ('%llguidance {"no_forcing": true}\nstart: "a"', "line 1, column 1: %llguidance"),
        ("start: <|im_end|>", "a special token"),
        ("start: <[17]>", "a special token"),
        ("start: @other", "a special token"),
        ("start[max_tokens=3]: /a+/", "an attribute of a rule"),
        ('start: x\nx[lazy]: "a"', "line 2, column 2: an attribute of a rule"),
        ('start: A\nA.2: "a"', "a priority"),
        ('start: x{"a"}\nx{y}: y', "a template"),
        ("start: x::a\nx::a: \"a\"", "a parameter"),
        ("start: ~/a/", "a negation"),
        ("%declare X\nstart: X", "%declare"),
        ("%import python.NAME\nstart: NAME", "an import from 'python'"),
        ("%import common.NONESUCH\nstart: NONESUCH", "the import of 'NONESUCH'"),
        ("start: /(?=a)a/", "line 1, column 8: /(?=a)a/: a look-ahead"),
        ("start: /a/x", "the flag 'x'"),
        ("root ::= <think>", "line 1, column 10: < (a token or an extension)"),
        ("root ::= !<[17]>", "! (a token or an extension)"),
    ],
)  # fmt: skip
def test_c03_what_is_more_than_a_language_is_refused_by_name(
    decoder: LLGuidanceDecoder, grammar: str, construct: str
) -> None:
    with pytest.raises(UnsupportedFeatureError, match=re.escape(construct)):
        decoder.check(StructuredOutput("grammar", grammar))
