"""Penalties, against logits that are taken from the engine and penalized here."""

from __future__ import annotations

from collections import Counter

import pytest
from llamacpp_engine import Engine, lark
from test_llamacpp_answers import likeliest

pytestmark = pytest.mark.engine

# All of it is in the prompt, and most of it is what the model would go on with.
PROMPT = "one two one two one two one two one two one"


async def penalized(engine: Engine, prompt: str, count: int, presence: float, frequency: float) -> list[int]:
    """The greedy tokens by definition: every logit less what its token was generated for."""
    ids = (await engine.ask("/tokenize", {"content": prompt}))["tokens"]
    generated: list[int] = []
    for _ in range(count):
        counts = Counter(generated)
        logits = await likeliest(engine, ids + generated, 500)
        for token, times in counts.items():
            if token in logits:
                logits[token] -= presence + frequency * times
        generated.append(max(logits, key=lambda token: logits[token]))
    return generated


@pytest.mark.parametrize(("presence", "frequency"), [(0.0, 1.0), (0.7, 0.0), (1.5, 0.5)])
async def test_penalties_are_for_what_was_generated(
    engine: Engine, presence: float, frequency: float
) -> None:
    expected = await penalized(engine, PROMPT, 12, presence, frequency)
    answer = await engine.complete(
        PROMPT, max_tokens=12, presence_penalty=presence, frequency_penalty=frequency
    )
    assert [token.id for token in answer.tokens] == expected
    plain = await engine.complete(PROMPT, max_tokens=12)
    assert [token.id for token in plain.tokens] != expected


async def test_c05_penalties_are_repeatable(engine: Engine) -> None:
    first, second = [
        await engine.complete(PROMPT, temperature=0.8, seed=5, presence_penalty=0.5) for _ in range(2)
    ]
    assert first.chunks == second.chunks
    other = await engine.complete(PROMPT, temperature=0.8, seed=6, presence_penalty=0.5)
    assert other.text != first.text


async def test_answers_token_by_token_are_whole_answers(engine: Engine) -> None:
    """A penalty that changes nothing gives the same chunks, whichever way they were made."""
    for prompt in (PROMPT, "Hi", "Repeat: 😀🦊🐉é漢. Again: 😀🦊🐉é漢. Again: 😀🦊🐉é漢. Again:"):
        plain = await engine.complete(prompt, logprobs=True, stop=("!",))
        stepped = await engine.complete(prompt, logprobs=True, stop=("!",), presence_penalty=1e-9)
        assert [token.id for token in stepped.tokens] == [token.id for token in plain.tokens]
        assert (stepped.text, stepped.finish_reason, stepped.usage) == (
            plain.text,
            plain.finish_reason,
            plain.usage,
        )
        assert stepped.logprobs == pytest.approx(plain.logprobs, abs=1e-3)


async def test_an_end_token_ends_an_answer_token_by_token(engine: Engine) -> None:
    prompt = "<|im_start|>user\nSay hi.<|im_end|>\n<|im_start|>assistant\n"
    plain = await engine.complete(prompt, max_tokens=60)
    stepped = await engine.complete(prompt, max_tokens=60, presence_penalty=1e-9)
    assert plain.finish_reason == stepped.finish_reason == "stop"
    assert stepped.chunks == plain.chunks


async def test_frequency_and_a_constraint_go_together(engine: Engine) -> None:
    answer = await engine.complete(
        PROMPT, structured=lark("/( one| two){8}/"), frequency_penalty=2.0, max_tokens=50
    )
    assert Counter(answer.text.split()) == {"one": 4, "two": 4}
