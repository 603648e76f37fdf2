"""Which tokens of a model's vocabulary may come next: llguidance beside the logits."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from llguidance import LLMatcher, LLTokenizer

from llmengine_core.worker.contract import Constraint, Masker, Refused
from llmengine_llguidance import limits
from llmengine_llguidance.compiler import CompileError, compile_grammar
from llmengine_llguidance.worker.vocabulary import load_tokenizer

__all__ = ["LLGuidanceConstraint", "LLGuidanceMasker"]


class LLGuidanceConstraint(Constraint):
    """One text on its way through a grammar.

    A text that becomes too ambiguous to follow (``limits.PARSER_ITEMS``), or too much work
    (``limits.JUDGING_SECONDS`` in all), must end where it is; whoever verifies it will refuse it.
    """

    __slots__ = ("matcher", "seconds")

    def __init__(self, matcher: LLMatcher) -> None:
        self.matcher = matcher
        self.seconds = 0.0
        """CPU time that it took so far."""

    def accept(self, token: int) -> None:
        begun = time.thread_time()
        self.matcher.consume_token(token)
        self.seconds += time.thread_time() - begun


class LLGuidanceMasker(Masker):
    """Grammars as ``LLGuidanceDecoder`` translates them, over the vocabulary of a ``tokenizer.json``.

    What was compiled is kept for the next request. Rows are filled one after another: most take some
    microseconds, and handing them to threads costs more.
    """

    def __init__(self, folder: str, vocabulary: int, end_tokens: Sequence[int]) -> None:
        self._tokenizer = load_tokenizer(Path(folder), vocabulary, set(end_tokens))
        self._words = -(-vocabulary // 32)
        self._ends = bytearray(4 * self._words)
        for token in end_tokens:
            self._ends[token // 8] |= 1 << token % 8
        self._nothing = bytes(4 * self._words)
        self._start = lru_cache(maxsize=limits.PROGRAMS)(lambda grammar: _start(self._tokenizer, grammar))

    def constraint(self, grammar: str) -> Constraint:
        try:
            return LLGuidanceConstraint(self._start(grammar).deep_copy())
        except CompileError as error:
            raise Refused(f"the constraint can't be enforced over this model's vocabulary: {error}") from None

    def fill(self, constraints: Sequence[Constraint], masks: memoryview) -> None:
        if masks.shape != (len(constraints), self._words) or masks.itemsize != 4:
            raise ValueError(
                f"the masks have the shape {masks.shape}, {masks.itemsize} bytes each; "
                f"what is needed is {(len(constraints), self._words)}, 4 bytes each"
            )
        if not constraints:
            return
        size = 4 * self._words
        start = ctypes.addressof(ctypes.c_char.from_buffer(masks))
        octets = masks.cast("B")
        begun = time.thread_time()
        for row, constraint in enumerate(constraints):
            assert isinstance(constraint, LLGuidanceConstraint)
            mask = octets[row * size : (row + 1) * size]
            if constraint.seconds > limits.JUDGING_SECONDS:
                mask[:] = self._ends
                continue
            constraint.matcher.unsafe_compute_mask_ptr(start + row * size, size)
            if mask.tobytes() == self._nothing:  # the vocabulary can't spell what the grammar asks for
                mask[:] = self._ends
            ended = time.thread_time()
            constraint.seconds += ended - begun
            begun = ended


def _start(tokenizer: LLTokenizer, grammar: str) -> LLMatcher:
    """A matcher that has proved that it can give a mask; what it learned by that, its copies know."""
    matcher = compile_grammar(tokenizer, grammar)
    matcher.compute_bitmask()
    if matcher.is_error():
        raise CompileError(matcher.get_error())
    return matcher
