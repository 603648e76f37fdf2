"""The tokenizer of a folder, as llama.cpp knows it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmengine_llamacpp.worker.gguf_head import Value

__all__ = ["tokenizer_of"]

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""Types of tokens."""
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")
END_NAMES = ("eos", "eot", "eom")
"""Places for tokens that end an answer."""


def tokenizer_of(folder: Path, config: Mapping[str, Any]) -> dict[str, Value]:
    """What a GGUF file says of the tokenizer. Raises ``ValueError`` for one that isn't known in every part."""
    tokenizer = _read(folder, "tokenizer.json")
    told = _read(folder, "tokenizer_config.json", missing={})
    pre = pre_tokenizer(tokenizer)
    tokens, types = vocabulary(tokenizer, config["vocab_size"])
    ids = {text: number for number, text in enumerate(tokens)}
    merges = [each if isinstance(each, str) else " ".join(each) for each in tokenizer["model"]["merges"]]
    said: dict[str, Value] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": merges,
    }
    for name, key in (("bos", "bos"), ("unk", "unknown"), ("pad", "padding")):
        if (token := special(name, told, config, ids)) is not None:
            said[f"tokenizer.ggml.{key}_token_id"] = token
    ends = end_tokens(folder, special("eos", told, config, ids), config)
    said |= {f"tokenizer.ggml.{name}_token_id": end for name, end in zip(END_NAMES, ends, strict=False)}
    first, last = around(tokenizer.get("post_processor"))
    for which, found in (("bos", first), ("eos", last)):
        if found not in ([], [said.get(f"tokenizer.ggml.{which}_token_id")]):
            raise ValueError(
                f"its tokenizer puts the tokens {found} around texts, which can't be carried over"
            )
        if (wanted := told.get(f"add_{which}_token")) is not None and bool(wanted) != bool(found):
            raise ValueError(
                f"its tokenizer_config.json says add_{which}_token={wanted!r}; its tokenizer.json does otherwise"
            )
        said[f"tokenizer.ggml.add_{which}_token"] = bool(found)
    if template := chat_template(folder, told):
        said["tokenizer.chat_template"] = template
    return said


