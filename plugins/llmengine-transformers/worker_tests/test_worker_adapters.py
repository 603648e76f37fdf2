"""Adapters on a shared model, held against PEFT's own model with one of them at a time."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from small_checkpoints import tiny_llama

from llmengine_core.worker.contract import Refused
from llmengine_transformers.worker.adapters import Adapters

KINDS: dict[str, dict[str, Any]] = {
    "attention": {"target_modules": ["q_proj", "v_proj"], "r": 4, "lora_alpha": 16},
    "all": {"target_modules": "all-linear", "r": 8, "lora_alpha": 8},
    "stabilized": {"target_modules": ["down_proj"], "r": 9, "lora_alpha": 6, "use_rslora": True},
    "patterns": {
        "target_modules": ["q_proj", "v_proj", "up_proj"], "layers_to_transform": [1], "r": 4,
        "rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 6}, "alpha_pattern": {"v_proj": 32},
    },
}  # fmt: skip
IDS = torch.randint(3, 500, (1, 12), generator=torch.Generator().manual_seed(7))


def save_adapter(folder: Path, base: Any, seed: int = 0, config: Any = None, **options: Any) -> Path:
    """A LoRA adapter with random weights, as PEFT saves it."""
    torch.manual_seed(seed)
    config = config or LoraConfig(**{"task_type": "CAUSAL_LM", "init_lora_weights": False} | options)
    get_peft_model(base, config).save_pretrained(folder, save_embedding_layers=False)
    return folder


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each kind of adapter."""
    home = tmp_path_factory.mktemp("adapters")
    return {kind: save_adapter(home / kind, tiny_llama(), **options) for kind, options in KINDS.items()}


@pytest.fixture(scope="session")
def expected(folders: dict[str, Path]) -> dict[str | None, torch.Tensor]:
    """The logits that the library gives with each adapter, and with none."""
    with torch.inference_mode():
        found: dict[str | None, torch.Tensor] = {
            kind: PeftModel.from_pretrained(tiny_llama(), folder).eval()(input_ids=IDS).logits
            for kind, folder in folders.items()
        }
        return {None: tiny_llama()(input_ids=IDS).logits, **found}


@pytest.fixture
def model() -> Any:
    return tiny_llama().requires_grad_(False)


@pytest.fixture
def adapters(model: Any, folders: dict[str, Path]) -> Adapters:
    """A model that has them all."""
    found = Adapters(model)
    for kind, folder in folders.items():
        found.load(kind, str(folder))
    return found


def logits(model: Any, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=ids).logits
    return found


def test_adapters_change_what_the_model_says(expected: dict[str | None, torch.Tensor]) -> None:
    for one in expected:
        for other in expected:
            assert one == other or (expected[one] - expected[other]).abs().max() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_gets_what_the_library_computes_for_its_adapter_alone(
    kind: str, model: Any, adapters: Adapters, expected: dict[str | None, torch.Tensor]
) -> None:
    with adapters.rows([kind]):
        torch.testing.assert_close(logits(model), expected[kind])


@pytest.fixture(scope="session")
def shared(folders: dict[str, Path]) -> tuple[Any, Adapters]:
    """One model for many examples."""
    model = tiny_llama().requires_grad_(False)
    adapters = Adapters(model)
    for kind, folder in folders.items():
        adapters.load(kind, str(folder))
    return model, adapters


@given(names=st.lists(st.sampled_from([None, *KINDS]), min_size=1, max_size=7))
def test_rows_of_a_batch_go_through_their_own(
    names: list[str | None], shared: tuple[Any, Adapters], expected: dict[str | None, torch.Tensor]
) -> None:
    model, adapters = shared
    batch = IDS.expand(len(names), -1)
    with adapters.rows(names):
        found = logits(model, batch)
    base = logits(model, batch)
    for at, name in enumerate(names):
        torch.testing.assert_close(found[at], expected[name][0])
        if name is None:
            assert torch.equal(found[at], base[at])


