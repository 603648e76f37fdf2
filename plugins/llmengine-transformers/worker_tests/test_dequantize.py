"""GGUF files as safetensors, held against what the library itself makes of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import small_ggufs
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    LlamaConfig,
    PretrainedConfig,
)
from transformers.integrations.gguf import convert_gguf_tokenizer
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from llmengine_transformers.worker import dequantize
from llmengine_transformers.worker.gguf_file import NotFit, read
from llmengine_transformers.worker.gguf_rope import rope_parameters
from llmengine_transformers.worker.gguf_tokenizer import PRE_TOKENIZERS

ARCHITECTURES = ("llama", "qwen2", "qwen3")


def converted(source: Path, target: Path) -> Path:
    dequantize.convert(source, target, lambda _: None)
    return target


def by_the_library(path: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_model_is_the_one_that_the_library_makes(tmp_path: Path, architecture: str, tied: bool) -> None:
    source = small_ggufs.write(tmp_path / "x.gguf", architecture, kind="Q8_0", tied=tied)
    expected = by_the_library(source)
    model, info = AutoModelForCausalLM.from_pretrained(
        converted(source, tmp_path / "out"), dtype=torch.float32, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    weights = model.state_dict()
    assert list(weights) == list(expected.state_dict())
    for name, weight in expected.state_dict().items():
        assert torch.equal(weights[name], weight.to(torch.bfloat16).float()), name
    tokens = torch.arange(2, 40)[None]
    expected.load_state_dict(weights)
    assert torch.equal(model(tokens).logits, expected(tokens).logits)


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_each_way_to_store_weights_is_read(tmp_path: Path, kind: str) -> None:
    source = small_ggufs.write(tmp_path / "x.gguf", kind=kind)
    weights = by_the_library(source).state_dict()
    model = AutoModelForCausalLM.from_pretrained(converted(source, tmp_path / "out"), dtype="auto")
    assert model.dtype == torch.bfloat16
    assert all(
        torch.equal(value, weights[name].to(torch.bfloat16)) for name, value in model.state_dict().items()
    )


TEXTS = st.text(alphabet="the in 123's\n\t.é😀LL'd<|turn|>_", max_size=20) | st.text(max_size=12)


@pytest.mark.parametrize("pre", ["gpt-2", "llama-bpe", "qwen2"])
def test_texts_are_tokenized_as_by_the_library(tmp_path_factory: pytest.TempPathFactory, pre: str) -> None:
    folder = tmp_path_factory.mktemp(pre)
    source = small_ggufs.write(folder / "x.gguf", pre=pre)
    tokenizer = AutoTokenizer.from_pretrained(converted(source, folder / "out"))
    ggml = {"tokens": small_ggufs.TOKENS, "merges": small_ggufs.MERGES, "token_type": small_ggufs.TYPES}
    oracle, _ = convert_gguf_tokenizer("llama", ggml | {"tokenizer_type": "gpt2", "pre_tokenizer_type": pre})

    @given(text=TEXTS)
    def equal(text: str) -> None:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert ids == oracle.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids) == text

    equal()


def test_digits_stand_alone_where_the_vocabulary_was_learned_so(tmp_path: Path) -> None:
    found = {}
    for pre in PRE_TOKENIZERS:
        source = small_ggufs.write(tmp_path / f"{pre}.gguf", pre=pre)
        tokenizer = AutoTokenizer.from_pretrained(converted(source, tmp_path / pre))
        found[pre] = tokenizer.convert_ids_to_tokens(tokenizer("the 12", add_special_tokens=False).input_ids)
    assert found["gpt-2"] == ["the", small_ggufs.SPACE + "1", "2"]
    assert found["llama-bpe"] == ["the", small_ggufs.SPACE, "12"]
    assert found["qwen2"] == found["smollm"] == ["the", small_ggufs.SPACE, "1", "2"]


@pytest.mark.parametrize(
    ("add", "expected"),
    [
        ({}, [2, 3]),
        ({"tokenizer.ggml.add_bos_token": True}, [0, 2, 3]),
        ({"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": True}, [0, 2, 3, 1]),
        ({"tokenizer.ggml.pre": "llama-bpe"}, [0, 2, 3]),
        ({"tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.add_bos_token": False}, [2, 3]),
    ],
)
def test_tokens_around_a_text(tmp_path: Path, add: dict[str, Any], expected: list[int]) -> None:
    source = small_ggufs.write(tmp_path / "x.gguf", add=add)
    tokenizer = AutoTokenizer.from_pretrained(converted(source, tmp_path / "out"))
    assert tokenizer("\x00\x01").input_ids == expected
    assert tokenizer.bos_token_id == 0
    assert tokenizer.eos_token_id == 1
    message = [{"role": "user", "content": "x"}]
    assert tokenizer.apply_chat_template(message, tokenize=False) == "x"


def test_every_token_that_ends_an_answer_is_named(tmp_path: Path) -> None:
    turn = len(small_ggufs.TOKENS) - 1
    source = small_ggufs.write(tmp_path / "x.gguf", add={"tokenizer.ggml.eot_token_id": turn})
    model = AutoModelForCausalLM.from_pretrained(converted(source, tmp_path / "out"))
    assert model.generation_config.eos_token_id == [1, turn]


def divisors(config: PretrainedConfig) -> np.ndarray:
    """What the library's own frequencies are divided by, against those that aren't scaled."""
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    head = config.head_dim
    plain = config.rope_parameters["rope_theta"] ** -(np.arange(0, head, 2) / head)
    found: np.ndarray = plain / scaled.numpy()
    return found


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_stretched_positions_are_stretched(tmp_path: Path, factor: float) -> None:
    """llama.cpp stores divisors; the library computes them from parameters."""
    rope = {
        "rope_type": "llama3",
        "rope_theta": 500_000.0,
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8_192,
    }
    head = small_ggufs.head_size("llama")
    stored = divisors(LlamaConfig(head_dim=head, rope_parameters=rope, max_position_embeddings=131_072))
    assert stored.min() == pytest.approx(1)
    assert stored.max() == pytest.approx(factor)
    source = small_ggufs.write(
        tmp_path / "x.gguf", tensors={"rope_freqs.weight": stored}, add={"llama.rope.freq_base": 500_000.0}
    )
    config = AutoConfig.from_pretrained(converted(source, tmp_path / "out"))
    assert config.rope_parameters == rope
    assert np.allclose(divisors(config), stored, rtol=1e-6)


NAN = np.full((small_ggufs.WIDTH,), np.nan, np.float32)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            {"add": {"general.architecture": "gemma9"}},
            "architecture is 'gemma9'; what is known .* llama, qwen2, qwen3",
        ),
        ({"add": {"split.count": 3}}, "one part of several; merge"),
        (
            {"add": {"llama.rope.scaling.type": "yarn"}},
            r"llama\.rope\.scaling\.type='yarn', which can't be carried",
        ),
        ({"add": {"llama.expert_count": 8}}, r"llama\.expert_count=8"),
        ({"add": {"llama.rope.dimension_count": 8}}, r"rope\.dimension_count=8; heads are 16 wide"),
        ({"add": {"llama.block_count": None}}, "no num_hidden_layers"),
        ({"add": {"llama.block_count": 2**31 - 1}}, "too few for 2,147,483,647 layers"),
        ({"add": {"llama.block_count": "many"}}, "num_hidden_layers='many'; it must be a positive number"),
        ({"add": {"llama.attention.head_count": [4, 2]}}, r"num_attention_heads=\[4, 2\]"),
        ({"add": {"llama.attention.key_length": 15}}, "heads are 15 wide; it must be an even number"),
        ({"add": {"general.alignment": 0}}, "general.alignment is 0"),
        ({"add": {"llama.block_count": 3}}, r"no tensor blk\.2\."),
        (
            {"add": {"llama.embedding_length": 32}},
            r"token_embd\.weight has the shape \(271, 64\); .*\(271, 32\)",
        ),
        ({"tensors": {"rope_freqs.weight": NAN}}, r"rope_freqs\.weight has the shape \(64,\)"),
        (
            {"tensors": {"rope_freqs.weight": NAN[:8]}},
            r"rope_freqs\.weight scale positions in a way that isn't known",
        ),
        (
            {"tensors": {"rope_freqs.weight": np.arange(1.0, 9.0)}},
            "scale positions in a way that isn't known",
        ),
        (
            {"tensors": {"blk.0.attn_sinks.weight": NAN}},
            r"a tensor blk\.0\.attn_sinks\.weight, which can't be carried",
        ),
        ({"tensors": {"output_norm.weight": None}}, r"no tensor output_norm\.weight"),
        ({"tensors": {"output_norm.weight": NAN}}, r"output_norm\.weight holds weights that are no numbers"),
        ({"add": {"tokenizer.ggml.model": "llama"}}, "tokenizer is of the kind 'llama'"),
        ({"pre": "tekken"}, "split in the way 'tekken'.*smollm"),
        ({"add": {"tokenizer.ggml.merges": ["a b c"]}}, "merge 'a b c' is not one of two"),
        ({"add": {"tokenizer.ggml.merges": ["nothing like"]}}, "don't fit together"),
        ({"add": {"tokenizer.ggml.eos_token_id": 5_000}}, "eos_token_id=5000; it has 271 tokens"),
        ({"tokens": [*small_ggufs.TOKENS[:-1], "<think>"]}, "1 of its tokens have the name of another"),
        ({"tokens": [*small_ggufs.TOKENS, "more"]}, "272 tokens, and embeddings for 271"),
    ],
)
def test_what_is_not_known_to_come_out_right_is_refused(
    tmp_path: Path, how: dict[str, Any], message: str
) -> None:
    with pytest.raises(NotFit, match=message):
        converted(small_ggufs.write(tmp_path / "x.gguf", **how), tmp_path / "out")


def test_positions_that_are_stretched_without_end_are_refused() -> None:
    waves = 2 * np.pi * 10_000.0 ** (np.arange(0, 64, 2) / 64)
    share = np.clip((8_192 / waves - 1) / 3, 0, 1)
    with np.errstate(divide="ignore"), pytest.raises(NotFit, match="scale positions in a way"):
        rope_parameters(10_000.0, 64, 1 / share)


@given(data=st.data())
def test_a_file_that_was_cut_off_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    whole = small_ggufs.write(folder / "x.gguf", kind="Q4_0").read_bytes()
    (folder / "y.gguf").write_bytes(whole[: data.draw(st.integers(0, len(whole) - 64))])
    with pytest.raises(NotFit, match=r"truncated|damaged|empty|no GGUF"):
        read(folder / "y.gguf")


@given(data=st.data())
def test_a_damaged_head_is_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    content = bytearray(small_ggufs.write(folder / "x.gguf", kind="Q4_0").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, 1_500))] = data.draw(st.integers(0, 255))
    (folder / "y.gguf").write_bytes(content)
    with suppress(
        ValueError, KeyError, TypeError, AttributeError, IndexError
    ):  # each is a refusal of the script
        converted(folder / "y.gguf", folder / "out")


def test_equal_input_gives_equal_bytes_that_name_no_place(tmp_path: Path) -> None:
    first = small_ggufs.write(tmp_path / "one.gguf")
    (tmp_path / "elsewhere").mkdir()
    second = tmp_path / "elsewhere" / "two.gguf"
    second.write_bytes(first.read_bytes())
    made = [converted(first, tmp_path / "a"), converted(second, tmp_path / "b")]
    names = sorted(path.name for path in made[0].iterdir())
    assert names == [
        "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    ]  # fmt: skip
    for name in names:
        content = (made[0] / name).read_bytes()
        assert content == (made[1] / name).read_bytes()
        assert str(tmp_path).encode() not in content


def test_the_script_says_how_far_it_is_and_why_it_failed(tmp_path: Path) -> None:
    source = small_ggufs.write(tmp_path / "x.gguf")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(source: Path, target: Path) -> subprocess.CompletedProcess[str]:
        document = json.dumps({"source": str(source), "target": str(target)})
        script = [sys.executable, "-I", dequantize.__file__]
        return subprocess.run(
            script, input=document + "\n", env=environment, capture_output=True, text=True, check=False
        )

    done = run(source, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    told = [json.loads(line)["progress"] for line in done.stdout.splitlines()]
    assert told == sorted(told)
    assert told[-1] == 1
    assert len(told) == len(small_ggufs.shapes("llama", tied=True))
    refused = run(Path(dequantize.__file__), tmp_path / "other")
    assert (refused.returncode, refused.stderr) == (2, "it is no GGUF file\n")
    failed = run(source, tmp_path / "out")
    assert failed.returncode == 1
    assert "FileExistsError" in failed.stderr


def test_weights_are_rounded_to_the_nearest(tmp_path: Path) -> None:
    numbers = np.random.default_rng(1).integers(0, 2**32, 100_000, np.uint32).view(np.float32)
    numbers = numbers[np.isfinite(numbers)]
    expected = torch.from_numpy(numbers).to(torch.bfloat16).view(torch.int16).numpy().tobytes()
    assert dequantize.bfloat16(numbers) == expected


def test_the_table_of_types_is_the_package_own(tmp_path: Path) -> None:
    source = small_ggufs.write(tmp_path / "x.gguf", kind="Q5_1")
    file, oracle = read(source), gguf.GGUFReader(source)
    for tensor in oracle.tensors:
        assert np.array_equal(
            file.weights(file.tensors[tensor.name]), gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        )
