"""What a session answers, against the real engine."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llamacpp_engine import CONTEXT, Engine, lark

from llmengine_core.errors import BadRequestError
from llmengine_core.types.generation import Message, Messages, Text, TokenIds

pytestmark = pytest.mark.engine

FRANCE = "The capital of France is"
LONG = " ".join(f"Item {number} costs {number * 7 % 31} coins." for number in range(10))
"""Several batches of prompt."""


async def test_c01_the_prompt_is_sent_as_it_is(engine: Engine) -> None:
    prompt = "<|im_start|>user\nHi<|im_end|>\n"
    own = await engine.ask("/tokenize", {"content": prompt, "parse_special": True})
    answer = await engine.complete(prompt, max_tokens=1)
    assert answer.usage.prompt_tokens == len(own["tokens"])


async def test_c01_a_conversation_goes_through_the_models_template(engine: Engine) -> None:
    turns = [Message("system", "Be brief."), Message("user", "Hi")]
    template = (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    spoken = await engine.complete(Messages(tuple(turns)))
    written = await engine.complete(template)
    assert spoken.chunks == written.chunks


async def test_a_prompt_of_token_ids_is_the_same_prompt(engine: Engine) -> None:
    ids = (await engine.ask("/tokenize", {"content": FRANCE}))["tokens"]
    assert (await engine.complete(TokenIds(tuple(ids)))).chunks == (await engine.complete(FRANCE)).chunks


@pytest.mark.parametrize("token", [10**6, -1, 1 << 31, 1 << 40])
async def test_token_ids_that_the_model_lacks_are_the_callers_mistake(engine: Engine, token: int) -> None:
    with pytest.raises(BadRequestError, match=r"invalid tokens|has no token"):
        await engine.complete(TokenIds((1, token)))


@pytest.mark.parametrize("prompt", [FRANCE, LONG])
async def test_c05_greedy_text_is_repeatable_to_the_last_bit(engine: Engine, prompt: str) -> None:
    first = await engine.complete(prompt, logprobs=True)
    await asyncio.gather(*(engine.complete(f"{number} {LONG}", max_tokens=2) for number in range(4)))
    stream = engine.session.generate(engine.request(LONG))
    await anext(stream)
    await stream.aclose()
    await engine.idle()
    again = await engine.complete(prompt, logprobs=True)
    assert again.chunks == first.chunks


async def test_c05_greedy_takes_the_likeliest_token(engine: Engine) -> None:
    answer = await engine.complete(FRANCE, max_tokens=8, logprobs=True, top_k=50, top_p=0.9)
    ids = (await engine.ask("/tokenize", {"content": FRANCE}))["tokens"]
    for token in answer.tokens:
        best = await likeliest(engine, ids, 1)
        assert token.id == next(iter(best))
        ids.append(token.id)


async def test_c05_top_k_and_top_p_have_no_effect_when_greedy(engine: Engine) -> None:
    assert (await engine.complete(FRANCE, top_k=3, top_p=0.1)).text == (await engine.complete(FRANCE)).text


async def test_top_k_of_one_is_greedy(engine: Engine) -> None:
    greedy = await engine.complete(FRANCE)
    assert (await engine.complete(FRANCE, temperature=1.0, top_k=1)).text == greedy.text


async def test_a_tiny_top_p_is_greedy(engine: Engine) -> None:
    greedy = await engine.complete(FRANCE)
    assert (await engine.complete(FRANCE, temperature=1.0, top_p=1e-6)).text == greedy.text


@pytest.mark.parametrize("temperature", [5e-324, 1e-45, 1.1754943508222875e-38, 1e-30])
async def test_the_smallest_temperatures_are_greedy(engine: Engine, temperature: float) -> None:
    greedy = await engine.complete(FRANCE)
    assert (await engine.complete(FRANCE, temperature=temperature)).text == greedy.text


async def test_a_seed_repeats_a_sample_and_another_gives_another(engine: Engine) -> None:
    async def sample(seed: int) -> str:
        return (await engine.complete(FRANCE, temperature=1.0, seed=seed)).text

    first = await sample(7)
    assert await sample(7) == first
    assert {await sample(seed) for seed in range(4)} != {first}


async def test_without_a_seed_samples_differ(engine: Engine) -> None:
    samples = [await engine.complete(FRANCE, temperature=1.0, max_tokens=24) for _ in range(3)]
    assert len({sample.text for sample in samples}) > 1


@pytest.mark.parametrize(
    "text", ["It was 10:30, naïve café — 😀🦊🐉 漢字.\n", "🦊" * 6, " a  b\t\tc\n\n\nd", "e\u0301👩‍👩‍👧‍👦"]
)
async def test_c07_tokens_join_to_the_text(engine: Engine, text: str) -> None:
    answer = await engine.complete("Say it:", structured=lark(_quoted(text)), max_tokens=200, logprobs=True)
    assert answer.text == text
    assert answer.finish_reason == "stop"
    assert "".join(token.text for token in answer.tokens) == text
    assert b"".join(token.bytes or b"" for token in answer.tokens) == text.encode()
    assert len(answer.tokens) <= answer.usage.completion_tokens
    for value in answer.logprobs:
        assert value is not None
        assert math.isfinite(value)
        assert value <= 0


async def test_c07_there_is_one_token_for_each_that_was_generated(engine: Engine) -> None:
    answer = await engine.complete("Say it:", structured=lark('"It was ten."'), max_tokens=50, logprobs=True)
    assert len(answer.tokens) == answer.usage.completion_tokens
    assert answer.tokens[-1].text == ""


async def test_c07_tokens_that_share_a_character_are_the_last_of_them(engine: Engine) -> None:
    text = "🦊🐉"
    answer = await engine.complete("Say it:", structured=lark(_quoted(text)), max_tokens=50, logprobs=True)
    assert [token.text for token in answer.tokens] == ["🦊", "🐉", ""]
    ids = (await engine.ask("/tokenize", {"content": "Say it:" + text}))["tokens"]
    ids = ids[len((await engine.ask("/tokenize", {"content": "Say it:"}))["tokens"]) :]
    assert answer.usage.completion_tokens == len(ids) + 1  # its end
    assert [token.id for token in answer.tokens[:2]] == [ids[2], ids[5]]
    before = (await engine.ask("/tokenize", {"content": "Say it:"}))["tokens"] + ids[:2]
    raw = await likeliest(engine, before, 40_000)
    assert answer.tokens[0].logprob == pytest.approx(raw[ids[2]], abs=1e-3)


@pytest.mark.parametrize("stepwise", [False, True])
async def test_c07_a_character_that_is_cut_is_counted_and_not_shown(engine: Engine, stepwise: bool) -> None:
    prompt = "Repeat: 🦊🐉🦊🐉🦊🐉🦊🐉🦊"
    penalty = 1e-9 if stepwise else 0.0
    whole = await engine.complete(prompt, max_tokens=9, presence_penalty=penalty)
    sizes = [len(token.text.encode()) for token in whole.tokens]
    assert max(sizes) == 4, "the model goes on with emoji"
    for most in range(1, 9):
        cut = await engine.complete(prompt, max_tokens=most, presence_penalty=penalty)
        assert whole.text.startswith(cut.text)
        assert "\ufffd" not in cut.text
        assert "".join(token.text for token in cut.tokens) == cut.text
        assert (cut.usage.completion_tokens, cut.finish_reason) == (most, "length")


async def test_c07_log_probs_are_of_the_raw_distribution(engine: Engine) -> None:
    ids = (await engine.ask("/tokenize", {"content": FRANCE}))["tokens"]
    raw = await likeliest(engine, ids, 40_000)
    assert sum(map(math.exp, raw.values())) == pytest.approx(1, abs=1e-3)
    for sampling in (
        {"temperature": 0.3, "top_k": 3, "top_p": 0.5},
        {"temperature": 1.0, "frequency_penalty": 2.0},
        {"presence_penalty": 2.0},
        {"structured": lark('" London" | " Rome"')},
    ):
        answer = await engine.complete(FRANCE, max_tokens=1, logprobs=True, **sampling)
        assert answer.tokens[0].logprob == pytest.approx(raw[answer.tokens[0].id], abs=1e-3)


async def test_c07_no_log_probs_unless_asked_for(engine: Engine) -> None:
    assert set((await engine.complete(FRANCE)).logprobs) == {None}


@pytest.mark.parametrize("count", [1, 2, 7])
async def test_c08_generates_no_more_than_asked_for(engine: Engine, count: int) -> None:
    answer = await engine.complete(FRANCE, max_tokens=count)
    assert answer.usage.completion_tokens == len(answer.tokens) == count
    assert answer.finish_reason == "length"


async def test_c08_counts_the_end_token(engine: Engine) -> None:
    ids = (await engine.ask("/tokenize", {"content": "Paris"}))["tokens"]
    answer = await engine.complete(FRANCE, structured=lark('"Paris"'))
    assert (answer.text, answer.finish_reason) == ("Paris", "stop")
    assert answer.usage.completion_tokens == len(ids) + 1


async def test_c09_the_last_chunk_alone_has_a_reason_and_usage(engine: Engine) -> None:
    *rest, last = (await engine.complete(FRANCE)).chunks
    assert last.finish_reason == "length"
    assert last.usage is not None
    assert all(chunk.finish_reason is None and chunk.usage is None for chunk in rest)


async def test_c09_an_incomplete_character_at_the_end_is_dropped(engine: Engine) -> None:
    text = "a😀🦊é漢"
    whole = await engine.complete("Say it:", structured=lark(_quoted(text)), max_tokens=50)
    for count in range(1, whole.usage.completion_tokens):
        answer = await engine.complete("Say it:", structured=lark(_quoted(text)), max_tokens=count)
        assert text.startswith(answer.text)
        assert answer.usage.completion_tokens == count
        assert answer.finish_reason == "length"


async def test_c04_the_whole_context_can_be_used(engine: Engine) -> None:
    prompt = TokenIds((330,) * (CONTEXT - 8))
    answer = await engine.complete(prompt, max_tokens=8, structured=lark("/(.|\\n){100}/"))
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (CONTEXT - 8, 8)


@pytest.mark.parametrize(
    ("prompt_tokens", "max_tokens"), [(CONTEXT - 8, 9), (CONTEXT, 1), (CONTEXT + 100, 16), (5, CONTEXT)]
)
async def test_c04_what_does_not_fit_is_refused_with_three_numbers(
    engine: Engine, prompt_tokens: int, max_tokens: int
) -> None:
    with pytest.raises(BadRequestError) as refusal:
        await engine.complete(TokenIds((330,) * prompt_tokens), max_tokens=max_tokens)
    for number in (prompt_tokens, max_tokens, CONTEXT):
        assert str(number) in refusal.value.message
    await engine.idle()


@pytest.mark.parametrize("stop", ["😀🦊", "🦊", "fé 😀", "é", "\n漢", "字"])
@pytest.mark.parametrize("include", [False, True])
async def test_c06_stops_lie_across_token_borders(engine: Engine, stop: str, include: bool) -> None:
    text = "naïve café 😀🦊🐉\n漢字 and more"
    answer = await engine.complete(
        "Say it:", structured=lark(_quoted(text)), max_tokens=60, stop=(stop,), include_stop=include
    )
    end = text.index(stop)
    assert answer.text == text[: end + len(stop) if include else end]
    assert answer.finish_reason == "stop"


async def test_c06_any_number_of_stop_sequences(engine: Engine) -> None:
    stops = tuple(f"<{number}>" for number in range(500))
    whole = await engine.complete(FRANCE)
    unstopped = await engine.complete(FRANCE, stop=stops)
    assert (unstopped.text, unstopped.usage) == (whole.text, whole.usage)
    stopped = await engine.complete(FRANCE, stop=(*stops, whole.text[10:13], whole.text[8:14]))
    assert stopped.text == whole.text[:10]


async def test_c06_counts_tokens_up_to_the_one_that_completed_the_stop(engine: Engine) -> None:
    whole = await engine.complete(FRANCE)
    stop = whole.tokens[4].text[-1]
    count = next(n for n, token in enumerate(whole.tokens, 1) if stop in token.text)
    answer = await engine.complete(FRANCE, stop=(stop,))
    assert answer.usage.completion_tokens == len(answer.tokens) == count


async def test_c06_the_work_is_over_when_the_last_chunk_is_given(engine: Engine) -> None:
    whole = await engine.complete(FRANCE)
    stream = engine.session.generate(engine.request(FRANCE, max_tokens=300, stop=(whole.text[:3],)))
    async for chunk in stream:
        if chunk.finish_reason:
            async with asyncio.timeout(10):  # 300 tokens take longer
                await engine.idle()
            break
    else:
        pytest.fail("no chunk had a finish reason")
    await stream.aclose()


async def test_c06_text_held_back_at_the_end_is_given(engine: Engine) -> None:
    whole = await engine.complete(FRANCE)
    answer = await engine.complete(FRANCE, stop=(whole.text + "!",))
    assert (answer.text, answer.finish_reason, answer.usage) == (whole.text, "length", whole.usage)


async def test_c14_concurrent_answers_do_not_mix(engine: Engine) -> None:
    async def one(number: int) -> str:
        answer = await engine.complete(f"{number}", structured=lark(f'"It is number {number}."'))
        return answer.text

    answers = await asyncio.gather(*(one(number) for number in range(12)))
    assert answers == [f"It is number {number}." for number in range(12)]


async def test_counts_tokens_as_it_charges_them(engine: Engine) -> None:
    for prompt in (Text(FRANCE), Messages((Message("user", "Hi"),)), TokenIds((1, 2, 3))):
        answer = await engine.complete(prompt, max_tokens=1)
        assert await engine.session.count_tokens(prompt) == answer.usage.prompt_tokens


@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60))
async def test_c04_a_prompt_never_has_more_tokens_than_the_bound(engine: Engine, text: str) -> None:
    overhead = engine.session.facts.prompt_token_overhead
    assert overhead is not None
    assert await engine.session.count_tokens(Text(text)) <= len(text.encode()) + overhead


async def test_facts_are_the_childs(engine: Engine) -> None:
    facts = engine.session.facts
    assert facts.context_length == CONTEXT
    assert facts.max_concurrent == 4
    assert set(facts.versions) == {"xllamacpp", "weights"}


async def likeliest(engine: Engine, ids: list[int], count: int) -> dict[int, float]:
    """The raw log probabilities after a prompt, from the engine itself; the likeliest token first."""
    body: dict[str, Any] = {"prompt": ids, "n_predict": 1, "temperature": 0, "n_probs": count}
    answer = await engine.ask("/completion", {**body, "cache_prompt": False})
    top = answer["completion_probabilities"][0]["top_logprobs"]
    return {each["id"]: each["logprob"] for each in top}


def _quoted(text: str) -> str:
    return '"' + text.replace("\n", "\\n").replace("\t", "\\t") + '"'
