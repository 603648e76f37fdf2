"""Checkpoints stored another way, against the formats' own arithmetic."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gguf_files import StoredTensor, gguf_file
from llamacpp_engine import Engine, started

from llmengine_core.errors import BadRequestError, ServerError
from llmengine_core.gguf import read_header
from llmengine_core.runtime_local import LocalRuntime
from llmengine_core.types.launch import Deployment
from llmengine_core.types.progress import Progress
from llmengine_llamacpp.plugin import register_transforms
from llmengine_llamacpp.requantize import Requantize
from llmengine_llamacpp.worker.requantize import METHODS

pytestmark = pytest.mark.engine

F32, F16, Q4_1, Q8_0 = 0, 1, 3, 8


def ignore(_: Progress) -> None:
    """Nobody asks."""


def q8_0(weights: np.ndarray) -> bytes:
    """Blocks of 32: a half-precision scale, then a byte for each weight."""
    blocks = weights.reshape(-1, 32).astype(np.float32)
    scale = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0, dtype=np.float32)
    numbers = np.sign(blocks) * np.floor(np.abs(blocks * inverse) + np.float32(0.5))
    rows = zip(scale.astype(np.float16), numbers.astype(np.int8), strict=True)
    return b"".join(one.tobytes() + row.tobytes() for one, row in rows)


def q4_1(weights: np.ndarray) -> bytes:
    """Blocks of 32: a scale, a minimum, then half a byte for each weight."""
    blocks = weights.reshape(-1, 32).astype(np.float32)
    low, high = blocks.min(axis=1, keepdims=True), blocks.max(axis=1, keepdims=True)
    scale = (high - low) / np.float32(15)
    numbers = np.rint(np.divide(blocks - low, scale, out=np.zeros_like(blocks), where=scale != 0)).astype(
        np.uint8
    )
    packed = numbers[:, :16] | numbers[:, 16:] << 4
    rows = zip(scale.astype(np.float16), low.astype(np.float16), packed, strict=True)
    return b"".join(a.tobytes() + b.tobytes() + row.tobytes() for a, b, row in rows)


def from_q4_1(stored: bytes) -> np.ndarray:
    blocks = np.frombuffer(stored, dtype=np.uint8).reshape(-1, 20)
    scale, low = (blocks[:, at : at + 2].copy().view(np.float16).astype(np.float32) for at in (0, 2))
    numbers = np.concatenate([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], axis=1)
    return numbers.astype(np.float32) * scale + low


async def requantized(folder: Path, content: bytes, method: str) -> bytes:
    source, target = folder / "source.gguf", folder / "target.gguf"
    source.write_bytes(content)
    target.unlink(missing_ok=True)
    await Requantize().run(source, target, method=method, on_progress=ignore)
    assert source.read_bytes() == content
    return target.read_bytes()


@pytest.mark.parametrize("alignment", [None, 64])
async def test_each_tensor_is_stored_by_the_formats_arithmetic(tmp_path: Path, alignment: int | None) -> None:
    random = np.random.default_rng(1)
    matrix = random.normal(size=(6, 64)).astype(np.float32)
    half = random.normal(size=(3, 32)).astype(np.float16)
    vector = random.normal(size=64).astype(np.float32)
    odd = random.normal(size=(2, 20)).astype(np.float32)
    small = random.normal(size=(4, 64)).astype(np.float32)
    tensors = {
        "blk.0.ffn_up.weight": StoredTensor((64, 6), F32, matrix.tobytes()),
        "blk.0.ffn_down.weight": StoredTensor((32, 3), F16, half.tobytes()),
        "blk.0.attn_norm.weight": StoredTensor((64,), F32, vector.tobytes()),
        "blk.0.odd.weight": StoredTensor((20, 2), F32, odd.tobytes()),
        "blk.0.attn_q.weight": StoredTensor((64, 4), Q4_1, q4_1(small)),
    }
    source = gguf_file("llama", tensors, alignment=alignment, context_length=64, block_count=1)
    expected = {
        "blk.0.ffn_up.weight": StoredTensor((64, 6), Q8_0, q8_0(matrix)),
        "blk.0.ffn_down.weight": StoredTensor((32, 3), Q8_0, q8_0(half)),
        "blk.0.attn_norm.weight": tensors["blk.0.attn_norm.weight"],
        "blk.0.odd.weight": tensors["blk.0.odd.weight"],
        "blk.0.attn_q.weight": StoredTensor((64, 4), Q8_0, q8_0(from_q4_1(q4_1(small)))),
    }
    target = await requantized(tmp_path, source, "q8_0")
    wanted = gguf_file("llama", expected)
    data = sum(-(-len(tensor.content) // 32) * 32 for tensor in expected.values())
    assert target[-data:] == wanted[-data:]
    header = read_header(target, len(target))
    assert header.quantization == "q8_0"
    assert header.number("llama.context_length") == 64
    assert header.parameters == read_header(source, len(source)).parameters


async def test_what_was_quantized_hard_is_not_quantized_again(tmp_path: Path) -> None:
    weights = np.ones((2, 32), np.float32)
    source = gguf_file("llama", {"blk.0.ffn_up.weight": StoredTensor((32, 2), Q4_1, q4_1(weights))})
    with pytest.raises(BadRequestError, match=r"blk\.0\.ffn_up\.weight.*q4_1.*q4_0.*8 bits or more"):
        await requantized(tmp_path, source, "q4_0")


async def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    weights = np.random.default_rng(2).normal(size=(4, 32)).astype(np.float32)
    tensors = {"token_embd.weight": StoredTensor((32, 4), F32, weights.tobytes())}
    source = gguf_file("llama", tensors)
    assert await requantized(tmp_path, source, "q4_0") == await requantized(tmp_path, source, "q4_0")


@pytest.mark.parametrize(
    "content", [b"", b"text " * 100, b"GGUF", gguf_file("llama", {})[:40], b"GGUF" + b"\xff" * 60]
)
async def test_what_is_no_checkpoint_is_the_callers_mistake(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(BadRequestError, match=r"source\.gguf can't be quantized"):
        await requantized(tmp_path, content, "f16")


async def test_a_truncated_checkpoint_is_the_callers_mistake(tmp_path: Path) -> None:
    tensors = {"blk.0.ffn_up.weight": StoredTensor((32, 1), F32, b"\0" * 128)}
    with pytest.raises(BadRequestError, match=r"truncated.*blk\.0\.ffn_up\.weight"):
        await requantized(tmp_path, gguf_file("llama", tensors)[:-64], "f16")


async def test_one_part_of_several_is_not_worked_on(tmp_path: Path) -> None:
    with pytest.raises(BadRequestError, match="one part of several"):
        await requantized(tmp_path, gguf_file("llama", {}, parts=3), "f16")


async def test_a_target_that_cannot_be_written_is_not(tmp_path: Path, weights: Path) -> None:
    with pytest.raises(ServerError, match="No such file or directory"):
        await Requantize().run(weights, tmp_path / "no" / "x.gguf", method="q8_0", on_progress=ignore)


async def test_an_unknown_method_is_refused(tmp_path: Path, weights: Path) -> None:
    with pytest.raises(BadRequestError, match=r"'awq'.*q8_0"):
        await Requantize().run(weights, tmp_path / "x.gguf", method="awq", on_progress=ignore)


async def test_cancelling_stops_it(tmp_path: Path, weights: Path) -> None:
    begun = asyncio.Event()
    target = tmp_path / "x.gguf"
    work = asyncio.ensure_future(
        Requantize().run(weights, target, method="f16", on_progress=lambda _: begun.set())
    )
    await begun.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    size = target.stat().st_size
    assert size < 2 * 134_515_008
    target.unlink()  # and nobody writes it any more
    assert not target.exists()


def test_what_is_offered_is_what_can_be_done() -> None:
    offered = [method for info in register_transforms() for method in info.methods]
    assert sorted(offered) == sorted(METHODS)  # each once


async def test_a_real_model_answers_the_same_in_eight_bits(
    runtime: LocalRuntime, deployment: Deployment, engine: Engine, weights: Path, tmp_path: Path
) -> None:
    """Four bits fit into eight: what is lost is far below what would change a likely token."""
    target = tmp_path / "q8_0.gguf"
    seen: list[float] = []
    await Requantize().run(weights, target, method="q8_0", on_progress=lambda p: seen.append(p.done))
    assert seen == sorted(seen)
    assert seen[-1] == 1
    prompt = "The capital of France is"
    async with started(runtime, replace(deployment, weights=str(target))) as quantized:
        answer = await quantized.complete(prompt, max_tokens=3, logprobs=True)
    original = await engine.complete(prompt, max_tokens=3, logprobs=True)
    assert answer.text == original.text
    assert answer.logprobs == pytest.approx(original.logprobs, abs=0.1)
