"""How many tokens a text takes at most and at least, where the parts of its tokenizer prove it."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

from llmengine_transformers.worker.vocabulary import ALPHABET, steps

__all__ = ["longest_token", "prompt_token_overhead"]

SPLITTERS = frozenset({
    "BertPreTokenizer", "ByteLevel", "CharDelimiterSplit", "Digits", "Punctuation", "Split", "UnicodeScripts",
    "Whitespace", "WhitespaceSplit",
})  # fmt: skip
"""Pre-tokenizers that cut a text, or drop some of it, and add nothing (ByteLevel where it isn't told to)."""
KEEPERS = frozenset({"ByteLevel", "Digits", "Metaspace", "Punctuation", "Split", "UnicodeScripts"})
"""Pre-tokenizers that drop nothing of a text, where they aren't told to."""
UTF8_BYTES = frozenset([*range(0xC0), *range(0xC2, 0xF5)])
"""Those that a text can have."""
COMPOSED = 4
"""Bytes of a text for each byte of its composed form (NFC), at most; U+1FBE U+0308 U+0301 are 7 for 2."""


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
    return symbol in _names(model)


def longest_token(parts: Mapping[str, Any]) -> int | None:
    """k, where a text of n UTF-8 bytes never takes fewer than n / k tokens; None where that can't be proved.

    ``parts`` is what tokenizer.json holds. It is the length of the longest token, where every byte of a text is in
    one: no step may drop anything, the vocabulary has all bytes, and no added token takes the spaces around it along.
    """
    model, added = parts["model"], parts["added_tokens"]
    normalizers = steps(parts["normalizer"], "normalizers")
    splitters = steps(parts["pre_tokenizer"], "pretokenizers")
    byte_level = any(step["type"] == "ByteLevel" for step in splitters)
    if any(token["lstrip"] or token["rstrip"] for token in added):
        return None
    if not all(map(_keeps_all, splitters)) or not _knows_all(model, byte_level):
        return None
    longest = max(len(name) if byte_level else len(name.encode()) for name in _names(model))
    contents = [token["content"] for token in added]
    longest = max([longest, *(len(content.encode()) for content in contents)])
    shrinking = 1
    for step in normalizers:
        if step["type"] == "Prepend":
            contents = [step["prepend"] + content for content in contents]
        elif step["type"] == "Replace" and step["pattern"] == {"String": " "} and step["content"]:
            contents = [content.replace(" ", step["content"]) for content in contents]
        elif step["type"] == "NFC":
            contents = [unicodedata.normalize("NFC", content) for content in contents]
            shrinking *= COMPOSED
        else:
            return None
    return shrinking * max([longest, *(len(content.encode()) for content in contents)])


def _keeps_all(splitter: Mapping[str, Any]) -> bool:
    return splitter["type"] in KEEPERS and splitter.get("behavior") != "Removed"


def _knows_all(model: Mapping[str, Any], byte_level: bool) -> bool:
    """Whether every text has tokens in a model's vocabulary, so that each stands for no more than its name."""
    if model["type"] not in ("BPE", "Unigram"):
        return False
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        return False
    names = _names(model)
    if byte_level:
        return all(character in names for character, byte in ALPHABET.items() if byte in UTF8_BYTES)
    return bool(model.get("byte_fallback")) and all(f"<0x{byte:02X}>" in names for byte in UTF8_BYTES)


def _names(model: Mapping[str, Any]) -> frozenset[str]:
    vocabulary = model["vocab"]
    return frozenset(vocabulary if isinstance(vocabulary, dict) else (name for name, _ in vocabulary))
