"""How many tokens a text can take at most, where the tokenizer's own parts prove it."""

from __future__ import annotations

import json
from typing import Any

from llmengine_transformers.worker.vocabulary import steps

__all__ = ["prompt_token_overhead"]


def prompt_token_overhead(tokenizer: Any, start: int) -> int | None:
    """k, where a text of n UTF-8 bytes never takes more than n + k tokens; None where that can't be proved.

    For a ``tokenizers.Tokenizer`` that puts ``start`` tokens before each text.
    """
    return None
