"""The part of ``bench_transformers`` that runs under the interpreter of an engine environment."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.generation import ContinuousBatchingConfig

from llmengine_core.worker.contract import Order
from llmengine_transformers.worker.engine import TransformersEngine

TEXT = """The lighthouse keeper wrote down the weather every morning, as his father had done before him. On the first
day of March he noted a wind from the north, and that a ship had passed which flew no flag. In the village they said
that he had always been a quiet man, who bought his bread on Tuesdays and asked nobody how they were. But whoever read
his books would have learned what the sea had done in forty years, and when the herring came, and that once, in a
winter that nobody else remembered, the bay had frozen so hard that a fox walked over to the island and back. """
ROUNDS = 3


@dataclass(frozen=True)
class Request:
    tokens: tuple[int, ...]
    new: int


def equal(text: Sequence[int], count: int) -> list[Request]:
    return [Request(tuple(text[5 * at : 5 * at + 32]), 24) for at in range(count)]


def mixed(text: Sequence[int], count: int) -> list[Request]:
    prompts, news = (8, 96, 24, 128, 16, 48, 72, 12), (64, 8, 24, 4, 48, 16, 12, 32)
    return [Request(tuple(text[3 * at : 3 * at + prompts[at % 8]]), news[at * 3 % 8]) for at in range(count)]


def ours(engine: TransformersEngine, requests: Sequence[Request]) -> int:
    for at, each in enumerate(requests):
        engine.join(Order(id=at, tokens=each.tokens, max_tokens=each.new))
    left, made = len(requests), 0
    while left:
        for emitted in engine.step():
            made += 1
            left -= emitted.finish is not None
    return made


def plain(model: Any, requests: Sequence[Request], pad: int) -> int:
    longest, new = max(len(each.tokens) for each in requests), max(each.new for each in requests)
    padding = [longest - len(each.tokens) for each in requests]
    rows = [[pad] * n + list(each.tokens) for n, each in zip(padding, requests, strict=True)]
    mask = [[0] * n + [1] * (longest - n) for n in padding]
    with torch.inference_mode():
        model.generate(
            input_ids=torch.tensor(rows),
            attention_mask=torch.tensor(mask),
            max_new_tokens=new,
            min_new_tokens=new,
            do_sample=False,
        )
    return sum(each.new for each in requests)


def library(manager: Any, requests: Sequence[Request]) -> int:
    for at, each in enumerate(requests):
        manager.add_request(list(each.tokens), request_id=f"{time.monotonic()} {at}", max_new_tokens=each.new)
    left, made = len(requests), 0
    while left:
        found = manager.get_result(timeout=1)
        if found is not None and found.is_finished():
            left -= 1
            made += len(found.generated_tokens)
    return made


def per_cpu_second(run: Callable[[], int]) -> float:
    start = time.process_time()
    made = run()
    return made / (time.process_time() - start)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights")
    parser.add_argument("what", nargs="*", default=["equal", "mixed"])
    parser.add_argument("--at", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    document = {
        "weights": options.weights, "threads": 1, "dtype": options.dtype, "accelerator": "cpu", "load_options": {},
        "allow_remote_code": False, "per_worker": max(options.at), "context_length": 1024, "memory": 16 << 30,
    }  # fmt: skip
    engine = TransformersEngine.load(document, None, lambda phase, done: None)
    engine.end_tokens = frozenset()
    model = AutoModelForCausalLM.from_pretrained(options.weights, dtype=options.dtype)
    batching = AutoModelForCausalLM.from_pretrained(options.weights, dtype=options.dtype)
    manager = batching.init_continuous_batching(
        generation_config=GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0),
        continuous_batching_config=ContinuousBatchingConfig(num_blocks=256, max_batch_tokens=512),
    )
    text = AutoTokenizer.from_pretrained(options.weights)(TEXT * 3)["input_ids"]
    cases = {
        f"{what} at {count}": (equal if what == "equal" else mixed)(text, count)
        for what in options.what
        for count in options.at
    }
    results: dict[str, dict[str, float]] = {}
    for name, requests in cases.items():
        mine, theirs = [], []
        for _ in range(options.rounds):
            mine.append(per_cpu_second(partial(ours, engine, requests)))
            theirs.append(per_cpu_second(partial(plain, model, requests, 0)))
        results[name] = {"ours": statistics.median(mine), "plain": statistics.median(theirs)}
        results[name]["ours / plain"] = results[name]["ours"] / results[name]["plain"]
        if not options.json:
            print(name, {way: round(value, 2) for way, value in results[name].items()}, flush=True)
    manager.start()  # last: it has a thread that is never idle
    for name, requests in cases.items():
        each = [per_cpu_second(partial(library, manager, requests)) for _ in range(options.rounds)]
        results[name]["library"] = statistics.median(each)
        if not options.json:
            print(name, "library", round(results[name]["library"], 2), flush=True)
    manager.stop(block=True, timeout=10)
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
