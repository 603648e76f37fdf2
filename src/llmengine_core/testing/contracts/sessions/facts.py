"""Laws of sessions: what a session says of itself, and what it refuses."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from hypothesis import strategies as st

from llmengine_core.errors import BadRequestError, LLMEngineError, UnsupportedFeatureError
from llmengine_core.testing.answers import Answer, ask, request
from llmengine_core.testing.contracts.sessions.greedy import near_tie
from llmengine_core.testing.contracts.sessions.ground import SessionGround
from llmengine_core.testing.laws import NotApplicable, law
from llmengine_core.testing.strategies import texts
from llmengine_core.types.capabilities import COMBINABLE, Capabilities
from llmengine_core.types.generation import GenerationRequest, Message, Messages, Text, TokenIds
from llmengine_core.types.sampling import StructuredKind, StructuredOutput, Translation

__all__ = ["FactLaws"]

Asking: TypeAlias = tuple[str, GenerationRequest]
"""What is asked for, in a few words, and how."""
READABLE = 4_096
"""Tokens of a prompt that an engine is asked to read."""
READING = 30.0
"""Seconds that reading a prompt may take."""
REFUSABLE = 1 << 17
"""Tokens of a prompt that is made only to be refused."""
VALUES: dict[str, tuple[dict[str, Any], ...]] = {
    "logprobs": ({"logprobs": True},),
    "presence_penalty": ({"presence_penalty": 1.5}, {"presence_penalty": 0.1, "temperature": 1.0}),
    "frequency_penalty": ({"frequency_penalty": 0.5}, {"frequency_penalty": 2.0, "temperature": 1.0}),
    "top_k": ({"top_k": 5, "temperature": 1.0}, {"top_k": 1, "temperature": 0.1}),
    "top_p": ({"top_p": 0.5, "temperature": 1.0},),
    "seed": ({"seed": 7, "temperature": 1.0}, {"seed": 0}),
}
"""By capability: sampling values that need it."""
CONSTRAINTS: dict[StructuredKind, str | tuple[str, ...]] = {
    "json": '{"type": "object"}',
    "regex": "[ab]+",
    "choice": ("yes", "no"),
    "grammar": 'start: "yes" | "no"',
}
NEUTRAL: tuple[dict[str, Any], ...] = (
    {"temperature": 0.0},
    {"temperature": 1.0},
    {"temperature": 0.01, "top_p": 1.0, "top_k": None, "seed": None},
    {"presence_penalty": 0.0, "frequency_penalty": 0.0, "include_stop": True},
    {"presence_penalty": 0, "frequency_penalty": 0, "top_p": 1, "temperature": 0},
    {"top_k": 7},
    {"top_p": 0.3},
)
"""What has no effect beyond what every session does; asked at temperature 0 where nothing else is said."""
RUNS = (
    " ",
    "\n",
    "\t",
    "=",
    "-",
    "*",
    "_",
    "a",
    " the",
    "0",
    "é",
    "字",
    "😀",
    "the and of ",
    "responsibilities ",
)


class FactLaws(SessionGround):
    """Facts are true and stay so; what isn't declared is refused."""

    @law()
    def test_facts_narrow_what_is_declared(self) -> None:
        """The session's capabilities are within what its backend declares, and its figures make sense."""
        facts, declared = self.session.facts, self.declared()
        assert facts.capabilities.within(declared), (
            f"the session says {facts.capabilities}, which is more than what is declared: {declared}"
        )
        assert facts.context_length >= 1, f"context_length is {facts.context_length!r}"
        for name, least in (("prompt_token_overhead", 0), ("longest_token", 1), ("max_concurrent", 1)):
            value = getattr(facts, name)
            assert value is None or (isinstance(value, int) and value >= least), (
                f"{name} is {value!r}, neither None nor {least} or more"
            )

    @law()
    async def test_facts_never_change(self, prompt: str) -> None:
        """facts are the same before, during and after requests, refused ones among them."""
        before = copy.copy(self.session.facts)
        asked = await self.fitted(request(prompt, max_tokens=4))
        stream = self.session.generate(asked)
        try:
            async for _ in stream:
                assert self.session.facts == before, (
                    f"facts were {before}, and {self.session.facts} during a request"
                )
        finally:
            await stream.aclose()
        for _, refused in _undeclared(prompt, self.capabilities):
            await _error_of(self, refused)
        await self.session.count_tokens(Text(prompt))
        assert self.session.facts == before, f"facts were {before}, and later {self.session.facts}"

    @law(text=texts().filter(bool), run=st.sampled_from(RUNS), times=st.integers(1, 300))
    async def test_prompt_token_overhead_bounds_every_prompt(
        self, prompt: str, text: str, run: str, times: int
    ) -> None:
        """A prompt of n UTF-8 bytes never takes more than n + prompt_token_overhead tokens."""
        if (overhead := self.session.facts.prompt_token_overhead) is None:
            raise NotApplicable("prompt_token_overhead is not known")
        for each in (prompt, text, run * times, f"{run * times}{text}"):
            count, size = await self.session.count_tokens(Text(each)), len(each.encode())
            assert count <= size + overhead, (
                f"{each!r} of {size} bytes takes {count} tokens; the facts say at most {overhead} more"
            )

    @law(text=texts().filter(bool), run=st.sampled_from(RUNS), times=st.integers(1, 300))
    async def test_longest_token_bounds_every_prompt(
        self, prompt: str, text: str, run: str, times: int
    ) -> None:
        """A prompt of n UTF-8 bytes never takes fewer than n / longest_token tokens."""
        if (longest := self.session.facts.longest_token) is None:
            raise NotApplicable("longest_token is not known")
        for each in (prompt, text, run * times, "the and of " * (times // 10)):
            count, size = await self.session.count_tokens(Text(each)), len(each.encode())
            assert count * longest >= size, (
                f"{each!r} of {size} bytes takes {count} tokens; and none is said to be of more than {longest} bytes"
            )

    @law("C02")
    async def test_c02_neutral_values_are_never_refused(self, prompt: str) -> None:
        """Values that are off, or without effect at temperature 0, are no features: everybody takes them."""
        for values in NEUTRAL:
            try:
                await self.ask(prompt, **{"max_tokens": 2, **values})
            except LLMEngineError as error:
                raise AssertionError(
                    f"{values}, which nobody needs to declare, raised {error!r} for {prompt!r}"
                ) from error

    @law("C04", weight=0.1)
    async def test_c04_a_prompt_beyond_the_context_is_never_cut(self, prompt: str) -> None:
        """A prompt as long as the context is a BadRequestError, or is read whole; none is cut in silence."""
        context = self.session.facts.context_length
        if context > REFUSABLE:
            raise NotApplicable(f"a prompt beyond a context of {context} tokens can't be tried")
        for beyond in (0, max(1, context // 8)):
            whole = await self._of_length(prompt, context + beyond)
            await self._refused_or_whole(request(whole, max_tokens=1))

    @law("C04", weight=0.1)
    async def test_c04_the_context_ends_an_answer_that_outgrows_it(self, prompt: str) -> None:
        """Where prompt and max_tokens exceed the context: a BadRequestError, or "length" at its end."""
        context = self.session.facts.context_length
        if context > self._readable:
            raise NotApplicable(f"a prompt that nearly fills a context of {context} tokens can't be tried")
        asked = request(await self._of_length(prompt, context - 3), max_tokens=8)
        answer = await self._refused_or_whole(asked)
        if answer is not None and answer.finish_reason == "length":
            total = answer.usage.prompt_tokens + answer.usage.completion_tokens
            assert total >= context - 1 or answer.usage.completion_tokens == 8, (
                f"the answer ended for its length with {total} tokens, of {context} that the context has"
            )

    @law("C04", weight=0.2, share=st.sampled_from((0.3, 0.6, 0.9)))
    async def test_c04_a_long_prompt_that_fits_is_read_whole(self, prompt: str, share: float) -> None:
        """A long prompt that fits the context is answered, and counted to its last token."""
        context = self.session.facts.context_length
        asked = request(
            await self._of_length(prompt, int(min(context, self._readable) * share)), max_tokens=2
        )
        count = await self.session.count_tokens(asked.prompt)
        if count + 2 > context:
            return
        answer = await self._refused_or_whole(asked)
        # Some keep the context's last place free.
        assert answer is not None or count + 2 == context, (
            f"a prompt of {count} tokens and 2 more were refused, and fit the context of {context} that the facts say"
        )

    @law("C13")
    async def test_c13_undeclared_sampling_values_are_refused(self, prompt: str) -> None:
        """A sampling value that isn't declared is an UnsupportedFeatureError before any text; never dropped."""
        await self._refuses(prompt, [*_undeclared_values(prompt, self.capabilities)])

    @law("C13")
    async def test_c13_undeclared_constraints_are_refused(self, prompt: str) -> None:
        """A constraint of a kind that isn't declared is an UnsupportedFeatureError; free text is never given."""
        await self._refuses(prompt, [*_undeclared_constraints(prompt, self.capabilities)])

    @law("C13")
    async def test_c13_undeclared_prompts_and_adapters_are_refused(self, prompt: str) -> None:
        """Token ids, messages and adapters are an UnsupportedFeatureError where they aren't declared."""
        await self._refuses(prompt, [*_undeclared_prompts(prompt, self.capabilities)])

    @law("C13")
    async def test_c13_excluded_combinations_are_refused(self, prompt: str) -> None:
        """What can't be combined with a constraint is an UnsupportedFeatureError beside one."""
        await self._refuses(prompt, [*_excluded(prompt, self.capabilities)])

    @law(level="adapters")
    async def test_an_unknown_adapter_is_a_bad_request(self, prompt: str) -> None:
        """An adapter that was never loaded is a BadRequestError, never the base model's answer."""
        before = await self.ask(prompt, max_tokens=3)
        error = await _error_of(self, request(prompt, adapter="an-adapter-that-nobody-loaded", max_tokens=3))
        assert isinstance(error, BadRequestError), (
            f"an adapter that was never loaded gave {error!r}, not a BadRequestError"
        )
        after = await self.ask(prompt, max_tokens=3)
        self.same_greedy(before, after, "another answer once an unknown adapter was refused")

    @law(level="token_ids")
    async def test_token_ids_that_there_are_not_are_a_bad_request(self) -> None:
        """A token id that the model doesn't have is a BadRequestError, not a crash and not an answer."""
        for ids in ((-1,), (1, 1 << 40), (1 << 31,)):
            error = await _error_of(self, request(TokenIds(ids), max_tokens=2))
            assert isinstance(error, BadRequestError), (
                f"the token ids {ids} gave {error!r}, not a BadRequestError"
            )
        await self.ask("Hello", max_tokens=2)

    @property
    def _readable(self) -> int:
        """Tokens of a prompt that are read in time even where reading takes as long as generating does."""
        _, pace = type(self)._pace or (0, 0.0)
        return int(min(READABLE, READING / pace)) if pace else READABLE

    async def _of_length(self, prompt: str, tokens: int) -> Text:
        """A prompt made of ``prompt`` and filling, of at least ``tokens`` tokens and few more."""
        filling, text = " and then", prompt
        while (count := await self.session.count_tokens(Text(text))) < tokens:
            text += filling * max(1, (tokens - count) // 10)
        return Text(text)

    async def _refused_or_whole(self, asked: GenerationRequest) -> Answer | None:
        """The answer, its prompt counted to the last token; None where it is refused as it may be."""
        prompt, most = asked.prompt, asked.sampling.max_tokens
        count = await self.session.count_tokens(prompt)
        what = f"a prompt of {count} tokens, max_tokens {most}, in a context of {self.session.facts.context_length}"
        try:
            answer = await ask(self.session, asked)
        except BadRequestError:
            return None
        except Exception as error:
            raise AssertionError(f"{what}: {error!r} instead of a BadRequestError") from error
        assert answer.usage.prompt_tokens == count, (
            f"{what}: it was cut in silence, {answer.usage.prompt_tokens} prompt_tokens were read"
        )
        assert answer.usage.completion_tokens <= most, f"{what}: {answer.usage.completion_tokens} generated"
        return answer

    async def _refuses(self, prompt: str, undeclared: Sequence[Asking]) -> None:
        """Raise ``AssertionError`` unless each is refused as C13 has it, and the session goes on as before."""
        if not undeclared:
            raise NotApplicable("there is nothing of the kind that isn't declared")
        before = await self.ask(prompt, max_tokens=3)
        for what, asked in undeclared:
            error = await _error_of(self, asked)
            assert isinstance(error, UnsupportedFeatureError), (
                f"{what} is not declared; it gave {error!r} instead of an UnsupportedFeatureError"
                if error is not None
                else f"{what} is not declared, and was dropped: the session answered {asked}"
            )
        after = await self.ask(prompt, max_tokens=3)
        if not near_tie(before, after):
            assert after.text == before.text, (
                f"after refusals the answer to {prompt!r} is {after.text!r}, before it was {before.text!r}"
            )


async def _error_of(contract: SessionGround, asked: GenerationRequest) -> Exception | None:
    """What the first ``__anext__`` raises; None where it gives a chunk or ends."""
    stream = contract.session.generate(asked)
    try:
        async for _ in stream:
            return None
    except Exception as error:
        return error
    finally:
        await stream.aclose()
    return None


def _undeclared(prompt: str, has: Capabilities) -> Iterator[Asking]:
    yield from _undeclared_values(prompt, has)
    yield from _undeclared_constraints(prompt, has)
    yield from _undeclared_prompts(prompt, has)
    yield from _excluded(prompt, has)


def _undeclared_values(prompt: str, has: Capabilities) -> Iterator[Asking]:
    for name, each in VALUES.items():
        if not getattr(has, name):
            for values in each:
                yield f"{name} ({values})", request(prompt, **values)


def _undeclared_constraints(prompt: str, has: Capabilities) -> Iterator[Asking]:
    for kind in CONSTRAINTS:
        if kind not in has.structured:
            yield f"a constraint of the kind {kind}", request(prompt, structured=_constraint(kind, has))


def _undeclared_prompts(prompt: str, has: Capabilities) -> Iterator[Asking]:
    if not has.token_ids:
        yield "a prompt of token ids", request(TokenIds((1, 2, 3)))
    if not has.messages:
        yield "a conversation", request(Messages((Message("user", prompt),)))
    if has.adapters == "none":
        yield "an adapter", request(prompt, adapter="some-adapter")


def _excluded(prompt: str, has: Capabilities) -> Iterator[Asking]:
    for kind in sorted(has.structured):
        for name in sorted(has.structured_excludes & COMBINABLE):
            if getattr(has, name):
                asked = request(prompt, **VALUES[name][0])
                yield f"{name} with a constraint", replace(asked, structured=_constraint(kind, has))


def _constraint(kind: StructuredKind, has: Capabilities) -> StructuredOutput:
    value = CONSTRAINTS[kind]
    text = value if isinstance(value, str) else "|".join(value)
    return StructuredOutput(kind, value, Translation(has.structured_dialect or "llguidance", text))
