"""What each token of a vocabulary stands for, byte for byte."""

from __future__ import annotations

import json
import re
from typing import Any

from llmengine_core.worker.contract import Refused

__all__ = ["byte_alphabet", "steps", "token_bytes"]

BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


def byte_alphabet() -> dict[str, int]:
    """The byte that each character stands for in a byte-level vocabulary, as GPT-2 published it.

    Bytes that Latin-1 prints are their own character; the others, in order, are U+0100 and what follows.
    """
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in own]
    return {chr(byte): byte for byte in own} | {chr(256 + at): byte for at, byte in enumerate(others)}


def steps(part: dict[str, Any] | None, name: str) -> list[dict[str, Any]]:
    """The steps of a normalizer, pre-tokenizer or decoder as tokenizer.json writes it, sequences unfolded.

    ``name`` is how that kind of part calls the members of a sequence: "normalizers", "decoders", ...
    """
    if part is None:
        return []
    if part["type"] == "Sequence":
        return [step for each in part[name] for step in steps(each, name)]
    return [part]


def token_bytes(tokenizer: Any) -> list[bytes]:
    """The bytes of every token by its id, in the middle of a text; none for special tokens and missing ids.

    For a ``tokenizers.Tokenizer``. Raises ``Refused`` where the text of tokens isn't the texts of each.
    """
    decoders = [step["type"] for step in steps(json.loads(tokenizer.to_str())["decoder"], "decoders")]
    names: dict[int, str] = {id: token for token, id in tokenizer.get_vocab(with_added_tokens=True).items()}
    for id, added in tokenizer.get_added_tokens_decoder().items():
        names[id] = added.content
        if added.special:
            del names[id]
    found = [b""] * (max(names, default=-1) + 1)
    if decoders == ["ByteLevel"]:
        alphabet = byte_alphabet()
        for id, name in names.items():
            byte = [alphabet.get(char) for char in name]
            found[id] = name.encode() if None in byte else bytes(byte)  # type: ignore[arg-type]
    else:
        bytewise = {}
        if "ByteFallback" in decoders:
            bytewise = {id: match for id, name in names.items() if (match := BYTE_TOKEN.fullmatch(name))}
        for id, match in bytewise.items():
            found[id] = bytes([int(match[1], 16)])
        spelled = [id for id in names if id not in bytewise]
        for id, text in zip(spelled, _within(tokenizer, spelled, names), strict=True):
            found[id] = text.encode()
    return found


def _within(tokenizer: Any, ids: list[int], names: dict[int, str]) -> list[str]:
    """The text that each token adds between two others."""
    for anchor in [id for id in ids if re.fullmatch(r"[A-Za-z0-9]", names[id])]:
        before = tokenizer.decode([anchor])
        after = tokenizer.decode([anchor, anchor]).removeprefix(before)
        whole = tokenizer.decode_batch([[anchor, id, anchor] for id in ids])
        if all(text.startswith(before) and text.endswith(after) for text in whole):
            return [text[len(before) : len(text) - len(after)] for text in whole]
    raise Refused("the text of this tokenizer's tokens depends on their neighbours, so it can't be streamed")
