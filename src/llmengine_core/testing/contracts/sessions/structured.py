"""Laws of sessions: constraints on the text, judged by checkers that no engine shares."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from llmengine_core.errors import BadRequestError
from llmengine_core.testing.answers import Answer, ask
from llmengine_core.testing.checkers import legal
from llmengine_core.testing.contracts.sessions.comparing import ComparingGround, any_sampling
from llmengine_core.testing.contracts.sessions.ground import NEAR_TIE
from llmengine_core.testing.laws import NotApplicable, law
from llmengine_core.testing.strategies import constraints, stop_lists
from llmengine_core.types.capabilities import COMBINABLE
from llmengine_core.types.generation import GenerationRequest, Prompt
from llmengine_core.types.sampling import SamplingParams, StructuredKind, StructuredOutput

__all__ = ["StructuredLaws"]

OBJECTS = tuple(
    StructuredOutput("json", schema)
    for schema in (
        '{"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": false}',
        (
            '{"type": "object", "properties": {"a": {"enum": [1, 2]}, "b": {"type": "boolean"}}, "required": ["b"], '
            '"additionalProperties": false}'
        ),
        (
            '{"type": "array", "items": {"type": "object", "properties": {"a": {"const": 0}}, "required": ["a"]}, '
            '"minItems": 1, "maxItems": 2}'
        ),
    )
)
"""Schemas of objects that must have a property."""
APART: dict[StructuredKind, tuple[StructuredOutput, StructuredOutput]] = {
    "json": (
        StructuredOutput("json", '{"type": "boolean"}'),
        StructuredOutput("json", '{"type": "integer", "minimum": 10, "maximum": 99}'),
    ),
    "regex": (StructuredOutput("regex", "[ab]{2,4}"), StructuredOutput("regex", "[0-9]{1,3}")),
    "choice": (StructuredOutput("choice", ("yes", "no")), StructuredOutput("choice", ("1", "10", "2"))),
    "grammar": (
        StructuredOutput("grammar", 'start: "yes" | "no"'),
        StructuredOutput("grammar", 'root ::= [0-9] | "10"'),
    ),
}
"""Of each kind two that are obeyed in a few bytes; no text begins both."""
LONGEST = 4
"""Bytes of the longest text that obeys one of them, but for blanks in JSON."""

UNASSIGNED = 0x40000
"""No character from here on has a meaning."""

lengths = st.sampled_from([4, 24, 40, 40])
stops = st.just(()) | stop_lists(max_size=2)


def _drawn(kind: StructuredKind) -> SearchStrategy[StructuredOutput]:
    """Constraints of a kind, of characters that people write: models' vocabularies lack bytes of others."""
    return st.sampled_from(APART[kind]) | constraints(kind).filter(
        lambda each: _is_written("".join(each.value))
    )


def _is_written(text: str) -> bool:
    return all(each in "\n\t" or (" " <= each != "\x7f" and ord(each) < UNASSIGNED) for each in text)


