"""Folders in the form of Hugging Face's libraries: config.json beside weights, or PEFT's adapters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from llmengine_core.checkpoint_files import CONFIG_LIMIT, Description, Files, text_of, within
from llmengine_core.gguf import BadHeader
from llmengine_core.sizes import cache_by_config
from llmengine_core.types.plan import CheckpointFacts

__all__ = ["NAMED", "describe_adapter", "describe_model", "preferred"]

MOST_CHECKED = 32
"""Shards whose headers are read; those of more are taken to be like these."""
INDEX_LIMIT = 16 << 20
"""Bytes of the index of shards; larger ones are refused."""
BESIDE_LIMIT = 256 << 20
"""Bytes of a file that belongs to the weights; the largest tokenizers take about 35 MB."""
WHOLE = {"safetensors": "model.safetensors", "pytorch": "pytorch_model.bin"}
"""Weights in one file, as engines look for them first."""
INDEXES = {kind: f"{name}.index.json" for kind, name in WHOLE.items()}
"""The list of their shards, which they look for next."""
NAMED = (".safetensors", ".bin", ".gguf")
"""What names of weights end in."""
ADAPTERS = {"safetensors": "adapter_model.safetensors", "pytorch": "adapter_model.bin"}
BESIDE = (
    "*config.json", "tokenizer.json", "tokenizer.model*", "special_tokens_map.json", "added_tokens.json",
    "chat_template.jinja", "chat_template.json", "vocab.json", "vocab.txt", "merges.txt", "spiece.model",
    "sentencepiece*.model", "*.tiktoken", "tekken.json", "normalizer.json",
)  # fmt: skip
"""Files that say how weights are used: configurations, tokenizers, templates."""
OTHER_FORMS = re.compile(r"consolidated\b.*|(optimizer|scheduler|training_args|rng_state)\b.*")
"""Weights in their makers' own form, and what training leaves behind."""
WIDTHS = {"float32": 4, "float16": 2, "bfloat16": 2}
"""Bytes of a weight, by the name of its type in config.json."""


def preferred(formats: Mapping[str, list[str]], files: Files) -> str | None:
    """The format of the weights that are taken: safetensors before PyTorch, as engines look for them by name."""
    here = [kind for kind in WHOLE if kind in formats]
    proper = [kind for kind in here if WHOLE[kind] in formats[kind] or INDEXES[kind] in files.sizes]
    return next(iter(proper or here), None)


def describe_adapter(url: str, files: Files, weights: Mapping[str, list[str]]) -> Description:
    """One that goes on a base model, as PEFT saves it; what else its training left there isn't its."""
    for kind, name in ADAPTERS.items():
        if name in weights.get(kind, ()):
            break
    else:
        kinds = [kind for kind in ADAPTERS if kind in weights]
        if not kinds:
            raise BadHeader("it has an adapter_config.json, but no adapter weights")
        kind, name = kinds[0], weights[kinds[0]][0]
    if kind == "safetensors":
        files.count_weights([name])  # it is whole
    base = text_of(files.json("adapter_config.json", CONFIG_LIMIT), "base_model_name_or_path")
    facts = CheckpointFacts(url=url, format="adapter", size=files.sizes[name], base=base)
    return Description(facts, None, (name, "adapter_config.json"))


