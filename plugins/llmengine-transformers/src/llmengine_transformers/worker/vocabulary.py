"""What each token of a vocabulary stands for, byte for byte."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from llmengine_core.worker.contract import Refused

__all__ = ["ALPHABET", "steps", "token_bytes"]

BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
CANDIDATES = 64
"""Tokens that are tried as neighbours of the others."""


def steps(part: Mapping[str, Any] | None, members: str) -> list[Mapping[str, Any]]:
    """The steps of a normalizer, pre-tokenizer or decoder as tokenizer.json writes it, sequences unfolded.

    ``members`` is how that kind of part calls what a sequence holds: "normalizers", "pretokenizers", "decoders".
    """
    if part is None:
        return []
    if part["type"] == "Sequence":
        return [step for each in part[members] for step in steps(each, members)]
    return [part]


def token_bytes(tokenizer: Any, parts: Mapping[str, Any]) -> list[bytes]:
    """The bytes of every token by its id, in the middle of a text; none for special tokens and missing ids.

    For a ``tokenizers.Tokenizer`` and what its tokenizer.json holds. Joined, they are what the tokenizer decodes,
    with two exceptions: it may leave out a space at the beginning of a text; and of a run of byte tokens that isn't
    UTF-8 as a whole it spells no character, where the bytes here still spell those that are. Raises ``Refused``
    where a text isn't made of the texts of its tokens.
    """
    added = {token["id"]: token for token in parts["added_tokens"]}
    names = {token: name for name, token in tokenizer.get_vocab(with_added_tokens=True).items()}
    plain = {token: name for token, name in names.items() if not added.get(token, {}).get("special")}
    decoders = [step["type"] for step in steps(parts["decoder"], "decoders")]
    if decoders == ["ByteLevel"]:
        found = {token: _spelled_bytes(name) for token, name in plain.items()}
    else:
        bytewise = "ByteFallback" in decoders
        found = {
            token: bytes([int(match[1], 16)])
            for token, name in plain.items()
            if bytewise and (match := BYTE_TOKEN.fullmatch(name))
        }
        found |= _texts(tokenizer, [token for token in plain if token not in found], plain)
    return [found.get(token, b"") for token in range(max(names, default=-1) + 1)]


def _byte_alphabet() -> dict[str, int]:
    """The byte that each character stands for in byte-level vocabularies, as GPT-2 defined it.

    A byte that is a printable character in Latin-1 is that character; the rest, in order, are U+0100 and on.
    """
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in own]
    return {chr(byte): byte for byte in own} | {chr(256 + at): byte for at, byte in enumerate(rest)}


ALPHABET = _byte_alphabet()
"""Of byte-level vocabularies: the byte for each character."""


def _spelled_bytes(name: str) -> bytes:
    """What a byte-level token stands for; one with any other character, an added one, for itself."""
    if all(character in ALPHABET for character in name):
        return bytes(ALPHABET[character] for character in name)
    return name.encode()


def _texts(tokenizer: Any, tokens: list[int], names: Mapping[int, str]) -> dict[int, bytes]:
    """The text that each token adds between two others, once it is clear that this is all that it ever adds."""
    for neighbour in _neighbours(names):
        before = tokenizer.decode([neighbour])
        after = tokenizer.decode([neighbour, neighbour]).removeprefix(before)
        between = tokenizer.decode_batch([[neighbour, token, neighbour] for token in tokens])
        if not all(text.startswith(before) and text.endswith(after) for text in between):
            continue
        texts = [text[len(before) : len(text) - len(after)] for text in between]
        if tokenizer.decode([neighbour, *tokens]) == before + "".join(texts):
            return {token: text.encode() for token, text in zip(tokens, texts, strict=True)}
    raise Refused("the text of this tokenizer's tokens depends on their neighbours, so it can't be streamed")


def _neighbours(names: Mapping[int, str]) -> Iterable[int]:
    letters = [token for token, name in names.items() if re.fullmatch("[A-Za-z0-9]+", name)]
    return sorted(letters, key=lambda token: (len(names[token]), token))[:CANDIDATES]
