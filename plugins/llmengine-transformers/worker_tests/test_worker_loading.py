"""Checkpoints that load, and every way in which one can be broken, hostile or for something else."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_checkpoints import save_llama, tiny_llama
from small_tokenizers import byte_level, made

from llmengine_core.worker.contract import Refused
from llmengine_transformers.worker.loading import Loaded, load


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint without a flaw."""
    return save_llama(tmp_path_factory.mktemp("sound"))


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    """A copy of it, to be spoilt."""
    return Path(shutil.copytree(sound, tmp_path / "model"))


def loaded(folder: Path, **options: Any) -> Loaded:
    return load(str(folder), lambda phase, share: None, **options)


def refused(folder: Path, **options: Any) -> str:
    with pytest.raises(Refused) as caught:
        loaded(folder, **options)
    return str(caught.value)


def rewrite(path: Path, **changes: Any) -> None:
    """Change members of a JSON file; None takes one out."""
    members = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in members.items() if value is not None}))


def reweigh(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the weights of a checkpoint."""
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def as_pickle(folder: Path, content: Any = None) -> Path:
    """Store the weights as PyTorch does."""
    path = folder / "pytorch_model.bin"
    torch.save(load_file(folder / "model.safetensors") if content is None else content, path)
    (folder / "model.safetensors").unlink()
    return path


# -- what loads ---------------------------------------------------------------------------------------------------


def test_model_is_the_librarys_own_and_ready(sound: Path) -> None:
    found = loaded(sound)
    ids = torch.arange(20)[None]
    assert torch.equal(found.model(input_ids=ids).logits, tiny_llama()(input_ids=ids).logits)
    assert not found.model.training
    assert not any(weight.requires_grad for weight in found.model.parameters())
    assert (found.vocabulary, found.end_tokens, found.context_length) == (512, (1,), 256)
    assert found.text.encode("the cat")


def test_progress_rises_to_the_end_and_nothing_is_printed(
    sound: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    told: list[tuple[str, float]] = []
    load(str(sound), lambda phase, share: told.append((phase, share)))
    shares = [share for _, share in told]
    assert {phase for phase, _ in told} == {"load"}
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert len(shares) > 10
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("form", ["shards", "pickle", "pickled shards"])
def test_other_forms_of_the_same_weights_load(form: str, sound: Path, tmp_path: Path) -> None:
    folder = save_llama(tmp_path / "model", shard="60KB" if "shards" in form else "5GB")
    if form == "pickle":
        as_pickle(folder)
    if form == "pickled shards":
        index = json.loads((folder / "model.safetensors.index.json").read_text())
        for path in folder.glob("*.safetensors"):
            torch.save(load_file(path), path.with_suffix(".bin"))
            path.unlink()
        placed = {name: file.replace(".safetensors", ".bin") for name, file in index["weight_map"].items()}
        (folder / "model.safetensors.index.json").unlink()
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index | {"weight_map": placed}))
    ids = torch.arange(20)[None]
    assert torch.equal(loaded(folder).model(input_ids=ids).logits, loaded(sound).model(input_ids=ids).logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_stay_as_they_are_stored(dtype: torch.dtype, tmp_path: Path) -> None:
    assert loaded(save_llama(tmp_path, dtype)).model.dtype == dtype


def test_weights_are_converted_where_that_is_asked_for(sound: Path) -> None:
    assert loaded(sound, dtype="bfloat16").model.dtype == torch.bfloat16


def test_tied_weights_may_be_stored_once_or_twice(folder: Path) -> None:
    reweigh(
        folder,
        lambda weights: weights.update({"lm_head.weight": weights["model.embed_tokens.weight"].clone()}),
    )
    loaded(folder)
    reweigh(folder, lambda weights: weights.pop("model.embed_tokens.weight"))
    loaded(folder)


def test_end_tokens_are_those_of_all_who_name_one(folder: Path) -> None:
    rewrite(folder / "generation_config.json", eos_token_id=[2])
    assert loaded(folder).end_tokens == (1, 2)


def test_context_is_what_does_not_depend_on_others_in_the_batch(folder: Path) -> None:
    ropes: dict[str, dict[str, Any]] = {
        "linear": {"factor": 4.0},
        "dynamic": {"factor": 4.0},
        "longrope": {
            "factor": 4.0, "original_max_position_embeddings": 64, "short_factor": [1.0] * 8, "long_factor": [2.0] * 8
        },
    }  # fmt: skip
    found = {}
    for kind, rope in ropes.items():
        rewrite(folder / "config.json", rope_parameters={"rope_type": kind, "rope_theta": 1e4} | rope)
        found[kind] = loaded(folder).context_length
    assert found == {"linear": 256, "dynamic": 256, "longrope": 64}


# -- folders and files --------------------------------------------------------------------------------------------


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    assert "is not a folder" in refused(tmp_path / "missing")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "can't be read as JSON"),
        (b"[" * 100_000, "can't be read as JSON"),
        (b"\xff\xfe", "can't be read as JSON"),
        (b"[1]", "holds a list, not a JSON object"),
        (b"{}", "the model type None"),
        (b'{"model_type": "martian"}', "the model type 'martian'"),
        (None, "has no config.json"),
    ],
)
def test_config_that_is_none_is_refused(content: bytes | None, reason: str, folder: Path) -> None:
    path = folder / "config.json"
    path.unlink() if content is None else path.write_bytes(content)
    said = refused(folder)
    assert reason in said
    assert str(folder) in said


def test_config_that_makes_no_sense_is_refused(folder: Path) -> None:
    rewrite(folder / "config.json", num_attention_heads="many")
    assert "config.json is no configuration of a model" in refused(folder)


def test_model_for_another_task_is_refused(folder: Path) -> None:
    rewrite(folder / "config.json", architectures=["LlamaForSequenceClassification"])
    assert "LlamaForSequenceClassification, which was not made to generate text" in refused(folder)


def test_folder_without_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "has no weights" in refused(folder)


def test_cut_off_weights_are_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    said = refused(folder)
    assert str(path) in said
    assert "cut off, fetch it again" in said


def test_missing_shard_is_refused(tmp_path: Path) -> None:
    folder = save_llama(tmp_path, shard="60KB")
    shard = max(folder.glob("*.safetensors"))
    shard.unlink()
    assert f"lacks 1 of 6 files of weights: {shard.name}" in refused(folder)


@pytest.mark.parametrize("placed", [None, {}, {"a": "../other.safetensors"}])
def test_index_that_leads_nowhere_is_refused(placed: Any, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
    assert ("no weight_map" if not placed else "not in its folder: ../other.safetensors") in refused(folder)


# -- code ---------------------------------------------------------------------------------------------------------


class Payload:
    """What an attacker pickles."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.canary}",)


