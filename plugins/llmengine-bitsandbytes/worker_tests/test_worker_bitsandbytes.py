"""Real weights in 8 and 4 bits: what the model says, how large it is, and what comes back from a disk."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from llmengine_bitsandbytes.quantizer import BITS, BitsAndBytes
from llmengine_core.worker.contract import Refused
from llmengine_transformers.worker.adapters import Adapters
from llmengine_transformers.worker.loading import Loaded, load

NAMES = list(BITS)
PROMPTS = [
    "The alphabet: a, b, c, d, e, f,",
    "Monday, Tuesday, Wednesday, Thursday,",
    "def add(a, b):\n    return",
    "1, 2, 3, 4, 5, 6,",
]


def loaded(folder: Path, method: str | None = None) -> Loaded:
    options = BitsAndBytes().load_options(method, "transformers") if method else {}
    return load(str(folder), lambda phase, share: None, load_options=options)


def greedy(model: Loaded, prompt: str, count: int = 12) -> torch.Tensor:
    ids = torch.tensor([model.text.encode(prompt)])
    with torch.inference_mode():
        found: torch.Tensor = model.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False
        )
    return found


def logits(model: Loaded, ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model.model(input_ids=ids).logits[0].float()
    return found


@dataclass(frozen=True)
class Reference:
    """What the model says in the 16 bits that it is stored in."""

    texts: list[torch.Tensor]
    logits: list[torch.Tensor]
    size: int


@pytest.fixture(scope="session")
def reference(weights: Path) -> Reference:
    model = loaded(weights)
    texts = [greedy(model, prompt) for prompt in PROMPTS]
    return Reference(texts, [logits(model, text) for text in texts], model.model.get_memory_footprint())


@pytest.fixture(scope="session", params=NAMES)
def quantized(request: pytest.FixtureRequest, weights: Path) -> tuple[str, Loaded]:
    """The model by each method."""
    return request.param, loaded(weights, request.param)


def test_sure_tokens_stay_the_likeliest(quantized: tuple[str, Loaded], reference: Reference) -> None:
    """Where the two likeliest tokens are far enough apart, in logits, for what the method loses."""
    method, model = quantized
    margin, share = {
        "bitsandbytes": (0.5, 1.0),
        "bitsandbytes-nf4": (3.0, 1.0),
        "bitsandbytes-fp4": (3.0, 0.9),
    }[method]
    same: list[bool] = []
    for text, expected in zip(reference.texts, reference.logits, strict=True):
        first, second = expected.topk(2).values.T
        sure = first - second > margin
        same += (logits(model, text).argmax(-1) == expected.argmax(-1))[sure].tolist()
    assert len(same) >= 40
    assert sum(same) >= share * len(same)


def test_it_goes_on_counting(quantized: tuple[str, Loaded], reference: Reference) -> None:
    found = greedy(quantized[1], PROMPTS[3])
    assert torch.equal(found, reference.texts[3])


def test_weights_take_the_bits_that_are_declared(quantized: tuple[str, Loaded], reference: Reference) -> None:
    """All but the embedding, which is the head too and stays in 16 bits."""
    method, model = quantized
    kept = model.model.get_input_embeddings().weight.numel() * 2
    expected = kept + (reference.size - kept) * BITS[method] / 16
    assert model.model.get_memory_footprint() == pytest.approx(expected, rel=0.06)


def test_8_bits_log_nothing(
    weights: Path, quantized: tuple[str, Loaded], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        logits(quantized[1], torch.tensor([[1, 2, 3]]))
    assert caplog.records == []


@pytest.mark.parametrize("method", NAMES)
def test_a_stored_checkpoint_comes_back_the_same(method: str, weights: Path, tmp_path: Path) -> None:
    first = loaded(small(weights, tmp_path / "plain"), method)
    folder = tmp_path / "stored"
    first.model.save_pretrained(folder)
    copy_tokenizer(weights, folder)
    ids = torch.arange(30)[None]
    for again in (loaded(folder, method), loaded(folder)):
        assert again.model.get_memory_footprint() == first.model.get_memory_footprint()
        assert torch.equal(logits(again, ids), logits(first, ids))
    for other in set(NAMES) - {method}:
        with pytest.raises(Refused, match="quantized already, in another way"):
            loaded(folder, other)


@pytest.mark.parametrize("method", NAMES)
def test_adapters_share_a_quantized_base(method: str, weights: Path, tmp_path: Path) -> None:
    base = loaded(small(weights, tmp_path / "base"), method)
    ids = torch.arange(30)[None]
    plain = logits(base, ids)
    config = LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", init_lora_weights=False)
    tuned = get_peft_model(base.model, config).eval()
    with torch.inference_mode():
        expected = tuned(input_ids=ids).logits[0].float()
    tuned.save_pretrained(tmp_path / "adapter")
    tuned.unload()
    adapters = Adapters(base.model)
    adapters.load("mine", str(tmp_path / "adapter"))
    with adapters.rows(["mine"]):
        found = logits(base, ids)
    scale = float((expected - plain).abs().max())
    assert scale > 0.05
    assert float((found - expected).abs().max()) < 0.05 * scale
    assert torch.equal(logits(base, ids), plain)


def test_damage_shows_in_the_logits_of_quantized_weights(weights: Path, tmp_path: Path) -> None:
    folder = small(weights, tmp_path, damage=float("nan"))
    for method in NAMES:
        with pytest.raises(Refused, match="infinite or no numbers"):
            loaded(folder, method)


def small(weights: Path, folder: Path, damage: float | None = None) -> Path:
    """A random model of two layers, with the real tokenizer."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49_152, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, dtype="bfloat16",
    )  # fmt: skip
    model: Any = LlamaForCausalLM(config).to(torch.bfloat16)
    if damage is not None:
        with torch.no_grad():
            model.model.layers[1].mlp.up_proj.weight[3] = damage
    model.save_pretrained(folder)
    copy_tokenizer(weights, folder)
    return folder


def copy_tokenizer(weights: Path, folder: Path) -> None:
    for path in weights.glob("tokenizer*"):
        shutil.copy(path, folder)
