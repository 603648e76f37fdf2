"""Between text and tokens: prompts to token ids, and generated tokens back to bytes and whole characters."""

from __future__ import annotations

import codecs
import json
from typing import Any

from llmengine_core.worker.contract import Prompt, Refused
from llmengine_transformers.worker.bounds import longest_token, prompt_token_overhead
from llmengine_transformers.worker.vocabulary import token_bytes

__all__ = ["Decoding", "Text"]


class Text:
    """A model's tokenizer, for any thread: nothing in it changes after it is made."""

    def __init__(self, tokenizer: Any, rows: int) -> None:
        """For a ``PreTrainedTokenizerFast`` and a model whose embedding has ``rows`` rows.

        Raises ``Refused`` for one whose tokens can't be told apart in a stream.
        """
        self._tokenizer, self._rows = tokenizer, rows
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        parts = json.loads(self._backend.to_str())
        self._bytes = token_bytes(self._backend, parts)
        self.start = self._start()
        """What the tokenizer puts before every text: its start token, where the model has one."""
        self.overhead = prompt_token_overhead(parts, len(self.start))
        """k, where a text of n UTF-8 bytes never takes more than n + k tokens; None where that isn't known."""
        self.longest = longest_token(parts)
        """k, where a text of n UTF-8 bytes never takes fewer than n / k tokens; None where that isn't known."""
        self.has_template = bool(tokenizer.chat_template)
        """Whether conversations can be put into the model's words."""

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        """The prompt's tokens, each an index into the embedding; at least one.

        Text is taken verbatim after the start token, with special tokens where their names stand in it. Ids are
        taken as they are. A conversation goes through the chat template, which writes its own start token.
        Raises ``Refused``.
        """
        if isinstance(prompt, str):
            tokens = self.start + self._ids(prompt)
        elif isinstance(prompt[0], int):
            tokens = self._checked(prompt)
        else:
            tokens = self._ids(self._render(prompt))
        if not tokens:
            raise Refused(
                f"the prompt {prompt!r} has no tokens in this model's vocabulary; give one with more text"
            )
        return tokens

    def decoding(self) -> Decoding:
        """What turns the tokens of one request into text."""
        return Decoding(self._bytes)

    def _ids(self, text: str) -> tuple[int, ...]:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            at = error.start
            raise Refused(
                f"character {at} of the prompt is the lone surrogate {text[at]!r}; send valid text"
            ) from None
        return tuple(self._backend.encode(text, add_special_tokens=False).ids)

    def _checked(self, ids: Any) -> tuple[int, ...]:
        for at, token in enumerate(ids):
            if not 0 <= token < self._rows:
                raise Refused(
                    f"token {at} of the prompt is {token}; this model's go from 0 to {self._rows - 1}"
                )
        return tuple(ids)

    def _render(self, messages: Any) -> str:
        if not self.has_template:
            raise Refused("this model's tokenizer has no chat template; send the prompt as text")
        turns = [{"role": role, "content": content} for role, content in messages]
        try:
            return str(self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        except Exception as error:
            raise Refused(f"the model's chat template refuses these messages: {error}") from error

    def _start(self) -> tuple[int, ...]:
        """What stands before the tokens of a text where the tokenizer adds its own; what it adds behind is left
        out, since it would end the text before the model has begun."""
        plain = self._backend.encode("a", add_special_tokens=False).ids
        added = self._backend.encode("a", add_special_tokens=True).ids
        for at in range(len(added) - len(plain) + 1):
            if added[at : at + len(plain)] == plain:
                return tuple(added[:at])
        return ()


class Decoding:
    """The tokens of one request on their way to text."""

    __slots__ = ("_bytes", "_decoder")

    def __init__(self, table: list[bytes]) -> None:
        self._bytes, self._decoder = table, codecs.getincrementaldecoder("utf-8")(errors="replace")

    def add(self, token: int) -> tuple[str, bytes]:
        """The whole characters that a token completes, and its own bytes.

        The texts joined are what the bytes joined spell, with U+FFFD for what isn't UTF-8; bytes of a character
        that is never completed are left out. Special tokens, and ids without a token, stand for nothing.
        """
        data = self._bytes[token] if token < len(self._bytes) else b""
        return self._decoder.decode(data), data