@pytest.mark.parametrize("form", ["torch", "bare"])
def test_pickle_that_calls_something_is_refused_and_not_run(form: str, folder: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    path = as_pickle(folder, {"model.norm.weight": Payload(canary)})
    if form == "bare":
        path.write_bytes(pickle.dumps(Payload(canary), protocol=2))
    said = refused(folder)
    assert not canary.exists()
    assert str(path) in said
    assert "posix.system" in said
    assert "save the weights as safetensors" in said


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_broken_pickle_is_refused(content: bytes | None, folder: Path) -> None:
    path = as_pickle(folder)
    path.write_bytes(path.read_bytes()[:5000] if content is None else content)
    assert str(path) in refused(folder)


def own_code(folder: Path, canary: Path) -> Path:
    """Make a checkpoint that needs code of its own."""
    (folder / "own.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        f"open({str(canary)!r}, 'w').close()\n"
        "class OwnConfig(LlamaConfig):\n    model_type = 'own'\n"
        "class OwnForCausalLM(LlamaForCausalLM):\n    config_class = OwnConfig\n"
    )
    code = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnForCausalLM"}
    rewrite(folder / "config.json", model_type="own", architectures=["OwnForCausalLM"], auto_map=code)
    return folder


def test_code_of_a_checkpoint_runs_only_where_it_is_allowed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = tmp_path / "canary"
    own_code(folder, canary)
    said = refused(folder)
    assert not canary.exists()
    assert "code of its own (own.OwnForCausalLM)" in said
    assert "LLMENGINE_ALLOW_REMOTE_CODE=1" in said
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(tmp_path / "modules")
    found = loaded(folder, allow_remote_code=True)
    assert canary.exists()
    assert type(found.model).__name__ == "OwnForCausalLM"


@pytest.mark.parametrize("allowed", [False, True])
def test_code_is_not_run_for_an_architecture_that_the_library_has(
    allowed: bool, folder: Path, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    own_code(folder, canary)
    rewrite(folder / "config.json", model_type="llama", architectures=["LlamaForCausalLM"])
    assert type(loaded(folder, allow_remote_code=allowed).model).__module__.startswith(
        "transformers.models.llama"
    )
    assert not canary.exists()


# -- weights ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused_by_name(number: float, folder: Path) -> None:
    def spoil(weights: dict[str, torch.Tensor]) -> None:
        weights["model.layers.1.mlp.up_proj.weight"][3, 5] = number

    reweigh(folder, spoil)
    assert "its weights model.layers.1.mlp.up_proj.weight have numbers that are infinite" in refused(folder)


def test_logits_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    folder = save_llama(tmp_path, torch.float16)
    reweigh(folder, lambda weights: [weight.mul_(3e3) for weight in weights.values()])
    assert "computes logits that are infinite or no numbers in float16; load it as float32" in refused(folder)


def test_missing_weights_are_refused_by_name(folder: Path) -> None:
    reweigh(folder, lambda weights: weights.pop("model.layers.0.self_attn.q_proj.weight"))
    assert "lacks weights that its config.json asks for: model.layers.0.self_attn.q_proj.weight" in refused(
        folder
    )


def test_fewer_layers_than_the_config_has_are_refused(folder: Path) -> None:
    rewrite(folder / "config.json", num_hidden_layers=3)
    assert "model.layers.2.input_layernorm.weight, " in refused(folder)


def test_left_over_weights_are_refused_by_name(folder: Path) -> None:
    reweigh(folder, lambda weights: weights.update({"model.extra.weight": torch.zeros(3)}))
    assert "has weights that its config.json has no place for: model.extra.weight" in refused(folder)


def test_weights_of_another_shape_are_refused_by_name(folder: Path) -> None:
    rewrite(folder / "config.json", intermediate_size=128)
    said = refused(folder)
    assert "model.layers.0.mlp.down_proj.weight is (64, 96), not (64, 128) (6 in all)" in said


# -- tokenizers ---------------------------------------------------------------------------------------------------


def test_missing_tokenizer_is_refused(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()
    assert "has no tokenizer" in refused(folder)


def test_broken_tokenizer_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")
    assert "can't be loaded" in refused(folder)


def test_tokenizer_with_more_tokens_than_the_embedding_is_refused(tmp_path: Path) -> None:
    folder = save_llama(tmp_path, vocab_size=300)
    last = len(made(byte_level())) - 1
    assert f"its token 'née ' is {last}, and the embedding has 300 rows" in refused(folder)


def test_end_token_beyond_the_embedding_is_refused(folder: Path) -> None:
    rewrite(folder / "generation_config.json", eos_token_id=512)
    assert "token 512 ends a text; this model's go from 0 to 511" in refused(folder)


def test_end_token_that_is_text_is_refused(folder: Path) -> None:
    rewrite(folder / "generation_config.json", eos_token_id=40)
    rewrite(folder / "config.json", eos_token_id=40)
    rewrite(folder / "tokenizer_config.json", eos_token=None)
    assert "for another model: token 40, which ends its texts, is " in refused(folder)


# -- quantized before, and memory ---------------------------------------------------------------------------------


def test_method_that_is_not_in_the_environment_is_refused(folder: Path) -> None:
    rewrite(folder / "config.json", quantization_config={"quant_method": "aqlm"})
    said = refused(folder)
    assert "quantized as 'aqlm'" in said
    assert "aqlm" in said.partition("here: ")[2]


def test_other_method_than_the_stored_one_is_refused(folder: Path) -> None:
    rewrite(
        folder / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True}
    )
    asked = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    said = refused(folder, load_options=asked)
    assert "quantized already, in another way: load_in_4bit is None there and True was asked for" in said


def test_too_little_memory_is_told_with_figures(folder: Path) -> None:
    rewrite(folder / "config.json", vocab_size=10**12)
    said = refused(folder)
    assert "out of memory: the weights take 0.00 GB on cpu, and " in said
    assert "256000000000000 bytes" in said


def test_weights_larger_than_memory_are_refused_before_they_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmengine_transformers.worker.memory.free_memory", lambda device: 1000)
    assert "the weights take 0.00 GB on cpu, and 0.00 GB are free" in refused(folder)


def test_weights_larger_than_the_limit_are_refused_before_they_are_read(folder: Path) -> None:
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert "on cpu, and this process may use 0.00 GB; raise its limit" in refused(folder, memory=size // 2)
    loaded(folder, memory=2 * size)
