"""Requests of several adapters, and of none, in one batch of the engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import END, VOCABULARY, engine_of, small
from peft import LoraConfig, PeftModel, get_peft_model

from llmengine_core.worker.contract import Emitted, Order, Refused
from llmengine_transformers.worker.engine import TransformersEngine

NAMES = ("north", "south")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("adapters")
    for seed, name in enumerate(NAMES):
        base = small()  # seeds with a number of its own
        torch.manual_seed(seed)
        config = LoraConfig(
            task_type="CAUSAL_LM",
            init_lora_weights=False,
            r=4,
            lora_alpha=99,
            target_modules=["q_proj", "up_proj"],
        )
        get_peft_model(base, config).save_pretrained(home / name)
    return {name: home / name for name in NAMES}


@pytest.fixture
def engine(folders: dict[str, Path]) -> Iterator[TransformersEngine]:
    engine = engine_of(small())
    for name, folder in folders.items():
        engine.load_adapter(name, str(folder))
    yield engine
    for name in NAMES:
        engine.unload_adapter(name)


def test_each_request_goes_through_its_own(engine: TransformersEngine, folders: dict[str, Path]) -> None:
    orders = [
        Order(id=at, tokens=tuple(range(9 + at, 9 + at + length)), max_tokens=12, adapter=name)
        for at, (length, name) in enumerate(
            [(5, "north"), (40, None), (18, "south"), (1, "north"), (20, "south")]
        )
    ]
    found: dict[int, list[Emitted]] = {order.id: [] for order in orders}
    waiting, there = list(orders), 0
    while waiting or there:
        while waiting and there < 4:
            engine.join(waiting.pop(0))
            there += 1
        for emitted in engine.step():
            found[emitted.order].append(emitted)
            there -= emitted.finish is not None
    texts = {order.id: [each.token for each in found[order.id]] for order in orders}
    for order in orders:
        expected = library(folders.get(order.adapter or ""), order)
        assert texts[order.id] == expected
        others = [library(folders.get(name or ""), order) for name in {None, *NAMES} - {order.adapter}]
        assert expected not in others, "the adapters make no difference here"


def library(folder: Path | None, order: Order) -> list[int]:
    model: Any = small()
    if folder is not None:
        model = PeftModel.from_pretrained(model, folder).eval()
    prompt = torch.tensor([order.tokens])
    found = model.generate(
        input_ids=prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=END,
    )
    tokens: list[int] = found[0, len(order.tokens) :].tolist()
    return tokens


def test_an_adapter_that_is_gone_is_refused(engine: TransformersEngine, folders: dict[str, Path]) -> None:
    engine.unload_adapter("north")
    with pytest.raises(Refused, match="no adapter 'north'"):
        engine.join(Order(id=1, tokens=(VOCABULARY - 1,), max_tokens=2, adapter="north"))
    engine.load_adapter("north", str(folders["north"]))