def describe_model(url: str, files: Files, kind: str, names: list[str]) -> Description:
    """A model whose weights, of one format, are the files ``names`` or those that its index names."""
    if "config.json" not in files.sizes:
        raise BadHeader(f"the folder holds {kind} weights, but no config.json that says what they are")
    config = files.json("config.json", CONFIG_LIMIT)
    listed, shards = _shards(files, kind, names)
    size = sum(files.sizes[name] for name in shards)
    model = config["text_config"] if isinstance(config.get("text_config"), dict) else config
    method = _stored(config.get("quantization_config"))
    parameters = None
    if kind == "safetensors":  # their headers also tell whether they are whole
        parameters = files.count_weights(shards[:MOST_CHECKED])
    if kind == "pytorch" or len(shards) > MOST_CHECKED or (method and len(shards) > 1):
        width = WIDTHS.get(str(model.get("dtype") or model.get("torch_dtype") or config.get("torch_dtype")))
        parameters = size // width if width and not method else None
    remote_code = bool(config.get("auto_map"))
    facts = CheckpointFacts(
        url=url,
        format=kind,
        size=size,
        quantization=method,
        architecture=text_of(model, "model_type"),
        parameters=parameters,
        context_length=_count(model, "max_position_embeddings", "n_positions", "max_sequence_length"),
        heads=_count(model, "num_attention_heads", "n_head", "num_heads"),
        cache_bytes=cache_by_config(model),
        remote_code=remote_code,
    )
    return Description(facts, None, (*shards, *listed, *_beside(files, code=remote_code)))


def _beside(files: Files, *, code: bool) -> list[str]:
    """What belongs to the weights of a folder: what says how they are used, and their code if they need it."""
    patterns = (*BESIDE, *(["*.py"] if code else []))
    names = [name for name in files.sizes if "/" not in name]
    found = sorted(name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns))
    for name in found:
        if files.sizes[name] > BESIDE_LIMIT:
            raise BadHeader(f"its {name} has {files.sizes[name]:,} bytes; at most {BESIDE_LIMIT:,} are taken")
    return found


def _stored(quantization: object) -> str | None:
    """How weights are quantized, as their config.json names it.

    One name stands for the three ways of bitsandbytes: 8 bits have it here, those of 4 bits are told apart by their
    type, fp4 where none is given. Before methods had names only bitsandbytes stored any.
    """
    if not isinstance(quantization, dict):
        return None
    named = (text_of(quantization, "quant_method") or "").lower()
    if named in ("", "bitsandbytes"):
        if quantization.get("load_in_4bit"):
            return f"bitsandbytes-{text_of(quantization, 'bnb_4bit_quant_type') or 'fp4'}"
        return "bitsandbytes" if named or quantization.get("load_in_8bit") else None
    return named


def _shards(files: Files, kind: str, names: list[str]) -> tuple[list[str], list[str]]:
    """The index of the weights, if they have one, and the files that hold them; all of these are here.

    One form of the weights is taken: what engines look for first. Another precision beside it, as in
    model.fp16.safetensors, is not.
    """
    whole, index = WHOLE[kind], INDEXES[kind]
    if whole in names:
        return [], [whole]
    if index not in files.sizes:
        ending = names[0].rpartition(".")[2]
        here = [each for each in files.sizes if each.endswith(f".{ending}") and "/" not in each]
        shards = [*names, *sorted(set(here).difference(names))]
        proper = [each for each in shards if not _another_form(each, shards)]
        return [], proper or shards
    placed = files.json(index, INDEX_LIMIT).get("weight_map")
    if not isinstance(placed, dict) or not all(isinstance(name, str) for name in placed.values()):
        raise BadHeader(f"its {index} has no weight_map of texts")
    shards = sorted(set(placed.values()))
    if outside := [name for name in shards if not within(name)]:
        raise BadHeader(f"its {index} names {outside[0]!r}, which is not in its folder")
    if missing := files.missing(shards):
        raise BadHeader(f"{len(missing)} of its {len(shards)} shards are missing, the first is {missing[0]}")
    if not shards:
        raise BadHeader(f"its {index} names no weights")
    return [index], shards


def _another_form(name: str, names: list[str]) -> bool:
    """Whether a file holds the same weights as another in another precision, or none that are served."""
    stem, _, ending = name.rpartition(".")
    return bool(OTHER_FORMS.fullmatch(name)) or f"{stem.rpartition('.')[0]}.{ending}" in names


def _count(config: Mapping[str, Any], *keys: str) -> int | None:
    """The first of these keys that holds a whole number of at least 1."""
    return next((config[key] for key in keys if type(config.get(key)) is int and config[key] > 0), None)
