"""Tokenizers as they come, and as they shouldn't."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from masked import END, VOCABULARY, Walker, byte_alphabet

from llmengine_core.worker.contract import Refused
from llmengine_llguidance.worker.masker import LLGuidanceMasker

ANYTHING = "%llguidance {}\nstart: /(?s:.*)/"


@pytest.fixture
def changed(weights: Path, tmp_path: Path) -> Callable[[Callable[[Any], object]], Path]:
    """A folder with the real tokenizer.json, changed."""

    def change(how: Callable[[Any], object]) -> Path:
        tokenizer = json.loads((weights / "tokenizer.json").read_bytes())
        how(tokenizer)
        (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
        return tmp_path

    return change


def small(folder: Path, letters: str) -> Path:
    """A tokenizer of bytes, of which it lacks those that are no letter."""
    names = {byte: name for name, byte in byte_alphabet().items()}
    vocabulary = {"<end>": 0} | {names[ord(each)]: number for number, each in enumerate(letters, 1)}
    rest = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    tokenizer = {
        "version": "1.0",
        "added_tokens": [{"id": 0, "content": "<end>", "special": True, **rest}],
        "pre_tokenizer": {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": True,
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


@pytest.mark.parametrize("vocabulary", [VOCABULARY + 1, VOCABULARY + 31, VOCABULARY + 64, 2 * VOCABULARY])
def test_logits_that_no_token_stands_for_are_never_allowed(weights: Path, vocabulary: int) -> None:
    walker = Walker(LLGuidanceMasker(str(weights), vocabulary, [END]), weights / "tokenizer.json", vocabulary)
    row = walker.row(walker.masker.constraint(ANYTHING))
    assert row.bit_length() <= VOCABULARY
    assert walker.spells('%llguidance {}\nstart: "a bc"', b"a bc", random.Random(1))


def test_every_end_token_ends(weights: Path) -> None:
    ends = [0, END, 16]
    walker = Walker(LLGuidanceMasker(str(weights), VOCABULARY, ends), weights / "tokenizer.json", VOCABULARY)
    constraint = walker.masker.constraint('%llguidance {}\nstart: "a" "b"?')
    assert not any(end in walker.row(constraint) for end in ends)
    constraint.accept(walker.tokens[b"a"])
    assert all(end in walker.row(constraint) for end in ends)
    constraint.accept(walker.tokens[b"b"])
    assert sorted(walker.row(constraint).tokens()) == sorted(ends)


@pytest.mark.parametrize("listed", [True, False])
def test_an_end_token_that_looks_like_text_is_none(
    changed: Callable[[Callable[[Any], object]], Path], weights: Path, listed: bool
) -> None:
    """Not every file says of its end token that it is a special one, or that it was added."""

    def hide(tokenizer: Any) -> None:
        added = tokenizer["added_tokens"]
        added[END]["special"] = False
        if not listed:
            del added[END]

    masker = LLGuidanceMasker(str(changed(hide)), VOCABULARY, [END])
    walker = Walker(masker, weights / "tokenizer.json", VOCABULARY)
    constraint = masker.constraint("%llguidance {}\nstart: /<.{0,20}>/")
    assert END not in walker.row(constraint)
    assert walker.spells("%llguidance {}\nstart: /<.{0,20}>/", b"<|im_end|>", random.Random(1))


def test_a_text_that_the_vocabulary_cannot_spell_ends(tmp_path: Path) -> None:
    walker = Walker(LLGuidanceMasker(str(small(tmp_path, "abc")), 4, [0]), tmp_path / "tokenizer.json", 4)
    constraint = walker.masker.constraint('%llguidance {}\nstart: "a" ("b" | "z")')
    constraint.accept(1)
    assert list(walker.row(constraint).tokens()) == [2]
    constraint = walker.masker.constraint("%llguidance {}\nstart: /a[xyz]/")
    constraint.accept(1)
    assert list(walker.row(constraint).tokens()) == [0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda it: it["model"].update(type="Riddle"), "tokenizer.json"),
        (lambda it: it["model"].pop("vocab"), "vocab"),
        (lambda it: it["model"]["merges"].append(["nothing", "like it"]), "tokenizer.json"),
        (lambda it: it["added_tokens"].append({"id": "x"}), "tokenizer.json"),
        (lambda it: it.clear(), "model"),
    ],
)
def test_a_tokenizer_that_cannot_be_read_is_refused(
    changed: Callable[[Callable[[Any], object]], Path], change: Callable[[Any], object], message: str
) -> None:
    folder = changed(change)
    with pytest.raises(Refused, match=message):
        LLGuidanceMasker(str(folder), VOCABULARY, [END])


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"without a tokenizer\.json"):
        LLGuidanceMasker(str(tmp_path), VOCABULARY, [END])
    (tmp_path / "tokenizer.json").write_text("[" * 100_000)
    with pytest.raises(Refused, match=r"tokenizer\.json"):
        LLGuidanceMasker(str(tmp_path), VOCABULARY, [END])


def test_a_tokenizer_of_another_model_is_refused(weights: Path) -> None:
    with pytest.raises(Refused, match="1000 vs 49152"):
        LLGuidanceMasker(str(weights), 1_000, [END])
    with pytest.raises(Refused, match=r"end token 50000 is none of the model's 49,152"):
        LLGuidanceMasker(str(weights), VOCABULARY, [50_000])
    with pytest.raises(Refused, match="no token that ends a text"):
        LLGuidanceMasker(str(weights), VOCABULARY, [])
