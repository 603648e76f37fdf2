"""LoRA adapters on a shared model: each row of a batch goes through its own, or through none.

Nothing is merged and no layer is replaced. A layer that an adapter changes gets a hook, which adds B·A·x to the
rows that asked for it; the others leave the layer as they would without any adapter. The hook goes with the last
adapter that needs it, so a model without adapters runs as it was loaded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch.nn.functional import linear

from llmengine_core.worker.contract import Refused
from llmengine_transformers.worker.files import listed, read_json, read_tensors

__all__ = ["Adapters"]

WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
KEY = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_([AB])\.weight")
UNDERSTOOD = frozenset({
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "corda_config", "ensure_weight_tying",
    "eva_config", "exclude_modules", "fan_in_fan_out", "inference_mode", "init_lora_weights", "layers_pattern",
    "layers_to_transform", "lora_alpha", "lora_dropout", "lora_ga_config", "megatron_core", "peft_type",
    "peft_version", "qalora_group_size", "r", "rank_pattern", "revision", "runtime_config", "target_modules",
    "task_type", "use_rslora",
})  # fmt: skip
"""Members of adapter_config.json that are obeyed, or that matter in training only."""
STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
"""Values of ``init_lora_weights`` that leave the base model's weights as they are."""

Pair: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""A, of shape (rank, inputs), and B, (outputs, rank), the scaling in it; both float32, as PEFT computes."""
Selected: TypeAlias = list[tuple[str, torch.Tensor | None]]
"""Adapters in use, each with the indices of its rows; None for all of them."""


class Adapters:
    """The adapters of one model."""

    def __init__(self, model: Any) -> None:
        """For a ``PreTrainedModel``; it has none yet."""
        self._model = model
        self._layers: dict[str, _Layer] = {}
        self._names: set[str] = set()
        self._selected: Selected = []
        self._rows = 0

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def load(self, name: str, folder: str) -> None:
        """Make the adapter in a folder, as PEFT saves it, known by a name.

        Raises ``Refused`` where it isn't LoRA and nothing but LoRA, or where it doesn't fit the model; then nothing
        has changed.
        """
        if name in self._names:
            raise Refused(f"an adapter {name!r} is loaded already; unload it first")
        path = Path(folder)
        if not path.is_dir():
            raise Refused(
                f"the adapter {name!r} must be a folder with adapter_config.json; {folder} isn't one"
            )
        pairs = self._read(path)
        for module, pair in pairs.items():
            if module not in self._layers:
                self._layers[module] = _Layer(self._model.get_submodule(module), self)
            self._layers[module].pairs[name] = pair
        self._names.add(name)

    def unload(self, name: str) -> None:
        """Forget an adapter and free what it held. Raises ``Refused`` where there is none of that name."""
        if name not in self._names:
            raise Refused(f"no adapter {name!r} is loaded; there is {listed(self._names) or 'none'}")
        self._names.remove(name)
        for module, layer in list(self._layers.items()):
            layer.pairs.pop(name, None)
            if not layer.pairs:
                layer.remove()
                del self._layers[module]

    @contextmanager
    def rows(self, names: Sequence[str | None]) -> Iterator[None]:
        """Forwards inside send row i of the batch through adapter ``names[i]``, or through none.

        Where a batch is one row, there may be a name for each of its tokens instead.
        """
        used = [name for name in dict.fromkeys(names) if name is not None]
        if used:
            self._rows = len(names)
            self._selected = [(name, self._indices(name, names)) for name in used]
        try:
            yield
        finally:
            self._selected = []

    def add(self, pairs: Mapping[str, Pair], x: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """A layer's output with what the adapters in use add to it, for its input ``x``."""
        for name, indices in self._selected:
            if (pair := pairs.get(name)) is None:
                continue
            if indices is None:
                output = output + _delta(x, pair).to(output.dtype)
            else:
                rows = x.reshape(self._rows, -1, x.shape[-1])
                sums = output.reshape(self._rows, -1, output.shape[-1])
                added = _delta(rows[indices], pair).to(output.dtype)
                output = sums.index_add(0, indices, added).reshape(output.shape)
        return output

    def _indices(self, name: str, names: Sequence[str | None]) -> torch.Tensor | None:
        found = [at for at, each in enumerate(names) if each == name]
        return None if len(found) == len(names) else torch.tensor(found, device=self._model.device)

    def _read(self, folder: Path) -> dict[str, Pair]:
        """The weights of an adapter by the name of the layer that they belong to, checked."""
        config = read_json(folder / "adapter_config.json")
        _check_config(folder, config)
        halves: dict[str, dict[str, torch.Tensor]] = {}
        strangers = []
        for key, tensor in read_tensors(_weights(folder)).items():
            if match := KEY.fullmatch(key):
                halves.setdefault(match[1], {})[match[2]] = tensor
            else:
                strangers.append(key)
        if strangers:
            raise Refused(f"{folder} changes more than linear layers by LoRA: {listed(strangers)}")
        if not halves:
            raise Refused(f"{folder} holds no LoRA weights")
        self._check_modules(folder, config, halves)
        return {
            module: (
                pair["A"].to(self._model.device, torch.float32),
                pair["B"].to(self._model.device, torch.float32)
                * _scaling(folder, config, module, pair["A"].shape[0]),
            )
            for module, pair in halves.items()
        }

    def _check_modules(
        self, folder: Path, config: Mapping[str, Any], halves: Mapping[str, Mapping[str, torch.Tensor]]
    ) -> None:
        """Refuse an adapter that was trained on another model, and numbers that are none."""
        said = config.get("base_model_name_or_path")
        hint = f"; it says that it was trained on {said!r}" if said else ""
        modules = dict(self._model.named_modules())
        if missing := halves.keys() - modules.keys():
            raise Refused(f"{folder} doesn't fit this model, which has no {listed(missing)}{hint}")
        head = self._model.get_output_embeddings()
        for name, pair in halves.items():
            module = modules[name]
            sizes = _sizes(module)
            if sizes is None or module is head or ".experts." in name:
                raise Refused(
                    f"{folder} changes {name}, a {type(module).__name__}; only linear layers inside"
                    " of the model that all tokens go through can have adapters"
                )
            if pair.keys() != {"A", "B"}:
                raise Refused(f"{folder} has only one of lora_A and lora_B for {name}")
            a, b = pair["A"].shape, pair["B"].shape
            if len(a) != 2 or len(b) != 2 or a[0] != b[1] or (a[1], b[0]) != sizes:
                raise Refused(
                    f"{folder} doesn't fit this model: {name} takes {sizes[0]} numbers to {sizes[1]}, while lora_A"
                    f" is {tuple(a)} and lora_B is {tuple(b)}{hint}"
                )
            for half, tensor in pair.items():
                if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
                    raise Refused(f"{folder} has numbers that are not finite in {name}.lora_{half}")


