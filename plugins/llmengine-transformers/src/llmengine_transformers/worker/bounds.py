"""How many tokens a text takes at most, where the parts of its tokenizer prove it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmengine_transformers.worker.vocabulary import steps

__all__ = ["prompt_token_overhead"]

SPLITTERS = frozenset({
    "BertPreTokenizer", "ByteLevel", "CharDelimiterSplit", "Digits", "Punctuation", "Split", "UnicodeScripts",
    "Whitespace", "WhitespaceSplit",
})  # fmt: skip
"""Pre-tokenizers that cut a text, or drop some of it, and add nothing (ByteLevel where it isn't told to)."""


def prompt_token_overhead(parts: Mapping[str, Any], start: int) -> int | None:
    """k, where a text of n UTF-8 bytes never takes more than n + k tokens; None where that can't be proved.

    ``parts`` is what tokenizer.json holds, ``start`` the number of tokens before each text. What follows rests on
    this: every model of the library gives at most one token for each character that it is handed or, with byte
    fallback, one for each of its UTF-8 bytes. So it is enough to know that no step before it makes more of a text,
    but for a space at the beginning. Unicode normalization and case folding make more of some characters, and give
    None.
    """
    added = _added_characters(parts)
    if added is None:
        return None
    # Each stretch between added tokens may get the space; the added token before it must make up for that.
    if any(len(token["content"].encode()) <= added for token in parts["added_tokens"]):
        return None
    return start + added


def _added_characters(parts: Mapping[str, Any]) -> int | None:
    """How many characters the steps before the model may add to a stretch of text; None where that isn't known.

    Where there are any, each is one token.
    """
    model = parts["model"]
    normalizers = steps(parts["normalizer"], "normalizers")
    splitters = steps(parts["pre_tokenizer"], "pretokenizers")
    if any(step["type"] == "ByteLevel" for step in splitters):
        plain = all(step["type"] in SPLITTERS and not step.get("add_prefix_space") for step in splitters)
        return 0 if plain and not normalizers and not model.get("byte_fallback") else None
    symbols = []
    added = 0
    for step in normalizers:
        if step["type"] == "Prepend":
            symbols.append(step["prepend"])
            added += 1
        elif step["type"] == "Replace" and step["pattern"] == {"String": " "}:
            symbols.append(step["content"])
        else:
            return None
    if [step["type"] for step in splitters] == ["Metaspace"]:
        symbols.append(splitters[0]["replacement"])
        added += splitters[0].get("prepend_scheme") != "never"
    elif any(step["type"] not in SPLITTERS for step in splitters):
        return None
    return added if all(_is_one_token(symbol, model) for symbol in symbols) else None


def _is_one_token(symbol: str, model: Mapping[str, Any]) -> bool:
    """Whether a character that the steps put in takes one token, and not one for each of its bytes."""
    if len(symbol) != 1:
        return False
    if not model.get("byte_fallback"):
        return True
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        return False
    vocabulary = model["vocab"]
    names = vocabulary if isinstance(vocabulary, dict) else {name for name, _ in vocabulary}
    return symbol in names
