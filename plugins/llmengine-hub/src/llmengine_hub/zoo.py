"""The base models that are known by name: cards, by the data in ``zoo.json``.

The data names for each the hub's repository, its parameters and where that number is from ("config": counted by the
published config.json, to the last weight; "model card, rounded": told by its card), the most tokens that it was trained
for, its licence as an SPDX identifier or URL, whether the hub asks to accept it first ("gated"), the form and type of
the stored weights (null where nobody vouches for the type), and a note where the original's name leads elsewhere.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llmengine_core.types.models import ModelCard, WeightsSource

__all__ = ["cards"]

DATA = Path(__file__).with_name("zoo.json")
HUB = "https://huggingface.co"
WIDTHS = {"bfloat16": 2, "float16": 2, "float32": 4}
"""Bytes of a stored weight."""


def cards() -> list[ModelCard]:
    """A card for each, in order of their names."""
    return [_card(name, entry) for name, entry in json.loads(DATA.read_bytes()).items()]


def _card(name: str, entry: dict[str, Any]) -> ModelCard:
    homepage = f"{HUB}/{entry['repository']}"
    words = [f"{entry['description']}."]
    mend = None
    if entry["gated"]:
        words.append("Gated: the hub gives it to those who accepted its licence.")
        mend = f"accept the licence at {homepage}, and set HF_TOKEN to a token of that account"
    if note := entry.get("note"):
        words.append(note)
    width = WIDTHS.get(entry["stored"])
    source = WeightsSource(
        url=f"hf://{entry['repository']}",
        format=entry["format"],
        size=width and entry["parameters"] * width,
        mend=mend,
    )
    return ModelCard(
        name=name,
        sources=(source,),
        parameters=entry["parameters"],
        context_length=entry["context_length"],
        license=entry["license"],
        description=" ".join(words),
        homepage=homepage,
    )