class _Layer:
    """A layer that some adapter changes."""

    def __init__(self, module: torch.nn.Module, adapters: Adapters) -> None:
        self.pairs: dict[str, Pair] = {}
        self._adapters = adapters
        self.remove = module.register_forward_hook(self._hook).remove

    def _hook(
        self, _: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
    ) -> torch.Tensor:
        return self._adapters.add(self.pairs, inputs[0], output)


def _delta(x: torch.Tensor, pair: Pair) -> torch.Tensor:
    return linear(linear(x.to(torch.float32), pair[0]), pair[1])


def _weights(folder: Path) -> Path:
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise Refused(f"{folder} has neither {' nor '.join(WEIGHTS)}; fetch the whole folder again")


def _sizes(module: torch.nn.Module) -> tuple[int, int] | None:
    """How many numbers a linear layer takes and gives."""
    if isinstance(module, torch.nn.Linear):
        return module.in_features, module.out_features
    if type(module).__name__ == "Conv1D":  # how GPT-2 spells a linear layer
        return tuple(module.weight.shape)
    return None


def _check_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse what isn't plain LoRA, the only method whose adapters can share a batch here."""
    method = config.get("peft_type")
    if method != "LORA":
        raise Refused(f"{folder} is an adapter of the method {method!r}; only 'LORA' can be loaded")
    start = config.get("init_lora_weights")
    if start not in STARTS:
        raise Refused(
            f"{folder} was started by {start!r}, which changes the base model's weights; save it with"
            " path_initial_model_for_weight_conversion"
        )
    extra = [key for key, value in config.items() if value and key not in UNDERSTOOD]
    extra += ["bias"] * (config.get("bias", "none") != "none")
    if extra:
        said = ", ".join(f"{key} = {config[key]!r}" for key in sorted(extra))
        raise Refused(f"{folder} is more than LoRA on linear layers, and can't share a batch: {said}")


def _scaling(folder: Path, config: Mapping[str, Any], module: str, rank: int) -> float:
    """α / r, or α / √r for rank-stabilized LoRA (arXiv:2312.03732)."""
    try:
        expected = _by_pattern(config, "rank_pattern", module, "r")
        alpha = _by_pattern(config, "alpha_pattern", module, "lora_alpha")
    except (KeyError, TypeError, ValueError, AttributeError, re.error) as error:
        raise Refused(
            f"{folder / 'adapter_config.json'} says nonsense of the scaling of {module}: {error}"
        ) from None
    if expected != rank or not math.isfinite(alpha):
        raise Refused(
            f"{folder} has rank {rank} for {module}; its adapter_config.json says rank {expected:g}, alpha {alpha:g}"
        )
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def _by_pattern(config: Mapping[str, Any], patterns: str, module: str, default: str) -> float:
    """A number for a module: of the first pattern that its name ends with, or for all."""
    for pattern, value in (config.get(patterns) or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return float(value)
    return float(config[default])
