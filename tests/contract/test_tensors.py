"""What the laws of transforms read and report, on numbers that are known."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from tests.checkpoint_files import gguf
from tests.contract.mutants.halving import TransformOf

from llmengine_core.testing.checkpoints import GGUF_SHAPES, gguf_file, hugging_face_folder
from llmengine_core.testing.tensors import Unreadable, drift, read_tensors
from llmengine_core.testing.verdicts import run_contract

HIGH = (1 << 3 | 1 << 31).to_bytes(4, "little")
"""The fifth bits of the numbers 3 and 31."""
BLOCKS = {
    8: (struct.pack("<e32b", 0.5, *range(-16, 16)), [0.5 * n for n in range(-16, 16)]),
    2: (struct.pack("<e", 2.0) + bytes([0x90] * 16), [-16.0] * 16 + [2.0] * 16),
    3: (struct.pack("<2e", 2.0, 1.0) + bytes([0x21] * 16), [3.0] * 16 + [5.0] * 16),
    6: (struct.pack("<e", 1.0) + HIGH + bytes(16), [0.0 if n in (3, 31) else -16.0 for n in range(32)]),
    7: (struct.pack("<2e", 1.0, 4.0) + HIGH + bytes(16), [20.0 if n in (3, 31) else 4.0 for n in range(32)]),
    1: (struct.pack("<32e", *range(32)), [float(n) for n in range(32)]),
    30: (struct.pack("<f", 1.5)[2:] * 32, [1.5] * 32),
}


@pytest.mark.parametrize("kind", BLOCKS)
def test_each_way_to_store_weights_is_read(tmp_path: Path, kind: int) -> None:
    stored, numbers = BLOCKS[kind]
    header = gguf({"general.architecture": "llama"}, {"x": ((32,), kind, 0)})
    (tmp_path / "x.gguf").write_bytes(header + stored)
    assert read_tensors(tmp_path / "x.gguf") == {"x": numbers}


def test_what_is_not_known_is_not_guessed(tmp_path: Path) -> None:
    header = gguf({"general.architecture": "llama"}, {"x": ((256,), 12, 0)}, data=144)
    (tmp_path / "x.gguf").write_bytes(header)
    with pytest.raises(Unreadable, match="type 12"):
        read_tensors(tmp_path / "x.gguf")


def test_small_checkpoints_are_the_same_each_time(tmp_path: Path) -> None:
    one, two = gguf_file(tmp_path / "1.gguf"), gguf_file(tmp_path / "2.gguf")
    assert one.read_bytes() == two.read_bytes()
    assert read_tensors(one).keys() == GGUF_SHAPES.keys()
    folder = hugging_face_folder(tmp_path / "hf", "qwen3")
    assert "model.layers.0.self_attn.q_norm.weight" in read_tensors(folder)


def test_drift_is_told_by_name_or_by_size() -> None:
    before = {"a": [3.0, 4.0]}
    assert drift(before, before) == {"largest": 0.0, "mean": 0.0, "relative": 0.0}
    assert drift(before, {"a": [4.0, 4.0]}) == {"largest": 1.0, "mean": 0.5, "relative": 0.2}
    assert drift(before, {"b": [4.0, 3.0]})["relative"] == 0.0
    with pytest.raises(Unreadable, match="2 weights"):
        drift(before, {"b": [1.0]})


def test_a_verdict_holds_what_its_law_measured() -> None:
    (verdict,) = run_contract(TransformOf, ["test_size_and_drift_are_bounded"])
    assert verdict.outcome == "passed"
    assert verdict.figures["f16: size, share of the source"] < 0.6
    assert 0 < verdict.figures["f16: drift, relative"] < 0.001
