"""The tokenizer that a GGUF file describes, as the files that ``AutoTokenizer`` reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

from llmengine_transformers.worker.gguf_file import NotFit

__all__ = ["PRE_TOKENIZERS", "write_tokenizer"]

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PRE_TOKENIZERS: Mapping[str, tuple[str | None, bool]] = {
    "gpt-2": (None, False),
    "llama-bpe": (LLAMA3, False),
    "qwen2": (LLAMA3.replace("{1,3}", ""), False),
    "smollm": (None, True),
}
"""What texts are cut by before pieces are merged, by ``tokenizer.ggml.pre``: a pattern, or None for GPT-2's own;
and whether each digit stands alone. Others are refused, not guessed."""
CONTROL, USER_DEFINED = 3, 4
"""Types of tokens that are read as a whole wherever a text spells them."""
BEGINS = {"llama-bpe"}
"""Where texts begin with a start token although the file doesn't say so."""


def write_tokenizer(metadata: Mapping[str, Any], context_length: int, folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and the chat template. Raises ``NotFit``."""
    ggml = {
        name.removeprefix("tokenizer.ggml."): value
        for name, value in metadata.items()
        if name.startswith("tokenizer.ggml.")
    }
    tokens = ggml.get("tokens", [])
    named = {}
    for each, name in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        if (token := ggml.get(f"{name}_token_id")) is not None:
            if not 0 <= token < len(tokens):
                raise NotFit(f"its metadata say {name}_token_id={token}; it has {len(tokens):,} tokens")
            named[f"{each}_token"] = tokens[token]
    tokenizer = _tokenizer(ggml)
    starts = ggml.get("add_bos_token", ggml.get("pre") in BEGINS)
    tokenizer.post_processor = _ends(
        ggml["bos_token_id"] if starts else None,
        ggml["eos_token_id"] if ggml.get("add_eos_token") else None,
        tokens,
    )
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    config = {
        **named,
        "clean_up_tokenization_spaces": False,
        "model_max_length": context_length,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    if template := metadata.get("tokenizer.chat_template"):
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def _tokenizer(ggml: Mapping[str, Any]) -> Tokenizer:
    """The vocabulary, its merges, and what comes before and after them."""
    if (kind := ggml.get("model")) != "gpt2":
        raise NotFit(f"its tokenizer is of the kind {kind!r}; what is known to come out right is 'gpt2'")
    pre: str = ggml.get("pre", "")
    if pre not in PRE_TOKENIZERS:
        known = ", ".join(PRE_TOKENIZERS)
        raise NotFit(
            f"its texts are split in the way {pre!r}; those that are known to come out right: {known}"
        )
    tokens, merges = ggml["tokens"], ggml.get("merges", [])
    vocabulary = {token: number for number, token in enumerate(tokens)}
    if len(vocabulary) < len(tokens):
        raise NotFit(f"{len(tokens) - len(vocabulary):,} of its tokens have the name of another")
    pairs = [tuple(merge.split(" ")) for merge in merges]
    if wrong := next((merge for merge in pairs if len(merge) != 2), None):
        raise NotFit(f"its merge {' '.join(wrong)!r} is not one of two tokens")
    try:
        model = models.BPE(vocabulary, pairs, ignore_merges=pre == "llama-bpe")
    except Exception as error:  # the library has no class for it
        raise NotFit(f"its vocabulary and merges don't fit together: {error}") from None
    tokenizer = Tokenizer(model)
    pattern, digits = PRE_TOKENIZERS[pre]
    splitters = [pre_tokenizers.Split(Regex(pattern), "isolated")] if pattern else []
    splitters += [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splitters, byte_level]) if splitters else byte_level
    tokenizer.decoder = decoders.ByteLevel()
    kinds = ggml.get("token_type", [])
    tokenizer.add_tokens(
        [
            AddedToken(token, normalized=False, special=kind == CONTROL)
            for token, kind in zip(tokens, kinds, strict=False)
            if kind in (CONTROL, USER_DEFINED)
        ]
    )
    return tokenizer


def _ends(start: int | None, end: int | None, tokens: list[str]) -> Any:
    """What puts tokens around each text."""
    around = [(tokens[each], each) for each in (start, end) if each is not None]
    if not around:
        return processors.ByteLevel(trim_offsets=False)
    first = [f"{tokens[start]}:0"] if start is not None else []
    last = [f"{tokens[end]}:0"] if end is not None else []
    return processors.TemplateProcessing(
        single=[*first, "$A:0", *last], pair=[*first, "$A:0", "$B:0", *last], special_tokens=around
    )
