"""Laws of guided decoders: patterns, choices and grammars, whose texts are spelled in one way only.

So verify has to agree with independent checkers both ways: ``regex``, equality, Lark's Earley parser, a naive chart.
"""

from __future__ import annotations

import random
import re
from unicodedata import normalize

from hypothesis import strategies as st

from llmengine_core.testing import strategies
from llmengine_core.testing.checkers import begun, legal
from llmengine_core.testing.contracts.guided.ground import GuidedGround, near, shown
from llmengine_core.testing.laws import law
from llmengine_core.testing.strategies.constraints import Twins
from llmengine_core.types.sampling import StructuredOutput

__all__ = ["GuidedTextLaws"]

_SEEDS = st.integers(0, 2**32)
EVERYDAY_PATTERNS = ("[0-9]{3}-[0-9]{4}", "yes|no", "[A-Z][a-z]+", r"\d+(\.\d{2})?")
EVERYDAY_CHOICES = (("yes", "no"), ("yes", "yes, please", "1"), ("only one",), ("Grüße", "東京"))
CONSTRUCTS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "the dot": ("a.b", ("axb", "aéb"), ("a\nb", "ab")),
    "an alternative": ("ab|c", ("ab", "c"), ("ac", "abc")),
    "an anchor": ("^ab$", ("ab",), ("ab\n", "xab")),
    "a lazy repetition": ("a+?", ("a", "aaa"), ("", "b")),
    "a count": ("(?:ab){2,3}", ("abab", "ababab"), ("ab", "abababab")),
    "a negated class": ("[^a-c]", ("d", "é"), ("a", "dd")),
    "letter case": ("(?i)ab", ("AB", "ab"), ("AC",)),
    "a look-ahead": (r"(?=a)\w", ("a",), ("b",)),
    "a negative look-ahead": ("a(?!b).", ("ac",), ("ab",)),
    "a look-behind": (r"\w(?<=a)", ("a",), ("b",)),
    "a backreference": (r"(a|b)\1", ("aa", "bb"), ("ab", "ba")),
    "a word boundary": (r"a\b.c", ("a c",), ("abc",)),
    "a possessive repetition": ("a*+a", (), ("a", "aa")),
    "an atomic group": ("(?>ab?)b", ("abb",), ("ab",)),
}
"""Patterns that may be beyond a decoder, with texts that they match and texts that they don't."""
INVALID_PATTERNS = ("(ab", "ab)", "[ab", "*a", "a{3,1}", "[z-a]", "a\\")
EVERYDAY_GRAMMARS = (
    ('start: "John"', "John", "Jo"),
    ('root ::= "John"', "John", "John "),
    ('start: "a" b\nb: "b" | "c"', "ac", "a"),
    ('root ::= ("a" | b)+\nb ::= [x-z]', "aza", ""),
)
"""With a text that each spells and one that it doesn't; the first two are those of the API contract."""
INVALID_GRAMMARS = (
    "",
    'start: "a',
    'start "a"',
    "start: nowhere",
    'foo: "a"',
    'start: ("a"',
    "root ::= nowhere",
    'root ::= "a',
    'root ::= ("a"',
    'foo ::= "a"',
)


