"""What every guided decoder promises."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from hypothesis import strategies as st

from llmengine_core.errors import LLMEngineError
from llmengine_core.interfaces.guided import GuidedDecoder
from llmengine_core.testing.contracts.guided.bounds import GuidedBoundLaws
from llmengine_core.testing.contracts.guided.ground import KINDS, near, shown
from llmengine_core.testing.contracts.guided.json_texts import GuidedJSONLaws
from llmengine_core.testing.contracts.guided.texts import GuidedTextLaws
from llmengine_core.testing.laws import NotApplicable, law
from llmengine_core.types.sampling import StructuredKind, StructuredOutput, Translation

__all__ = ["GuidedDecoderContract"]

VALUES: Mapping[StructuredKind, tuple[str | tuple[str, ...], str | tuple[str, ...]]] = {
    "json": ('{"enum": ["red"]}', '{"enum": ["green"]}'),
    "regex": ("red", "green"),
    "choice": (("red",), ("green",)),
    "grammar": ('root ::= "red"', 'root ::= "green"'),
}
"""Two constraints of each kind that share no text."""
THREADS = 6

Batch = Mapping[StructuredKind, Iterable[tuple[StructuredOutput, str]]]
Question = tuple[str, StructuredOutput, str]
"""What is asked, about which constraint, and about which text or for which dialect."""


class GuidedDecoderContract(GuidedJSONLaws, GuidedTextLaws, GuidedBoundLaws):
    """What every guided decoder promises.

    ::

        class TestSample(GuidedDecoderContract):
            decoder = "sample"
    """

    @law("C03", weight=0.3)
    def test_c03_translates_into_each_declared_dialect(self, batch: Batch) -> None:
        """What can be enforced is translated into each declared dialect, always alike, and none like another."""
        for dialect in sorted(self.declaration().dialects):
            for structured, _ in self.declared(batch):
                if self.enforces(structured):
                    self.translated(structured, dialect)
            for kind in self.declaration().kinds:
                one, other = (StructuredOutput(kind, value) for value in VALUES[kind])
                if self.enforces(one) and self.enforces(other):
                    text = self.translated(one, dialect)
                    assert self.translated(other, dialect) != text, (
                        f"{shown(one)} and {shown(other)} are both {text!r} in {dialect!r}"
                    )

    def translated(self, structured: StructuredOutput, dialect: str) -> str:
        """What a constraint is in a dialect."""
        try:
            found = self.judged.translate(structured, dialect)
        except LLMEngineError as error:
            raise AssertionError(
                f"{shown(structured)} can be enforced, and can't be translated into {dialect!r}: {error}"
            ) from error
        assert isinstance(found, Translation), f"translate gave {found!r}, which is no Translation"
        assert found.dialect == dialect, (
            f"asked for {dialect!r}, translate gave the dialect {found.dialect!r}"
        )
        assert found.text, f"{shown(structured)} is nothing at all in {dialect!r}"
        again = self.judged.translate(structured, dialect)
        assert again == found, f"{shown(structured)} was translated in two ways: {found} and {again}"
        return found.text

    @law("C03")
    def test_c03_another_dialect_is_refused(self) -> None:
        """A dialect that isn't declared is an error of ours, not a guess."""
        kind = min(self.declaration().kinds)
        try:
            found = self.judged.translate(StructuredOutput(kind, VALUES[kind][0]), "no-such-dialect")
        except LLMEngineError:
            return
        raise AssertionError(
            f"asked for a dialect that isn't declared, 'no-such-dialect', translate gave {found}"
        )

    @law("C03")
    def test_c03_an_undeclared_kind_is_refused(self) -> None:
        """A kind of constraint that isn't declared is refused by check."""
        others = [kind for kind in KINDS if kind not in self.declaration().kinds]
        if not others:
            raise NotApplicable("all kinds are declared")
        for kind in others:
            structured = StructuredOutput(kind, VALUES[kind][0])
            try:
                self.judged.check(structured)
            except LLMEngineError:
                continue
            raise AssertionError(f"{kind} isn't declared, and check let {shown(structured)} pass")

    @law("C03", seed=st.integers(0, 2**32), weight=0.4)
    def test_c03_what_is_accepted_is_accepted_so_far(self, batch: Batch, seed: int) -> None:
        """A text that is accepted in full is accepted as a beginning too, and so is each of its beginnings."""
        chance = random.Random(seed)
        for structured, obeying in self.declared(batch):
            if not self.enforces(structured):
                continue
            for text in (obeying, *near(obeying, chance)):
                if not self.accepts(structured, text):
                    continue
                for length in range(len(text), -1, -1):
                    assert self.accepts(structured, text[:length], complete=False), (
                        f"{text!r} is accepted for {shown(structured)}, but not that it begins with {text[:length]!r}"
                    )

    @law("C03", seed=st.integers(0, 2**32), weight=0.4)
    def test_order_of_calls_makes_no_difference(self, batch: Batch, seed: int) -> None:
        """Whatever was asked before, of whatever copy of a constraint, the answer is the same: there is no state."""
        chance = random.Random(seed)
        questions = self.questions(batch, chance)
        expected = [answer(self.judged, each) for each in questions]
        fresh = self.made()
        order = [*range(len(questions)), *range(len(questions))]
        chance.shuffle(order)
        for number in order:
            found = answer(fresh, _copied(questions[number]))
            assert found == expected[number], (
                f"{_told(questions[number])}: {expected[number]} of one decoder, {found} of one that was asked in "
                "another order"
            )

    @law("C03", seed=st.integers(0, 2**32), weight=0.3)
    def test_many_threads_share_one_decoder(self, batch: Batch, seed: int) -> None:
        """Asked by many threads at once, a decoder answers each as if it were alone."""
        chance = random.Random(seed)
        questions = self.questions(batch, chance)
        expected = [answer(self.judged, each) for each in questions]
        fresh = self.made()

        def ask(first: int) -> None:
            for number in [*range(first, len(questions)), *range(first)]:
                found = answer(fresh, questions[number])
                assert found == expected[number], (
                    f"{_told(questions[number])}: {expected[number]} of one thread, {found} while {THREADS} threads ask"
                )

        with _switching(), ThreadPoolExecutor(THREADS) as pool:
            for each in [pool.submit(ask, n * len(questions) // THREADS) for n in range(THREADS)]:
                each.result()

    @law("C03")
    def test_c03_errors_are_ours(self) -> None:
        """Whatever it is asked about an invalid constraint, a decoder answers or raises an error of ours."""
        for kind in self.declaration().kinds:
            for value in HOSTILE[kind]:
                structured = StructuredOutput(kind, value)
                calls: dict[str, Callable[[], object]] = {
                    "check": lambda given=structured: self.judged.check(given),  # type: ignore[misc]
                    "verify": lambda given=structured: self.judged.verify(given, "a", complete=False),  # type: ignore[misc]
                    "translate": lambda given=structured: self.judged.translate(
                        given, min(self.declaration().dialects, default="none")
                    ),  # type: ignore[misc]
                }
                for name, call in calls.items():
                    try:
                        call()
                    except LLMEngineError:
                        continue
                    except Exception as error:
                        raise AssertionError(
                            f"{name} raised {type(error).__name__} for {shown(structured)}, which is none of our "
                            f"errors: {error}"
                        ) from error

    def questions(self, batch: Batch, chance: random.Random) -> list[Question]:
        """What may be asked about constraints of a batch, and about some that are invalid."""
        found: list[Question] = []
        for structured, text in self.declared(batch):
            found += [("check", structured, ""), ("so far", structured, text[: len(text) // 2])]
            found += [("in full", structured, each) for each in (text, *near(text, chance)[2:5])]
            found += [("translate", structured, dialect) for dialect in sorted(self.declaration().dialects)]
        found += [
            ("check", StructuredOutput(kind, HOSTILE[kind][0]), "") for kind in self.declaration().kinds
        ]
        chance.shuffle(found)
        return found


HOSTILE: Mapping[StructuredKind, tuple[str | tuple[str, ...], ...]] = {
    "json": (
        "{", '{"const": NaN}', '"\ud800"', '{"$ref": 5}', '{"$ref": "#/%zz/%"}', '{"$id": "http://[", "$ref": "x"}',
        '{"minLength": 1e400}', '{"enum": [1e999]}', '{"pattern": "\\ud800"}', '{"properties": {"a\\u0000": {}}}',
        "null", "\0",
    ),
    "regex": ("(", "\ud800", "\0", "(?", "\\", "[[", "(?P<", "x{99999999999}", r"\p{Nonsense}", ""),
    "choice": ((), ("",), ("\ud800",), ("\0",), ("a", "a")),
    "grammar": (
        "", "start:", "::=", 'start: "\ud800"', "\0", "start: /(/", "root ::= [", "%import x.Y",
        'root ::= "a"{99999999999}', "root ::= root", "start: start",
    ),
}  # fmt: skip
"""Broken, odd, or both; the first of each kind is invalid."""


def answer(decoder: GuidedDecoder, question: Question) -> object:
    """What a decoder says; of an error its class."""
    what, structured, rest = question
    try:
        if what == "check":
            decoder.check(structured)
            return "it passes"
        if what == "translate":
            return decoder.translate(structured, rest)
        return decoder.verify(structured, rest, complete=what == "in full")
    except LLMEngineError as error:
        return type(error).__name__


def _copied(question: Question) -> Question:
    """The same question about an equal constraint, translated already, as the core hands it on."""
    what, structured, rest = question
    value = structured.value
    copied = "".join(list(value)) if isinstance(value, str) else (*value,)
    return what, StructuredOutput(structured.kind, copied, Translation("some dialect", "some text")), rest


def _told(question: Question) -> str:
    what, structured, rest = question
    return f"{what} {rest!r} of {shown(structured)}"


@contextmanager
def _switching() -> Iterator[None]:
    """Let threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
