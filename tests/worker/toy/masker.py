"""A grammar is a list of texts, one a line, of which one is to be spelled."""

from __future__ import annotations

from collections.abc import Sequence

from llmengine_core.worker.contract import Constraint, Masker, Refused
from toy.engine import PIECES


class Spelling(Constraint):
    def __init__(self, texts: list[bytes]) -> None:
        self.texts = texts

    def accept(self, token: int) -> None:
        if token < len(PIECES):
            piece = PIECES[token]
            self.texts = [text[len(piece) :] for text in self.texts if text.startswith(piece)]


class ToyMasker(Masker):
    def __init__(self, folder: str, vocabulary: int, end_tokens: Sequence[int]) -> None:
        assert vocabulary == len(PIECES) + 1
        (self._end,) = end_tokens

    def constraint(self, grammar: str) -> Constraint:
        texts = grammar.encode().split(b"\n")
        known = set(b"".join(PIECES[:8]))
        if not set(b"".join(texts)) <= known:
            raise Refused("the grammar has characters that no token stands for")
        return Spelling(texts)

    def fill(self, constraints: Sequence[Constraint], masks: memoryview) -> None:
        for row, constraint in enumerate(constraints):
            assert isinstance(constraint, Spelling)
            word = (b"" in constraint.texts) << self._end
            for token, piece in enumerate(PIECES):
                word |= any(text.startswith(piece) for text in constraint.texts) << token
            masks[row, 0] = word
