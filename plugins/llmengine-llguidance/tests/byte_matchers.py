"""Two llguidances, one byte per token: the one that is installed, and the older one inside llama.cpp.

The latter is called through the symbols that xllamacpp's library exports, so that what a translation means to
the engine can be asked of the engine's own code, thousands of times a second and without a model.
"""

from __future__ import annotations

import ctypes
import importlib.util
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import llguidance

END = 256
"""The token that ends a text."""


class ByteMatcher(Protocol):
    error: str
    """Why the grammar does not compile, or "". What is wrong later shows in ``allowed``."""

    def allowed(self) -> set[int] | None:
        """The bytes that may follow, END among them where the text may end; None where the matcher gave up."""

    def take(self, byte: int) -> bool:
        """Whether the byte may follow; it is taken then."""


class InstalledMatcher:
    """The llguidance that the plugin runs on."""

    def __init__(self, grammar: str) -> None:
        self._matcher = llguidance.LLMatcher(
            llguidance.LLTokenizer("byte"), llguidance.LLMatcher.grammar_from_lark(grammar), log_level=0
        )
        self.error = self._matcher.get_error()

    def allowed(self) -> set[int] | None:
        mask = self._matcher.compute_bitmask()
        if self._matcher.is_error():
            return None
        bytes_allowed = {token for token in range(END) if mask[token // 8] >> token % 8 & 1}
        return bytes_allowed | ({END} if self._matcher.is_accepting() else set())

    def take(self, byte: int) -> bool:
        return self._matcher.try_consume_tokens([byte]) == 1


class _TokenizerInit(ctypes.Structure):
    _fields_ = (
        ("vocab_size", ctypes.c_uint32),
        ("tok_eos", ctypes.c_uint32),
        ("token_lens", ctypes.c_void_p),
        ("token_bytes", ctypes.c_char_p),
        ("tokenizer_json", ctypes.c_char_p),
        ("tokenize_assumes_string", ctypes.c_bool),
        ("tokenize_fn", ctypes.c_void_p),
        ("use_approximate_greedy_tokenize_fn", ctypes.c_bool),
        ("tokenize_user_data", ctypes.c_void_p),
        ("slices", ctypes.c_void_p),
    )


class _ConstraintInit(ctypes.Structure):
    _fields_ = (
        ("tokenizer", ctypes.c_void_p),
        ("log_buffer_level", ctypes.c_uint32),
        ("log_stderr_level", ctypes.c_uint32),
        ("flags_and_limits", ctypes.c_uint64 * 16),
    )


_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "llg_new_tokenizer": (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t),
    "llg_constraint_init_set_defaults": (None, ctypes.c_void_p, ctypes.c_void_p),
    "llg_new_matcher": (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p),
    "llg_matcher_get_error": (ctypes.c_char_p, ctypes.c_void_p),
    "llg_matcher_is_accepting": (ctypes.c_bool, ctypes.c_void_p),
    "llg_matcher_compute_mask": (ctypes.c_int32, ctypes.c_void_p),
    "llg_matcher_get_mask": (ctypes.POINTER(ctypes.c_uint32), ctypes.c_void_p),
    "llg_matcher_consume_token": (ctypes.c_int32, ctypes.c_void_p, ctypes.c_uint32),
    "llg_matcher_validate_tokens": (ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t),
    "llg_free_matcher": (None, ctypes.c_void_p),
}


@cache
def _library() -> ctypes.CDLL:
    spec = importlib.util.find_spec("xllamacpp")
    assert spec is not None
    assert spec.origin is not None
    library = ctypes.CDLL(str(next(Path(spec.origin).parent.glob("xllamacpp*.so"))))
    for name, (result, *arguments) in _SIGNATURES.items():
        getattr(library, name).restype = result
        getattr(library, name).argtypes = arguments
    return library


@cache
def _tokenizer() -> ctypes.c_void_p:
    tokens = [bytes([byte]) for byte in range(END)] + [b"\xff<end>"]
    lengths = (ctypes.c_uint32 * len(tokens))(*map(len, tokens))
    start = _TokenizerInit(
        len(tokens), END, ctypes.addressof(lengths), b"".join(tokens), None, False, None, True, None, None
    )
    error = ctypes.create_string_buffer(256)
    tokenizer: int | None = _library().llg_new_tokenizer(ctypes.byref(start), error, len(error))
    assert tokenizer is not None, error.value
    return ctypes.c_void_p(tokenizer)


class EmbeddedMatcher:
    """The llguidance that is compiled into llama.cpp."""

    def __init__(self, grammar: str) -> None:
        start = _ConstraintInit()
        _library().llg_constraint_init_set_defaults(ctypes.byref(start), _tokenizer())
        start.log_stderr_level = 0
        # Texts end at a NUL here, as they do where llama.cpp hands them over.
        self._matcher = _library().llg_new_matcher(ctypes.byref(start), b"lark", grammar.encode())
        self.error = (_library().llg_matcher_get_error(self._matcher) or b"").decode()

    def __del__(self) -> None:
        _library().llg_free_matcher(self._matcher)

    def allowed(self) -> set[int] | None:
        if _library().llg_matcher_compute_mask(self._matcher) != 0:
            return None
        mask = _library().llg_matcher_get_mask(self._matcher)
        bytes_allowed = {token for token in range(END) if mask[token // 32] >> token % 32 & 1}
        return bytes_allowed | ({END} if _library().llg_matcher_is_accepting(self._matcher) else set())

    def take(self, byte: int) -> bool:
        token = (ctypes.c_uint32 * 1)(byte)
        if _library().llg_matcher_validate_tokens(self._matcher, token, 1) != 1:
            return False
        taken: int = _library().llg_matcher_consume_token(self._matcher, byte)
        return taken == 0


def accepts(matcher: ByteMatcher, text: str) -> tuple[bool, bool]:
    """Whether the text is accepted so far, and in full."""
    if not all(matcher.take(byte) for byte in text.encode()):
        return False, False
    allowed = matcher.allowed()
    return True, allowed is not None and END in allowed


_PREFERRED = frozenset(b'ab1 "{}[],:\\u06-0.e+tfn')


def random_text(matcher: ByteMatcher, choices: random.Random, *, longest: int = 100) -> str | None:
    """A text that the matcher accepts in full, or None where none came of it within ``longest`` bytes."""
    text = bytearray()
    while len(text) <= longest:
        allowed = matcher.allowed()
        assert allowed is not None, f"the matcher gave up after {bytes(text)!r}"
        assert allowed, f"nothing may follow {bytes(text)!r}"
        if END in allowed and (len(allowed) == 1 or choices.random() < 0.3 + len(text) / 200):
            return text.decode()
        plain = sorted(allowed & _PREFERRED)
        byte = choices.choice(plain if plain and choices.random() < 0.9 else sorted(allowed - {END}))
        assert matcher.take(byte)
        text.append(byte)
    return None


MATCHERS: dict[str, Callable[[str], ByteMatcher]] = {
    "installed": InstalledMatcher,
    "embedded": EmbeddedMatcher,
}
