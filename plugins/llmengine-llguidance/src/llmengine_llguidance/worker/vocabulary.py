"""A model's tokenizer as llguidance must see it: no text is ever a special token."""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection
from pathlib import Path
from typing import Any

from llguidance import LLTokenizer

from llmengine_core.worker.contract import Refused

__all__ = ["load_tokenizer"]


def load_tokenizer(folder: Path, vocabulary: int, end_tokens: Collection[int]) -> LLTokenizer:
    """The ``tokenizer.json`` in ``folder`` with as many tokens as there are logits.

    Raises ``Refused`` for one that can't be read, or that doesn't belong to the model.
    """
    if not end_tokens:
        raise Refused("constraints can't be enforced: the model has no token that ends a text")
    if outside := [token for token in end_tokens if not 0 <= token < vocabulary]:
        raise Refused(
            f"constraints can't be enforced: the end token {outside[0]} is none of the model's {vocabulary:,}"
        )
    try:
        tokenizer = json.loads((folder / "tokenizer.json").read_bytes())
        hide_special_tokens(tokenizer, end_tokens)
        return LLTokenizer(json.dumps(tokenizer), n_vocab=vocabulary, eos_token=sorted(end_tokens))
    except FileNotFoundError:
        raise Refused("constraints can't be enforced: the model comes without a tokenizer.json") from None
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise Refused(f"constraints can't be enforced with the model's tokenizer.json: {error}") from None


def hide_special_tokens(tokenizer: dict[str, Any], end_tokens: Collection[int]) -> None:
    """Give special tokens, and all ``end_tokens``, names that no text spells.

    Where a grammar leaves only one text, llguidance has it tokenized, and tokenizers read special tokens in
    texts that spell them: the choice "<|im_end|>" would end before it began.
    """
    model = tokenizer["model"]
    pieces = model["vocab"]
    spelled = {token: text for text, token in pieces.items()} if isinstance(pieces, dict) else {}
    added = tokenizer.setdefault("added_tokens", [])
    known = {token["id"] for token in added}
    for end in sorted(set(end_tokens) - known):
        content = spelled[end] if spelled else pieces[end][0]
        rest = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        added.append({"id": end, "content": content, "special": True, **rest})
    secret = secrets.token_hex(8)
    names: dict[str, str] = {}
    for token in added:
        if token["special"] or token["id"] in end_tokens:
            names[token["content"]] = token["content"] = f"{secret}-{token['id']}"
            token["special"] = True
    if isinstance(pieces, dict):
        model["vocab"] = {names.get(text, text): token for text, token in pieces.items()}
    else:
        model["vocab"] = [[names.get(text, text), score] for text, score in pieces]
    model["unk_token"] = names.get(model.get("unk_token"), model.get("unk_token"))
    tokenizer["padding"] = tokenizer["truncation"] = None