class StructuredLaws(ComparingGround):
    """A constraint is obeyed token by token, by its own request, and by no other."""

    schema: ClassVar[SearchStrategy[StructuredOutput]] = st.sampled_from(OBJECTS) | _drawn("json")
    """Schemas that laws ask for, not translated; what the checker or the model can't do is passed over."""
    regex: ClassVar[SearchStrategy[StructuredOutput]] = _drawn("regex")
    """Regexes, likewise."""
    choices: ClassVar[SearchStrategy[StructuredOutput]] = _drawn("choice")
    """Choices, likewise."""
    grammar: ClassVar[SearchStrategy[StructuredOutput]] = _drawn("grammar")
    """Grammars, likewise."""

    @law(
        "C03", level="structured_json", weight=1.0, sampling=any_sampling(), length=lengths, stop=stops,
    )  # fmt: skip
    async def test_c03_json_obeys_its_schema(
        self,
        prompt: str,
        schema: StructuredOutput,
        sampling: SamplingParams,
        length: int,
        stop: tuple[str, ...],
    ) -> None:
        """What ended by itself is JSON of the schema; what was cut is accepted so far; however it is sampled."""
        await self._is_obeyed(prompt, schema, replace(sampling, max_tokens=length, stop=stop))

    @law(
        "C03", level="structured_regex", weight=0.6, sampling=any_sampling(),
        length=lengths, stop=stops,
    )  # fmt: skip
    async def test_c03_a_regex_matches_the_whole_text(
        self,
        prompt: str,
        regex: StructuredOutput,
        sampling: SamplingParams,
        length: int,
        stop: tuple[str, ...],
    ) -> None:
        """What ended by itself matches in whole; what was cut is accepted so far; however it is sampled."""
        await self._is_obeyed(prompt, regex, replace(sampling, max_tokens=length, stop=stop))

    @law(
        "C03", level="structured_choice", weight=0.6, sampling=any_sampling(),
        length=lengths, stop=stops,
    )  # fmt: skip
    async def test_c03_a_choice_is_one_of_them(
        self,
        prompt: str,
        choices: StructuredOutput,
        sampling: SamplingParams,
        length: int,
        stop: tuple[str, ...],
    ) -> None:
        """What ended by itself is one of the choices; what was cut begins one; however it is sampled."""
        await self._is_obeyed(prompt, choices, replace(sampling, max_tokens=length, stop=stop))

    @law(
        "C03", level="structured_grammar", weight=0.6, sampling=any_sampling(),
        length=lengths, stop=stops,
    )  # fmt: skip
    async def test_c03_a_grammar_parses_the_text(
        self,
        prompt: str,
        grammar: StructuredOutput,
        sampling: SamplingParams,
        length: int,
        stop: tuple[str, ...],
    ) -> None:
        """What ended by itself parses in whole; what was cut is accepted so far; however it is sampled."""
        await self._is_obeyed(prompt, grammar, replace(sampling, max_tokens=length, stop=stop))

    @law(
        "C03",
        level="structured_choice",
        weight=0.6,
        temperature=st.sampled_from([0.0, 1.0]),
    )
    async def test_c03_a_choice_with_room_is_made(
        self, prompt: str, choices: StructuredOutput, temperature: float
    ) -> None:
        """With room for the longest choice an answer ends by itself, choices that begin others among them."""
        await self._comes_to_its_end(
            prompt, choices, temperature, max(len(each.encode()) for each in choices.value)
        )

    @law(
        "C03",
        level="structured_regex",
        weight=0.4,
        constraint=st.sampled_from(APART["regex"]),
        temperature=st.floats(0, 1),
    )
    async def test_c03_a_regex_with_room_is_matched(
        self, prompt: str, constraint: StructuredOutput, temperature: float
    ) -> None:
        """With room for the longest match an answer ends by itself."""
        await self._comes_to_its_end(prompt, constraint, temperature, LONGEST)

    @law(
        "C03",
        level="structured_grammar",
        weight=0.4,
        constraint=st.sampled_from(APART["grammar"]),
        temperature=st.floats(0, 1),
    )
    async def test_c03_a_grammar_with_room_is_parsed(
        self, prompt: str, constraint: StructuredOutput, temperature: float
    ) -> None:
        """With room for the longest text of a grammar an answer ends by itself."""
        await self._comes_to_its_end(prompt, constraint, temperature, LONGEST)

    @law("C14", level="structured_json", weight=0.3)
    async def test_c14_schemas_stay_with_their_requests(self, prompt: str) -> None:
        """Two schemas at once are obeyed by their own requests, and leave one without a schema as it was."""
        await self._stay_with_their_requests(prompt, "json")

    @law("C14", level="structured_regex", weight=0.3)
    async def test_c14_regexes_stay_with_their_requests(self, prompt: str) -> None:
        """Two regexes at once are obeyed by their own requests, and leave one without a regex as it was."""
        await self._stay_with_their_requests(prompt, "regex")

    @law("C14", level="structured_choice", weight=0.3)
    async def test_c14_choices_stay_with_their_requests(self, prompt: str) -> None:
        """Two sets of choices at once are obeyed by their own requests, and leave one without as it was."""
        await self._stay_with_their_requests(prompt, "choice")

    @law("C14", level="structured_grammar", weight=0.3)
    async def test_c14_grammars_stay_with_their_requests(self, prompt: str) -> None:
        """Two grammars at once are obeyed by their own requests, and leave one without a grammar as it was."""
        await self._stay_with_their_requests(prompt, "grammar")

    @law("C07", level="structured_choice", weight=0.6)
    async def test_c07_log_probs_are_not_of_the_constraint(self, prompt: str) -> None:
        """A token has the log prob that it has without the constraint, also where it is the only choice."""
        if "logprobs" not in self.capabilities.combined:
            raise NotApplicable("log probs together with a constraint are not declared")
        plain = await self.greedy(prompt, max_tokens=4)
        if (
            not all(token.text for token in plain.tokens)
            or "".join(t.text for t in plain.tokens) != plain.text
        ):
            return  # it ended, or holds parts of characters: such a text can't be made the only choice
        only = StructuredOutput("choice", (plain.text,))
        asked = await self._request(
            prompt, only, SamplingParams(max_tokens=4, temperature=0.0, logprobs=True)
        )
        forced = None if asked is None else await self._constrained(only, asked)
        for one, other in zip(plain.tokens, forced.tokens if forced else [], strict=False):
            if one.id != other.id:
                return
            assert abs((one.logprob or 0.0) - (other.logprob or 0.0)) <= NEAR_TIE, (
                f"{one.text!r} after {prompt!r} has the log prob {one.logprob}, and {other.logprob} where the "
                f"constraint allows nothing but {plain.text!r}; log probs are taken before the constraint"
            )

    # ---------------------------------------------------------------------------------------------- how

    async def _constrained(self, constraint: StructuredOutput, asked: GenerationRequest) -> Answer | None:
        """None where the model's vocabulary can't spell what obeys, and the session says so."""
        try:
            return await ask(self.session, asked)
        except BadRequestError:
            if constraint in APART[constraint.kind]:
                raise
            return None

    async def _request(
        self, prompt: str | Prompt, constraint: StructuredOutput, sampling: SamplingParams
    ) -> GenerationRequest | None:
        decoder, dialect = self.checker(constraint), self.capabilities.structured_dialect
        if dialect is None:
            raise NotApplicable("no structured_dialect is declared to have constraints in")
        try:
            decoder.check(constraint)
            constraint = replace(constraint, translation=decoder.translate(constraint, dialect))
        except BadRequestError:
            return None
        neutral = SamplingParams()
        excluded = COMBINABLE - self.capabilities.combined
        values = replace(sampling, **{name: getattr(neutral, name) for name in excluded})
        return await self.asked(prompt, values, structured=constraint)

    def _obeys(self, constraint: StructuredOutput, asked: GenerationRequest, answer: Answer) -> None:
        """Raise ``AssertionError`` unless an answer obeys as far as it goes."""
        text, usage, reason = answer.text, answer.usage, answer.finish_reason
        seen = f"{text!r}, ended by {reason!r}, for {constraint} with {asked.sampling}"
        if reason == "length":
            full = usage.prompt_tokens + usage.completion_tokens >= self.session.facts.context_length
            assert full or usage.completion_tokens >= asked.sampling.max_tokens, (
                f"{seen}: cut after {usage.completion_tokens} tokens, though neither limit was reached"
            )
        if reason == "stop" and not asked.sampling.stop:
            assert legal(constraint, text), f"{seen}: it ended by itself, and does not obey"
        assert legal(constraint, text) or self.checker(constraint).verify(constraint, text, complete=False), (
            f"{seen}: nothing that obeys begins like that"
        )

    async def _is_obeyed(self, prompt: str, constraint: StructuredOutput, sampling: SamplingParams) -> None:
        asked = await self._request(prompt, constraint, sampling)
        answer = None if asked is None else await self._constrained(constraint, asked)
        if asked is not None and answer is not None:
            self._obeys(constraint, asked, answer)

    async def _comes_to_its_end(
        self, prompt: str, constraint: StructuredOutput, temperature: float, longest: int
    ) -> None:
        values = SamplingParams(temperature=temperature, max_tokens=longest + 1)
        asked = await self._request(prompt, constraint, values)
        answer = None if asked is None else await self._constrained(constraint, asked)
        if asked is None or answer is None:
            return
        self._obeys(constraint, asked, answer)
        if asked.sampling.max_tokens > longest:
            assert answer.finish_reason == "stop", (
                f"{answer.text!r} for {constraint} was cut after {answer.usage.completion_tokens} tokens of a byte or "
                f"more, where no text that obeys has more than {longest} bytes"
            )

    async def _stay_with_their_requests(self, prompt: str, kind: StructuredKind) -> None:
        greedy = SamplingParams(max_tokens=LONGEST + 2, temperature=0.0)
        plain = await self.asked(prompt, replace(greedy, logprobs=True))
        made = [(each, await self._request(prompt, each, greedy)) for each in APART[kind]]
        requests = [(each, asked) for each, asked in made if asked is not None]
        before = await ask(self.session, plain)
        *answers, beside = await self.many(*(asked for _, asked in requests), plain)
        after = await ask(self.session, plain)
        for (constraint, asked), answer in zip(requests, answers, strict=True):
            self._obeys(constraint, asked, answer)
        self.agree(before, beside, f"an answer to {prompt!r} changed beside constraints that others gave")
        self.agree(before, after, f"an answer to {prompt!r} changed after constraints that others gave")