def pre_tokenizer(tokenizer: Mapping[str, Any]) -> str:
    """llama.cpp's name for how texts are cut before pieces are merged, every step of it accounted for."""
    model = tokenizer["model"]
    if model.get("type", "BPE") != "BPE" or (tokenizer.get("decoder") or {}).get("type") != "ByteLevel":
        raise ValueError("its tokenizer is not byte-level BPE; what is known to come out right is")
    if any(model.get(name) for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix")):
        raise ValueError("its tokenizer marks or drops pieces of words, which can't be carried over")
    steps = [_step(each) for each in _flat(tokenizer.get("pre_tokenizer"), "pretokenizers")]
    cut = [("ByteLevel", False)]
    names: dict[str, list[tuple[Any, ...]]] = {
        "gpt-2": [("ByteLevel", True)],
        "llama-bpe": [("Split", LLAMA3), *cut],
        "qwen2": [("Split", QWEN2), *cut],
        "smollm": [("Digits", True), ("ByteLevel", True)],
    }
    name = next((name for name, known in names.items() if steps == known), None)
    if name is None:
        raise ValueError(
            f"its tokenizer cuts texts in a way that isn't known here ({json.dumps(tokenizer['pre_tokenizer'])[:300]});"
            f" known are those of {', '.join(names)}"
        )
    normalizer = (tokenizer.get("normalizer") or {}).get("type")
    if normalizer and (normalizer, name) != ("NFC", "qwen2"):
        raise ValueError(f"its tokenizer rewrites texts first ({normalizer}), which can't be carried over")
    if bool(model.get("ignore_merges")) != (name == "llama-bpe"):
        raise ValueError(
            f"its tokenizer says ignore_merges={model.get('ignore_merges')!r}, unlike others like it"
        )
    return name


def _step(step: Mapping[str, Any]) -> tuple[Any, ...]:
    """What matters of one step; the step itself where something in it isn't known."""
    match step:
        case {"type": "ByteLevel", "add_prefix_space": False}:
            return "ByteLevel", step.get("use_regex", True)
        case {"type": "Digits", "individual_digits": digits}:
            return "Digits", digits
        case {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}:
            return "Split", pattern
    return ("unknown", step)


def vocabulary(tokenizer: Mapping[str, Any], size: int) -> tuple[list[str], list[int]]:
    """Texts and types of all tokens; what the tokenizer doesn't name is unused."""
    tokens, types = [f"[PAD{number}]" for number in range(size)], [UNUSED] * size
    named = [(text, token, NORMAL) for text, token in tokenizer["model"]["vocab"].items()]
    for added in tokenizer.get("added_tokens", ()):
        if added["lstrip"] or added["rstrip"] or added["single_word"]:
            raise ValueError(
                f"its token {added['content']!r} takes spaces beside it, which can't be carried over"
            )
        named.append((added["content"], added["id"], CONTROL if added["special"] else USER_DEFINED))
    for text, token, kind in named:
        if not 0 <= token < size:
            raise ValueError(f"its tokenizer has the token {token}; the model has {size:,}")
        tokens[token], types[token] = text, kind
    return tokens, types


def special(
    name: str, told: Mapping[str, Any], config: Mapping[str, Any], ids: Mapping[str, int]
) -> int | None:
    """The token of a name, as the tokenizer's configuration has it, else the model's."""
    text = told.get(f"{name}_token")
    text = text.get("content") if isinstance(text, dict) else text
    if text is None:
        found = config.get(f"{name}_token_id")
        return found if type(found) is int and 0 <= found < len(ids) else None
    if text not in ids:
        raise ValueError(f"its {name}_token is {text!r}, which is none of its tokens")
    return ids[text]


def end_tokens(folder: Path, end: int | None, config: Mapping[str, Any]) -> list[int]:
    """All tokens that end an answer, the tokenizer's own first."""
    told = _read(folder, "generation_config.json", missing={}).get("eos_token_id", config.get("eos_token_id"))
    others = told if isinstance(told, list) else [told]
    ends = list(dict.fromkeys(each for each in (end, *others) if each is not None))
    if any(type(each) is not int or not 0 <= each < config["vocab_size"] for each in ends):
        raise ValueError(f"its end tokens are {ends}; the model has {config['vocab_size']:,} tokens")
    if len(ends) > len(END_NAMES):
        raise ValueError(f"{len(ends)} tokens end its answers; there is room for {len(END_NAMES)}")
    return ends


def around(processor: Mapping[str, Any] | None) -> tuple[list[int], list[int]]:
    """The tokens that come before and after each text."""
    first: list[int] = []
    last: list[int] = []
    for step in _flat(processor, "processors"):
        match step:
            case {"type": "ByteLevel"}:
                pass
            case {"type": "TemplateProcessing", "single": list(parts), "special_tokens": dict(named)}:
                texts = [number for number, part in enumerate(parts) if "Sequence" in part]
                for number, part in enumerate(parts):
                    if number not in texts:
                        side = first if number < texts[0] else last
                        side += named[part["SpecialToken"]["id"]]["ids"]
            case _:
                raise ValueError(f"its tokenizer ends with a {step.get('type')}, which can't be carried over")
    return first, last


def chat_template(folder: Path, told: Mapping[str, Any]) -> str | None:
    """The template of messages, from its own file or the tokenizer's configuration."""
    file = folder / "chat_template.jinja"
    if file.exists():
        return file.read_text(encoding="utf-8")
    found = told.get("chat_template")
    if isinstance(found, list):
        found = next((each.get("template") for each in found if each.get("name") == "default"), None)
    return found if isinstance(found, str) else None


def _flat(step: Mapping[str, Any] | None, inner: str) -> Sequence[Mapping[str, Any]]:
    if step is None:
        return []
    if step.get("type") == "Sequence":
        return [part for each in step[inner] for part in _flat(each, inner)]
    return [step]


def _read(folder: Path, name: str, *, missing: Any = None) -> Any:
    """A JSON object of the folder."""
    try:
        found = json.loads((folder / name).read_bytes())
    except FileNotFoundError:
        if missing is not None:
            return missing
        raise ValueError(f"it has no {name}") from None
    if not isinstance(found, dict):
        raise ValueError(f"its {name} is not a JSON object")
    return found