class GuidedTextLaws(GuidedGround):
    """What holds for ``guided_regex``, ``guided_choice`` and ``guided_grammar``."""

    regex_with_text = strategies.constraints_with_texts("regex")
    """Patterns, each with a text that it matches."""
    choices = strategies.choices()
    """Texts to choose from."""
    grammar = strategies.twin_grammars()
    """Grammars, each as Lark and as GBNF, with a text."""

    def agrees(
        self, structured: StructuredOutput, texts: list[str], beginnings: StructuredOutput | None = None
    ) -> None:
        """See that texts are judged as they are. ``beginnings`` is the same constraint as ``begun`` takes it."""
        for text in texts:
            if (
                structured.kind == "regex"
                and not text.isascii()
                and re.search(r"\\[dws]", str(structured.value))
            ):
                continue  # classes are ASCII's to some, and Unicode's to others
            expected = legal(structured, text)
            assert self.accepts(structured, text) == expected, (
                f"{text!r} {'obeys' if expected else 'does not obey'} {shown(structured)}, and verify says otherwise"
            )
            expected = begun(beginnings or structured, text)
            assert self.accepts(structured, text, complete=False) == expected, (
                f"{'a' if expected else 'no'} text of {shown(structured)} begins with {text!r}, and verify with "
                "complete=False says otherwise"
            )

    @law("C03", level="regex", seed=_SEEDS)
    def test_c03_regex_means_the_whole_text(
        self, regex_with_text: tuple[StructuredOutput, str], seed: int
    ) -> None:
        """A text is accepted where the pattern matches all of it, and a beginning where more could make it match."""
        structured, text = regex_with_text
        if self.enforces(structured):
            self.agrees(structured, [text, *near(text, random.Random(seed))])

    @law("C03", level="regex")
    def test_c03_regex_everyday_patterns_are_enforced(self) -> None:
        """Classes, counts, groups and alternatives can be asked for."""
        for pattern in EVERYDAY_PATTERNS:
            structured = StructuredOutput("regex", pattern)
            assert self.enforces(structured), (
                f"{shown(structured)} can't be enforced; that much is expected of anybody"
            )

    @law("C03", level="regex")
    def test_c03_regex_no_construct_is_ignored(self) -> None:
        """Each construct of a pattern is enforced or refused."""
        for name, (pattern, matching, others) in CONSTRUCTS.items():
            structured = StructuredOutput("regex", pattern)
            if self.refusal(structured) is not None:
                continue  # flavours differ in what they call a pattern at all
            for text in (*matching, *others):
                accepted = self.accepts(structured, text)
                assert accepted == (text in matching), (
                    f"{name} is not taken for what it is: {text!r} was {'accepted' if accepted else 'refused'} for "
                    f"{shown(structured)}"
                )

    @law("C03", level="regex")
    def test_c03_regex_an_invalid_pattern_is_refused(self) -> None:
        """What is no pattern is a ``BadRequestError`` that says why."""
        self.quotes(
            {pattern: self.refused(StructuredOutput("regex", pattern)) for pattern in INVALID_PATTERNS}
        )

    @law("C03", level="choice", seed=_SEEDS)
    def test_c03_choice_means_one_of_them(self, choices: tuple[str, ...], seed: int) -> None:
        """A text is accepted where it is one of the choices, and a beginning where one of them begins so."""
        structured = StructuredOutput("choice", choices)
        if not self.enforces(structured):
            return
        chance = random.Random(seed)
        cut = [each[: chance.randrange(len(each) + 1)] for each in choices]
        self.agrees(structured, [*choices, *cut, *near(chance.choice(choices), chance)])

    @law("C03", level="choice")
    def test_c03_choice_everyday_choices_are_enforced(self) -> None:
        """Words and sentences can be chosen from, also where one begins another."""
        for texts in EVERYDAY_CHOICES:
            structured = StructuredOutput("choice", texts)
            assert self.enforces(structured), (
                f"{shown(structured)} can't be enforced; that much is expected of anybody"
            )
            spelled = [normalize(form, each) for form in ("NFC", "NFD") for each in texts]
            self.agrees(structured, [*texts, *spelled, texts[0][:-1], texts[-1] + "s", texts[0].swapcase()])

    @law("C03", level="choice")
    def test_c03_choice_of_nothing_is_refused(self) -> None:
        """No choices at all are a ``BadRequestError``."""
        self.refused(StructuredOutput("choice", ()))

    @law("C03", level="grammar", weight=0.6, seed=_SEEDS)
    def test_c03_grammar_means_its_language(self, grammar: Twins, seed: int) -> None:
        """A text is accepted where the grammar spells it, in either notation, and a beginning where it spells more."""
        gbnf = StructuredOutput("grammar", grammar.gbnf)
        for structured in (gbnf, StructuredOutput("grammar", grammar.lark)):
            if self.enforces(structured):
                self.agrees(structured, [grammar.text, *near(grammar.text, random.Random(seed))], gbnf)

    @law("C03", level="grammar")
    def test_c03_grammar_both_notations_are_enforced(self) -> None:
        """Rules, texts, alternatives and repetitions can be asked for, as Lark and as GBNF."""
        for grammar, obeying, breaking in EVERYDAY_GRAMMARS:
            structured = StructuredOutput("grammar", grammar)
            assert self.enforces(structured), (
                f"{shown(structured)} can't be enforced; that much is expected of anybody"
            )
            assert self.accepts(structured, obeying), f"{obeying!r} was refused for {shown(structured)}"
            assert not self.accepts(structured, breaking), (
                f"{breaking!r} was accepted in full for {shown(structured)}"
            )

    @law("C03", level="grammar")
    def test_c03_grammar_an_invalid_one_is_refused(self) -> None:
        """What is no grammar is a ``BadRequestError`` that says why."""
        self.quotes({each: self.refused(StructuredOutput("grammar", each)) for each in INVALID_GRAMMARS})