@given(names=st.lists(st.sampled_from([None, *KINDS]), min_size=12, max_size=12))
def test_tokens_of_one_row_go_through_their_own(
    names: list[str | None], shared: tuple[Any, Adapters]
) -> None:
    model, adapters = shared
    layer = model.model.layers[1].self_attn.q_proj
    x = torch.randn(12, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode(), adapters.rows(names):
        together = layer(x[None])[0]
    for at, name in enumerate(names):
        with torch.inference_mode(), adapters.rows([name]):
            torch.testing.assert_close(together[at], layer(x[at][None, None])[0, 0])


def test_rows_without_an_adapter_are_exactly_the_base_in_16_bits(folders: dict[str, Path]) -> None:
    model = tiny_llama().to(torch.bfloat16).requires_grad_(False)
    batch = torch.randint(3, 500, (6, 12))
    base = logits(model, batch)
    adapters = Adapters(model)
    adapters.load("all", str(folders["all"]))
    assert torch.equal(logits(model, batch), base)
    with adapters.rows([None, "all", None, None, "all", None]):
        found = logits(model, batch)
    assert torch.equal(found[[0, 2, 3, 5]], base[[0, 2, 3, 5]])
    assert not torch.equal(found[1], base[1])


def bytes_held() -> int:
    """Of the storages of all tensors that there are."""
    gc.collect()
    tensors = [each for each in gc.get_objects() if isinstance(each, torch.Tensor)]
    storages = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors}
    return sum(storages.values())


def test_unloading_frees_all_of_it_and_leaves_the_model_as_it_was(
    model: Any, folders: dict[str, Path], expected: dict[str | None, torch.Tensor]
) -> None:
    adapters = Adapters(model)
    before = bytes_held()
    for kind, folder in folders.items():
        adapters.load(kind, str(folder))
    numbers = sum(
        weight.numel()
        for folder in folders.values()
        for weight in load_file(folder / "adapter_model.safetensors").values()
    )
    assert bytes_held() == before + 4 * numbers
    for kind in folders:
        adapters.unload(kind)
        assert kind not in adapters
    assert bytes_held() == before
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.equal(logits(model), expected[None])


def test_a_name_is_taken_once_and_given_back(model: Any, folders: dict[str, Path]) -> None:
    adapters = Adapters(model)
    with pytest.raises(Refused, match="no adapter 'mine' is loaded; there is none"):
        adapters.unload("mine")
    adapters.load("mine", str(folders["all"]))
    with pytest.raises(Refused, match="'mine' is loaded already; unload it first"):
        adapters.load("mine", str(folders["attention"]))
    adapters.unload("mine")
    adapters.load("mine", str(folders["attention"]))
    assert "mine" in adapters


# -- what is refused ----------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound adapter, to be spoilt."""
    return save_adapter(tmp_path / "adapter", tiny_llama(), **KINDS["attention"])


@pytest.fixture
def refused(model: Any) -> Iterator[Callable[[Path], str]]:
    """Loads an adapter that must be refused, and must leave nothing behind."""
    adapters = Adapters(model)

    def load(folder: Path) -> str:
        with pytest.raises(Refused) as caught:
            adapters.load("mine", str(folder))
        return str(caught.value)

    yield load
    assert "mine" not in adapters
    assert not any(module._forward_hooks for module in model.modules())


Load = Callable[[Path], str]


