"""Penalties on what was generated, from an engine that counts the prompt's tokens as well.

llama.cpp subtracts ``frequency × count + presence`` from the logit of each token that it has seen, also in
the prompt. The part for frequency is made good in advance: ``frequency × count in the prompt`` stays the same
all along. The part for presence is not: it must go once the token is generated, and nothing can be changed in
a request that runs. So where presence counts each token is a request of its own, its penalties computed here,
on a slot that still holds all but the newest token. That takes about a tenth more time.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from llmengine_core.types.sampling import SamplingParams
from llmengine_llamacpp.client import Client
from llmengine_llamacpp.wire import RANDOM_SEED, Frame, is_progress

__all__ = ["step_by_step", "with_frequency_penalty"]

LONGEST_CHARACTER = 4
"""Bytes, and so tokens, that a character may have."""


def with_frequency_penalty(body: Frame, penalty: float, prompt: Sequence[int], context_length: int) -> Frame:
    """The request with ``penalty`` for each time that a token was generated."""
    return {
        **body,
        "samplers": ["penalties", *body["samplers"]],
        "frequency_penalty": penalty,
        "repeat_last_n": context_length,
        "logit_bias": [(token, penalty * count) for token, count in Counter(prompt).items()],
    }


async def step_by_step(
    client: Client, body: Frame, sampling: SamplingParams, prompt: Sequence[int]
) -> AsyncGenerator[Frame, None]:
    """The events of one request, as ``Client.stream`` gives them, by a request for each token."""
    if len(prompt) > 1:
        # All but the last token is read ahead, in a way that can be cancelled; nothing is generated from it.
        async with aclosing(client.stream({**body, "prompt": prompt[:-1], "n_predict": 0})) as frames:
            async for frame in frames:
                if is_progress(frame):
                    yield {**frame, "tokens_evaluated": len(prompt)}
    seeds = None if sampling.seed is None else random.Random(sampling.seed)
    body = {**body, "cache_prompt": True, "n_predict": 1, "n_probs": 1}
    body["response_fields"] = ["content", "tokens", "stop_type", "completion_probabilities"]
    generated: list[int] = []
    counts: Counter[int] = Counter()
    character: list[int] = []
    stop_type = "limit"
    while len(generated) < sampling.max_tokens and stop_type != "eos":
        body["prompt"] = [*prompt, *generated]
        body["seed"] = RANDOM_SEED if seeds is None else seeds.randrange(RANDOM_SEED)
        body["logit_bias"] = [
            (token, -sampling.presence_penalty - sampling.frequency_penalty * count)
            for token, count in counts.items()
        ]
        answer = await client.complete(body)
        stop_type = answer["stop_type"]
        (token,) = answer["tokens"]
        generated.append(token)
        counts[token] += 1
        # The first byte of a longer character comes without probabilities, and as U+FFFD.
        probabilities = answer.get("completion_probabilities")
        text = answer["content"]
        if stop_type != "eos" and (character or not probabilities):
            character.append(token)
            text = await client.detokenize(character)
            if not probabilities or (text.endswith("\ufffd") and len(character) < LONGEST_CHARACTER):
                continue
            character.clear()
        yield {
            "content": text,
            "tokens": [token],
            "completion_probabilities": probabilities,
            "stop": False,
            "tokens_predicted": len(generated),
            "tokens_evaluated": len(prompt),
        }
    yield {
        "stop": True,
        "stop_type": stop_type,
        "tokens_predicted": len(generated),
        "tokens_evaluated": len(prompt),
    }
