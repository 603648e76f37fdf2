"""Checkpoints in safetensors on llama.cpp, against the models' own arithmetic."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hf_folders import LAYERS, STRETCHED, TOKENS, WIDTH, Folder, safetensors
from llamacpp_engine import Engine, started

from llmengine_core.errors import BadRequestError, ServerError
from llmengine_core.gguf import read_header
from llmengine_core.routes import Routes
from llmengine_core.runtime_local import LocalRuntime
from llmengine_core.types.launch import Deployment
from llmengine_core.types.plan import CheckpointFacts
from llmengine_core.types.progress import Progress
from llmengine_llamacpp.convert import Convert
from llmengine_llamacpp.plugin import register_backends, register_transforms
from llmengine_llamacpp.requantize import Requantize
from llmengine_llamacpp.worker.hf_model import ARCHITECTURES

engine = pytest.mark.engine


def ignore(_: Progress) -> None:
    """Nobody asks."""


async def converted(source: Path, target: Path) -> Path:
    await Convert().run(source, target, method=None, on_progress=ignore)
    return target


def greedy(folder: Folder, tokens: list[int], count: int) -> tuple[list[int], list[float]]:
    """What follows, and how likely each is, by the arithmetic."""
    found: list[int] = []
    likely: list[float] = []
    for _ in range(count):
        logits = folder.logits([*tokens, *found])
        found.append(int(logits.argmax()))
        likely.append(float(logits.max() - np.log(np.exp(logits - logits.max()).sum()) - logits.max()))
    return found, likely


async def raw(served: Engine, tokens: list[int], count: int) -> list[Any]:
    """Each token that follows, with its log probability, also where it is no whole character."""
    body = {"prompt": tokens, "n_predict": count, "temperature": 0, "n_probs": 1, "ignore_eos": True}
    found: list[Any] = (await served.ask("/completion", body))["completion_probabilities"]
    return found


@engine
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ARCHITECTURES)
async def test_it_answers_as_its_arithmetic_says(
    tmp_path: Path, runtime: LocalRuntime, deployment: Deployment, kind: str, tied: bool
) -> None:
    folder = Folder(kind, tied)
    path = await converted(folder.write(tmp_path / "hf"), tmp_path / "x.gguf")
    prompt = list(range(5, 40))
    expected, likely = greedy(folder, prompt, 6)
    async with started(runtime, replace(deployment, weights=str(path))) as served:
        found = await raw(served, prompt, 6)
    assert [each["id"] for each in found] == expected
    assert [each["logprob"] for each in found] == pytest.approx(likely, abs=0.02)


@engine
async def test_stretched_positions_are_stretched(
    tmp_path: Path, runtime: LocalRuntime, deployment: Deployment
) -> None:
    folder, plain = Folder(), Folder()
    folder.config["rope_parameters"] = STRETCHED
    path = await converted(folder.write(tmp_path / "hf"), tmp_path / "x.gguf")
    prompt = list(range(5, 200))
    expected, likely = greedy(folder, prompt, 4)
    async with started(runtime, replace(deployment, weights=str(path))) as served:
        found = await raw(served, prompt, 4)
    assert [each["id"] for each in found] == expected
    assert [each["logprob"] for each in found] == pytest.approx(likely, abs=0.02)
    assert greedy(plain, prompt, 4)[1] != pytest.approx(likely, abs=0.1)


@engine
@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
async def test_weights_are_what_they_were(tmp_path: Path, kind: str) -> None:
    """Every way to store them; BF16 fits into F16 where it is neither huge nor tiny."""
    folder = Folder(type=kind)
    if kind == "BF16":
        folder.weights = {
            name: (weight.view(np.uint32) & 0xFFFF0000).view(np.float32)
            for name, weight in folder.weights.items()
        }
    content = (await converted(folder.write(tmp_path / "hf"), tmp_path / "x.gguf")).read_bytes()
    header = read_header(content, len(content))
    assert header.quantization == "f16"
    assert header.number("llama.block_count") == LAYERS
    assert header.parameters == sum(weight.size for weight in folder.weights.values())
    embeddings = folder.weights["model.embed_tokens.weight"].astype(np.float16).tobytes()
    norm = folder.weights["model.norm.weight"]
    last = norm.astype(np.float16).astype(np.float32).tobytes() if kind == "F16" else norm.tobytes()
    assert embeddings in content
    assert content.endswith(last)


@engine
async def test_equal_input_gives_equal_bytes_that_name_no_place(tmp_path: Path) -> None:
    first = await converted(Folder().write(tmp_path / "one"), tmp_path / "1.gguf")
    second = await converted(Folder().write(tmp_path / "two"), tmp_path / "2.gguf")
    assert first.read_bytes() == second.read_bytes()
    assert str(tmp_path).encode() not in first.read_bytes()


@engine
async def test_shards_are_read_by_their_index(tmp_path: Path) -> None:
    folder = Folder()
    whole = await converted(folder.write(tmp_path / "whole"), tmp_path / "whole.gguf")
    path = folder.write(tmp_path / "shards")
    (path / "model.safetensors").unlink()
    names = sorted(folder.weights)
    placed = {name: f"model-{number % 2}.safetensors" for number, name in enumerate(names)}
    for file in set(placed.values()):
        part = {name: folder.weights[name] for name in names if placed[name] == file}
        (path / file).write_bytes(safetensors(part))
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
    assert (await converted(path, tmp_path / "shards.gguf")).read_bytes() == whole.read_bytes()
    (path / "model-1.safetensors").unlink()
    with pytest.raises(
        BadRequestError, match=r"shards can't be stored as GGUF: it has no model-1\.safetensors"
    ):
        await converted(path, tmp_path / "missing.gguf")


@engine
async def test_texts_are_cut_as_the_tokenizer_says(
    tmp_path: Path, runtime: LocalRuntime, deployment: Deployment
) -> None:
    digits = {"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": True}, Folder().tokenizer["pre_tokenizer"],
    ]}  # fmt: skip
    expected = {
        "plain": ["the", "Ġ1", "2", "<think>", "<|end|>"],
        "digits": ["the", "Ġ", "1", "2", "<think>", "<|end|>"],
    }
    for name, pieces in expected.items():
        folder = Folder()
        if name == "digits":
            folder.tokenizer["pre_tokenizer"] = digits
        path = await converted(folder.write(tmp_path / name), tmp_path / f"{name}.gguf")
        async with started(runtime, replace(deployment, weights=str(path))) as served:
            found = await served.ask("/tokenize", {"content": "the 12<think><|end|>", "parse_special": True})
        assert [TOKENS[token] for token in found["tokens"]] == pieces


def change(part: str, **entries: Any) -> Callable[[Folder], None]:
    return lambda folder: getattr(folder, part).update(entries)


def reshape(folder: Folder) -> None:
    folder.weights["model.norm.weight"] = np.ones(WIDTH + 1, np.float32)


def add(name: str, value: float = 1.0) -> Callable[[Folder], None]:
    return lambda folder: folder.weights.update({name: np.full((WIDTH, WIDTH), value, np.float32)})


def fill(value: float) -> Callable[[Folder], None]:
    return lambda folder: folder.weights["model.layers.1.mlp.up_proj.weight"].__setitem__((3, 3), value)


def spaced(folder: Folder) -> None:
    folder.tokenizer["added_tokens"][2]["lstrip"] = True


def metaspace(folder: Folder) -> None:
    folder.tokenizer["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"}


NO_TEXT = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<|end|>", "type_id": 0}}],
    "pair": [],
    "special_tokens": {"<|end|>": {"id": "<|end|>", "ids": [1], "tokens": ["<|end|>"]}},
}
"""Puts a token around a text, and leaves out the text."""


@engine
@pytest.mark.parametrize(
    ("how", "message"),
    [
        (change("config", model_type="gemma9"), "architecture is 'gemma9'; .* llama, qwen2, qwen3"),
        (change("config", model_type="qwen2"), "heads are 32 wide; llama.cpp takes them for another size"),
        (change("config", attention_bias=True), "attention_bias=True, which can't be carried over"),
        (change("config", hidden_act="gelu"), "hidden_act='gelu'"),
        (change("config", quantization_config={"quant_method": "awq"}), "quantization_config="),
        (change("config", layer_types=["full_attention", "sliding_attention"]), "don't attend to everything"),
        (change("config", rope_parameters={"rope_type": "yarn", "factor": 8}), "positions are scaled .*yarn"),
        (change("config", rope_parameters={"rope_type": "llama3", "factor": 8}), "KeyError 'low_freq_factor'"),
        (change("config", rope_parameters=STRETCHED | {"factor": 0.5}), "positions are scaled .* makes no sense"),
        (change("config", rope_scaling={"type": "linear"}, rope_parameters=None), "positions are scaled"),
        (change("config", num_hidden_layers=3), r"no tensor model\.layers\.2\."),
        (change("config", num_hidden_layers=2**31 - 1), "20 tensors, too few for its layers"),
        (change("config", vocab_size=2**31 - 1), r"embed_tokens\.weight has the shape"),
        (change("tokenizer", model={"type": "BPE"}), "its files are not as they should be: KeyError"),
        (change("config", num_hidden_layers="many"), "num_hidden_layers='many'"),
        (change("config", rms_norm_eps=10**400), "its files are not as they should be: OverflowError"),
        (change("tokenizer", post_processor=NO_TEXT), "its files are not as they should be: IndexError"),
        (change("config", tie_word_embeddings=False), r"no tensor lm_head\.weight"),
        (change("config", vocab_size=100), r"embed_tokens\.weight has the shape"),
        (add("model.layers.0.self_attn.sinks"), r"a tensor model\.layers\.0\.self_attn\.sinks"),
        (reshape, r"model\.norm\.weight has the shape \(65,\); .*\(64,\)"),
        (fill(float("nan")), r"up_proj\.weight holds weights that are no numbers"),
        (fill(1e30), r"up_proj\.weight holds weights that are no numbers, or too large for 16 bits"),
        (spaced, "'<think>' takes spaces beside it"),
        (metaspace, "cuts texts in a way that isn't known here .*Metaspace"),
        (change("tokenizer", normalizer={"type": "NFKC"}), r"rewrites texts first \(NFKC\)"),
        (change("tokenizer", decoder={"type": "Metaspace"}), "not byte-level BPE"),
        (change("tokenizer", post_processor={"type": "BertProcessing"}), "ends with a BertProcessing"),
        (change("tokenizer_config", add_bos_token=True), "add_bos_token=True; its tokenizer.json does otherwise"),
        (change("tokenizer_config", eos_token="</s>"), "eos_token is '</s>', which is none of its tokens"),
    ],
)  # fmt: skip
async def test_what_is_not_known_to_come_out_right_is_refused(
    tmp_path: Path, how: Callable[[Folder], None], message: str
) -> None:
    folder = Folder()
    how(folder)
    with pytest.raises(BadRequestError, match=f"(?s)hf can't be stored as GGUF: .*{message}"):
        await converted(folder.write(tmp_path / "hf"), tmp_path / "x.gguf")


@engine
@pytest.mark.parametrize("cut", [0, 5, 100, 3_000, 40_000])
async def test_what_is_truncated_is_the_callers_mistake(tmp_path: Path, cut: int) -> None:
    folder = Folder().write(tmp_path / "hf")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(BadRequestError, match=r"truncated|empty"):
        await converted(folder, tmp_path / "x.gguf")


@engine
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
async def test_a_folder_that_lacks_something_is_the_callers_mistake(tmp_path: Path, name: str) -> None:
    folder = Folder().write(tmp_path / "hf")
    (folder / name).unlink()
    with pytest.raises(BadRequestError, match=f"it has no {name}"):
        await converted(folder, tmp_path / "x.gguf")
    (folder / name).write_text("{nonsense")
    with pytest.raises(BadRequestError, match="hf can't be stored as GGUF"):
        await converted(folder, tmp_path / "x.gguf")


@engine
async def test_a_target_that_cannot_be_written_is_not(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="No such file or directory"):
        await converted(Folder().write(tmp_path / "hf"), tmp_path / "no" / "x.gguf")


@engine
async def test_cancelling_stops_it(tmp_path: Path) -> None:
    begun = asyncio.Event()
    source, target = Folder().write(tmp_path / "hf"), tmp_path / "x.gguf"
    work = asyncio.ensure_future(
        Convert().run(source, target, method=None, on_progress=lambda _: begun.set())
    )
    await begun.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    target.unlink()  # and nobody writes it any more
    assert not target.exists()


async def test_it_quantizes_nothing(tmp_path: Path) -> None:
    with pytest.raises(BadRequestError, match="can't make 'q8_0'"):
        await Convert().run(tmp_path, tmp_path / "x.gguf", method="q8_0", on_progress=ignore)


@pytest.mark.parametrize("method", [None, "f16", "q8_0", "q4_0"])
def test_the_resolver_finds_the_way_to_each_quantization(method: str | None) -> None:
    checkpoint = CheckpointFacts(url="x", format="safetensors", architecture="llama")
    routes = Routes(checkpoint, register_transforms())
    (backend,) = register_backends()
    route = routes.quantized(backend, method) if method else routes.plain(backend)
    assert route is not None
    first, *rest = route.steps
    assert (first.transform, first.method) == ("safetensors_to_gguf", None)
    assert [step.method for step in rest] == ([method] if method else [])
    other = replace(checkpoint, architecture="mamba")
    assert Routes(other, register_transforms()).plain(backend) is None


@engine
async def test_what_was_converted_can_be_requantized(
    tmp_path: Path, runtime: LocalRuntime, deployment: Deployment
) -> None:
    folder = Folder()
    path = await converted(folder.write(tmp_path / "hf"), tmp_path / "x.gguf")
    await Requantize().run(path, tmp_path / "q8_0.gguf", method="q8_0", on_progress=ignore)
    prompt = list(range(5, 40))
    expected, _ = greedy(folder, prompt, 2)
    async with started(runtime, replace(deployment, weights=str(tmp_path / "q8_0.gguf"))) as served:
        assert [each["id"] for each in await raw(served, prompt, 2)] == expected