def rewrite(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def reweigh(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    path = folder / "adapter_model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path)


Q0 = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"


def test_path_that_is_no_folder_is_refused(folder: Path, refused: Load) -> None:
    assert "must be a folder" in refused(folder / "adapter_config.json")
    assert "must be a folder" in refused(folder / "missing")


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_missing_files_are_refused(name: str, folder: Path, refused: Load) -> None:
    (folder / name).unlink()
    assert f"{folder} has " in (said := refused(folder))
    assert name in said


@pytest.mark.parametrize("content", ["{", "[]"])
def test_config_that_is_none_is_refused(content: str, folder: Path, refused: Load) -> None:
    (folder / "adapter_config.json").write_text(content)
    assert "adapter_config.json" in refused(folder)


def test_adapter_for_a_base_of_another_width_is_refused(tmp_path: Path, refused: Load) -> None:
    folder = save_adapter(tmp_path / "a", tiny_llama(hidden_size=32), **KINDS["attention"])
    rewrite(folder, base_model_name_or_path="some/other")
    said = refused(folder)
    assert (
        "layers.0.self_attn.q_proj takes 64 numbers to 64, while lora_A is (4, 32) and lora_B is (32, 4)"
        in said
    )
    assert "it says that it was trained on 'some/other'" in said


def test_adapter_for_a_base_with_more_layers_is_refused(tmp_path: Path, refused: Load) -> None:
    folder = save_adapter(tmp_path / "a", tiny_llama(num_hidden_layers=3), **KINDS["attention"])
    assert "doesn't fit this model, which has no model.layers.2.self_attn.q_proj" in refused(folder)


def test_base_that_it_names_proves_nothing(folder: Path, model: Any) -> None:
    rewrite(folder, base_model_name_or_path="some/other")
    Adapters(model).load("mine", str(folder))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"use_dora": True}, "use_dora = True"),
        ({"bias": "lora_only"}, "bias = 'lora_only'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save = ['lm_head']"),
        ({"lora_bias": True}, "lora_bias = True"),
        ({"target_parameters": ["mlp.up_proj.weight"]}, "target_parameters = "),
        ({"trainable_token_indices": [3]}, "trainable_token_indices = "),
        ({"init_lora_weights": "olora"}, "was started by 'olora'"),
    ],
)
def test_more_than_plain_lora_is_refused(
    options: dict[str, Any], reason: str, tmp_path: Path, refused: Load
) -> None:
    folder = save_adapter(tmp_path / "a", tiny_llama(), **KINDS["attention"] | options)
    assert reason in refused(folder)


def test_other_methods_are_refused(tmp_path: Path, refused: Load) -> None:
    config = IA3Config(task_type="CAUSAL_LM", target_modules=["k_proj"], feedforward_modules=[])
    folder = save_adapter(tmp_path / "a", tiny_llama(), config=config)
    assert "of the method 'IA3'; only 'LORA' can be loaded" in refused(folder)


@pytest.mark.parametrize(
    ("target", "reason"),
    [("embed_tokens", "changes more than linear layers"), ("lm_head", "changes lm_head, a Linear")],
)
def test_layers_beside_the_inner_linear_ones_are_refused(
    target: str, reason: str, tmp_path: Path, refused: Load
) -> None:
    base = tiny_llama(tie_word_embeddings=False)
    assert reason in refused(save_adapter(tmp_path / "a", base, target_modules=[target]))


def test_numbers_that_are_not_finite_are_refused_by_name(folder: Path, refused: Load) -> None:
    reweigh(folder, lambda weights: weights[Q0.format("B")].fill_(float("nan")))
    assert "not finite in model.layers.0.self_attn.q_proj.lora_B" in refused(folder)


def test_half_a_pair_is_refused(folder: Path, refused: Load) -> None:
    reweigh(folder, lambda weights: weights.pop(Q0.format("A")))
    assert "only one of lora_A and lora_B for model.layers.0.self_attn.q_proj" in refused(folder)


def test_no_weights_at_all_are_refused(folder: Path, refused: Load) -> None:
    reweigh(folder, lambda weights: weights.clear())
    assert "holds no LoRA weights" in refused(folder)


@pytest.mark.parametrize(
    "changes", [{"r": 5}, {"lora_alpha": None}, {"lora_alpha": "x"}, {"rank_pattern": {"(": 3}}]
)
def test_scaling_that_is_none_is_refused(changes: dict[str, Any], folder: Path, refused: Load) -> None:
    rewrite(folder, **changes)
    assert str(folder) in refused(folder)


def test_cut_off_weights_are_refused(folder: Path, refused: Load) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    assert f"{path} (" in refused(folder)


class Payload:
    """What an attacker pickles."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.canary}",)


def test_pickle_loads_where_it_holds_weights_only(
    folder: Path, tmp_path: Path, model: Any, refused: Load
) -> None:
    canary, path = tmp_path / "canary", folder / "adapter_model.bin"
    weights = load_file(folder / "adapter_model.safetensors")
    (folder / "adapter_model.safetensors").unlink()
    torch.save({**weights, "more": Payload(canary)}, path)
    assert "asks for posix.system" in refused(folder)
    assert not canary.exists()
    torch.save({"weights": [1, 2]}, path)
    assert "something else than named tensors" in refused(folder)
    torch.save(weights, path)
    other = Adapters(tiny_llama())
    other.load("mine", str(folder))
    assert "mine" in other
