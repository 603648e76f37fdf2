"""Random texts that masks allow, spelled by tokens whose bytes are read from tokenizer.json by these tests alone."""

from __future__ import annotations

import json
import random
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

from llmengine_core.worker.contract import Constraint, Masker

END = 2
"""SmolLM2's <|im_end|>."""
VOCABULARY = 49_152


def byte_alphabet() -> dict[str, int]:
    """How byte-level tokenizers write each byte: printable ones as they are, the others from U+0100 on."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + n): byte for n, byte in enumerate(others)}


class Row(int):
    """One mask: a bit for each token."""

    def __contains__(self, token: int) -> bool:
        return bool(self >> token & 1)

    def tokens(self) -> Iterator[int]:
        rest = int(self)
        while rest:
            low = rest & -rest
            yield low.bit_length() - 1
            rest ^= low

    def draw(self, choices: random.Random, *, never: int) -> int:
        """Any of its tokens but one: the next after a random place."""
        rest = int(self) & ~(1 << never)
        behind = rest >> choices.randrange(rest.bit_length()) if rest else 0
        place = rest.bit_length() - behind.bit_length()
        return place + (behind & -behind).bit_length() - 1


class Walker:
    def __init__(self, masker: Masker, tokenizer: Path, vocabulary: int) -> None:
        self.masker, self.vocabulary = masker, vocabulary
        self.words = -(-vocabulary // 32)
        alphabet = byte_alphabet()
        parts = json.loads(tokenizer.read_bytes())
        special = {token["id"] for token in parts["added_tokens"]}
        self.bytes = {
            token: bytes(alphabet[letter] for letter in text)
            for text, token in parts["model"]["vocab"].items()
            if token not in special
        }
        self.tokens = {octets: token for token, octets in self.bytes.items()}

    def rows(self, constraints: Sequence[Constraint]) -> list[Row]:
        """What may come next for each, with the memory full of ones before."""
        masks = array("I", [2**32 - 1]) * (len(constraints) * self.words)
        view = memoryview(masks).cast("B").cast("I", (len(constraints), self.words))
        self.masker.fill(constraints, view)
        size = 4 * self.words
        octets = masks.tobytes()
        return [Row.from_bytes(octets[at : at + size], "little") for at in range(0, len(octets), size)]

    def row(self, constraint: Constraint) -> Row:
        return self.rows([constraint])[0]

    def walk(self, grammar: str, choices: random.Random, *, most: int = 60) -> Iterator[tuple[bytes, Row]]:
        """What was written so far, and what may follow; the last pair where the text has ended is the whole text,
        its mask allowing an end."""
        constraint = self.masker.constraint(grammar)
        text = b""
        for _ in range(most):
            row = self.row(constraint)
            yield text, row
            if END in row and (row == 1 << END or choices.random() < 0.3):
                return
            token = row.draw(choices, never=END)
            text += self.bytes[token]
            constraint.accept(token)

    def spells(self, grammar: str, text: bytes, choices: random.Random) -> bool:
        """Whether some way along the masks spells the text and may end there."""
        constraint = self.masker.constraint(grammar)
        while True:
            row = self.row(constraint)
            if not text:
                return END in row
            starts = [self.tokens.get(text[:length]) for length in range(1, len(text) + 1)]
            fitting = [token for token in starts if token is not None and token in row]
            if not fitting:
                return False
            token = choices.choice(fitting)
            constraint.accept(token)
            text = text[len(self.bytes[token]) :]
