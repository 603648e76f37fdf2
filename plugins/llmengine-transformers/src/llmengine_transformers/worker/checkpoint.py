"""What a checkpoint's folder holds, told from its small files and its weights' headers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from llmengine_core.worker.contract import Refused
from llmengine_transformers.worker.files import check_tensors, listed, read_json

__all__ = ["Checkpoint", "look"]

WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""In the order in which the library looks for them."""
TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "*.tiktoken",
    "tekken.json",
)
SAID_OF_STORAGE = ("quant_method", "load_in_8bit", "load_in_4bit", "bnb_4bit_quant_type", "bits")
"""Members of a quantization's configuration that say how the weights themselves are written."""
OTHER_TASK = re.compile(r"For(?!CausalLM|ConditionalGeneration)\w+$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A folder that seems to hold a model."""

    folder: Path
    weights: tuple[Path, ...]
    """Its files of weights: all of one kind, all there, safetensors whole."""
    own_code: bool
    """Whether it needs code that comes with it, and may run it."""
    quantization: str | None
    """How it was quantized before, as it names it."""

    @property
    def size(self) -> int:
        """Bytes of its weights."""
        return sum(path.stat().st_size for path in self.weights)


def look(folder: str, load_options: Mapping[str, Any], allow_remote_code: bool) -> Checkpoint:
    """Check all that can be without reading weights. Raises ``Refused``."""
    path = Path(folder)
    if not path.is_dir():
        raise Refused(
            f"{folder} is not a folder; a checkpoint is one with config.json, a tokenizer and weights"
        )
    config = read_json(path / "config.json")
    own_code = _needs_own_code(path, config, allow_remote_code)
    stored = config.get("quantization_config") or {}
    _check_quantization(path, stored, load_options.get("quantization_config") or {})
    if not any(True for name in TOKENIZERS for _ in path.glob(name)):
        raise Refused(
            f"{path} has no tokenizer (none of {', '.join(TOKENIZERS)}); fetch the whole folder again"
        )
    return Checkpoint(
        folder=path, weights=_weights(path), own_code=own_code, quantization=stored.get("quant_method")
    )


def _needs_own_code(path: Path, config: Mapping[str, Any], allowed: bool) -> bool:
    """Whether code of the checkpoint must run; never where the library has the architecture itself."""
    kind = config.get("model_type")
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        for name in config.get("architectures") or ():
            if OTHER_TASK.search(str(name)):
                raise Refused(
                    f"{path} holds a {name}, which was not made to generate text; use a …ForCausalLM"
                )
        return False
    code = (config.get("auto_map") or {}).get("AutoModelForCausalLM")
    if code is None:
        raise Refused(
            f"{path / 'config.json'} names the model type {kind!r}, which transformers {transformers.__version__} has"
            " no text generation for; use a newer one (inference_framework_image_tag) or another framework"
        )
    if not allowed:
        raise Refused(
            f"{path} is a {kind!r} that comes with code of its own ({code}), and it isn't allowed to run; if you trust"
            " it, set LLMENGINE_ALLOW_REMOTE_CODE=1"
        )
    return True


def _check_quantization(path: Path, stored: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    differ = [
        key for key in SAID_OF_STORAGE if stored and key in asked and asked[key] != stored.get(key, False)
    ]
    if differ:
        said = ", ".join(
            f"{key} is {stored.get(key)!r} there and {asked[key]!r} was asked for" for key in differ
        )
        raise Refused(
            f"{path} is quantized already, in another way: {said}; leave quantize out to take it as it is"
        )


def _weights(path: Path) -> tuple[Path, ...]:
    name = next((name for name in WEIGHTS if (path / name).is_file()), None)
    if name is None:
        raise Refused(f"{path} has no weights (none of {', '.join(WEIGHTS)}); fetch the whole folder again")
    if not name.endswith(".json"):
        files = {name}
    else:
        placed = read_json(path / name).get("weight_map")
        if not isinstance(placed, dict) or not placed:
            raise Refused(f"{path / name} has no weight_map, so nobody knows where the weights are")
        files = {str(file) for file in placed.values()}
        if outside := [file for file in files if Path(file).name != file]:
            raise Refused(f"{path / name} names files that are not in its folder: {listed(outside)}")
    found = tuple(path / file for file in sorted(files))
    if missing := [each.name for each in found if not each.is_file()]:
        raise Refused(f"{path} lacks {len(missing)} of {len(found)} files of weights: {listed(missing)}")
    for each in found:
        if each.suffix == ".safetensors":
            check_tensors(each)
    return found
