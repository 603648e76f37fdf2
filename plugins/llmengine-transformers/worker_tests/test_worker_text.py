"""Prompts to tokens, and tokens back to text: held against the library's own encoding and decoding."""

from __future__ import annotations

import json
import re
import unicodedata
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_tokenizers import KINDS, byte_level, made
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from llmengine_core.worker.contract import Refused
from llmengine_transformers.worker.bounds import COMPOSED, longest_token
from llmengine_transformers.worker.text import Text

kinds = pytest.mark.parametrize("kind", KINDS)
BYTE = re.compile(r"<0x[0-9A-F]{2}>")
TEXTS = st.text(
    st.one_of(
        st.sampled_from(" aeth.'0é€🎉▁\n\t\u0301\u0958\U0001d160"), st.characters(exclude_categories=["Cs"])
    )
) | st.lists(st.sampled_from(["<s>", "</s>", "<think>", "née ", " ", "a", "the cat"])).map("".join)


@cache
def text_of(kind: str) -> tuple[PreTrainedTokenizerFast, Text]:
    tokenizer = made(KINDS[kind]())
    return tokenizer, Text(tokenizer, len(tokenizer))


def streamed(text: Text, ids: list[int]) -> tuple[str, bytes]:
    decoding = text.decoding()
    pieces = [decoding.add(each) for each in ids]
    return "".join(piece for piece, _ in pieces), b"".join(data for _, data in pieces)


def decoded(tokenizer: Any, ids: list[int]) -> str:
    """What the library decodes in the middle of a text."""
    before = tokenizer.convert_tokens_to_ids("a")
    options: dict[str, Any] = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    return str(
        tokenizer.decode([before, *ids], **options).removeprefix(tokenizer.decode([before], **options))
    )


def held_against(tokenizer: Any, text: Text, ids: list[int]) -> None:
    joined, data = streamed(text, ids)
    assert joined == data.decode(errors="replace")[: len(joined)]
    expected = decoded(tokenizer, ids)
    assert expected.startswith(joined)
    assert set(expected[len(joined) :]) <= {"�"}


@kinds
@given(data=st.data())
def test_texts_joined_are_what_the_library_decodes(kind: str, data: st.DataObject) -> None:
    tokenizer, text = text_of(kind)
    names = {token: name for name, token in tokenizer.get_vocab().items()}
    plain = [token for token, name in names.items() if not BYTE.fullmatch(name)]
    bytewise = {name: token for token, name in names.items() if BYTE.fullmatch(name)}
    runs = st.text(max_size=3).map(lambda text: [bytewise[f"<0x{byte:02X}>"] for byte in text.encode()])
    pieces = st.lists(st.sampled_from(plain), max_size=6)
    ids = data.draw(
        st.lists(pieces | runs if bytewise else pieces).map(lambda parts: [*chain.from_iterable(parts)])
    )
    held_against(tokenizer, text, ids)


@kinds
@given(data=st.data())
def test_any_tokens_spell_their_bytes(kind: str, data: st.DataObject) -> None:
    tokenizer, text = text_of(kind)
    ids = data.draw(st.lists(st.integers(0, len(tokenizer) + 3)))
    joined, spelled = streamed(text, ids)
    whole = spelled.decode(errors="replace")
    assert whole.startswith(joined)
    assert whole[len(joined) :] in (
        "",
        "�",
        "��",
    )  # the beginning of a character, or what looks like it so far


@given(data=st.data())
def test_texts_joined_are_what_the_library_decodes_of_a_real_one(weights: Path, data: st.DataObject) -> None:
    tokenizer, text = real(weights)
    held_against(tokenizer, text, data.draw(st.lists(st.integers(0, 49_151))))


@given(prompt=TEXTS)
def test_a_text_comes_back_from_a_byte_level_vocabulary(prompt: str) -> None:
    _, text = text_of("byte_level_started")
    ids = text.encode(prompt)
    for special in ("<s>", "</s>", "<unk>"):
        prompt = prompt.replace(special, "")
    assert streamed(text, list(ids))[0] == prompt


@given(prompt=TEXTS)
def test_bound_on_prompt_tokens_holds(prompt: str) -> None:
    for kind in KINDS:
        tokenizer, text = text_of(kind)
        if text.overhead is not None:
            taken = len(text.start) + len(tokenizer.encode(prompt, add_special_tokens=False))
            assert taken <= len(prompt.encode()) + text.overhead, kind


@given(prompt=TEXTS | st.sampled_from(" =-\n").map(lambda letter: 300 * letter))
def test_c04_a_text_never_takes_fewer_tokens_than_its_longest_allows(weights: Path, prompt: str) -> None:
    for tokenizer, text in [*map(text_of, KINDS), real(weights)]:
        if text.longest is not None:
            taken = len(tokenizer.encode(prompt, add_special_tokens=False))
            assert taken * text.longest >= len(prompt.encode())


def test_longest_token_is_known_where_it_can_be_proved(weights: Path) -> None:
    longest = {kind: text_of(kind)[1].longest for kind in KINDS}
    assert {kind for kind, length in longest.items() if length is None} == {"word_piece"}
    assert longest["byte_level"] == max(map(len, text_of("byte_level")[0].get_vocab()))
    assert longest["byte_level_composed"] == 4 * longest["byte_level"]
    tokenizer, text = real(weights)
    assert text.longest is None
    assert not tokenizer.encode(1000 * "\x04", add_special_tokens=False)  # which its vocabulary lacks


@pytest.mark.parametrize("side", ["lstrip", "rstrip"])
def test_no_longest_token_where_an_added_one_takes_spaces_along(side: str) -> None:
    tokenizer = byte_level()
    tokenizer.add_tokens([AddedToken("<end>", **{side: True})])
    text = Text(made(tokenizer), 500)
    assert text.longest is None
    assert len(text.encode(" " * 1000 + "<end>" + " " * 1000)) < 1500


def test_no_longest_token_where_a_part_of_a_text_may_be_dropped() -> None:
    bare = Tokenizer(models.BPE({"a": 0, "b": 1}, []))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    unknown = KINDS["byte_fallback"]()
    unknown.model = models.BPE({"<unk>": 0, "a": 1, "▁": 2}, [], unk_token="<unk>", fuse_unk=True)
    split = KINDS["byte_fallback_split"]()
    split.pre_tokenizer = pre_tokenizers.Split("-", "removed")
    stripped = byte_level()
    stripped.normalizer = normalizers.Strip()
    for tokenizer in (bare, unknown, split, stripped):
        assert longest_token(json.loads(tokenizer.to_str())) is None
        assert len(tokenizer.encode("a" + 1000 * "-").ids) < 1000 or tokenizer is stripped
    assert len(stripped.encode(" " * 1000 + "a").ids) == 1


def test_composing_makes_no_less_than_a_quarter_of_a_text() -> None:
    """Each character of a composed text comes from those of its full decomposition, each of them from one whose own
    decomposition it is alone, at the longest: any other decomposes into no fewer bytes of such."""
    characters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    full = {each: unicodedata.normalize("NFD", each) for each in characters}
    longest: dict[str, int] = {}
    for each, parts in full.items():
        if len(parts) == 1:
            longest[parts] = max(longest.get(parts, 0), len(each.encode()))
    assert all(len(each.encode()) <= sum(map(longest.__getitem__, parts)) for each, parts in full.items())
    for each in characters:
        if unicodedata.normalize("NFC", each) == each:
            assert sum(map(longest.__getitem__, full[each])) <= COMPOSED * len(each.encode()), each


def test_bound_is_known_where_it_can_be_proved(weights: Path) -> None:
    assert {kind: text_of(kind)[1].overhead for kind in KINDS} == {
        "byte_level": 0,
        "byte_level_started": 1,
        "byte_level_composed": None,
        "byte_fallback": 2,
        "byte_fallback_split": 1,
        "unigram": 1,
        "word_piece": None,
    }
    assert real(weights)[1].overhead == 0
    assert Text(made(byte_level(add_prefix_space=True)), 500).overhead is None


def test_no_bound_where_an_added_token_is_as_short_as_the_space_before_words() -> None:
    tokenizer = KINDS["byte_fallback"]()
    tokenizer.add_tokens([AddedToken("|", special=False, normalized=False)])
    text = Text(made(tokenizer), 500)
    assert text.overhead is None
    assert len(text.encode("a|b|c")) > len("a|b|c") + 2


@cache
def real(weights: Path) -> tuple[Any, Text]:
    tokenizer = AutoTokenizer.from_pretrained(weights)
    return tokenizer, Text(tokenizer, 49_152)


def test_text_is_verbatim_after_the_start_token_and_names_special_tokens() -> None:
    tokenizer, text = text_of("byte_level_started")
    assert text.start == (0,)
    ids = text.encode("the</s> cat")
    assert ids == (0, *tokenizer.encode("the", add_special_tokens=False), 1,
                   *tokenizer.encode(" cat", add_special_tokens=False))  # fmt: skip


def test_tokens_are_taken_as_they_are_within_the_embedding() -> None:
    text = Text(text_of("byte_level_started")[0], 500)
    assert text.encode((1, 499)) == (1, 499)
    for outside in (500, -1):
        with pytest.raises(Refused, match=rf"token 1 of the prompt is {outside}; .* from 0 to 499"):
            text.encode((3, outside))


def test_c01_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(Refused, match=r"character 1 of the prompt is the lone surrogate '\\ud800'"):
        text_of("byte_level")[1].encode("a\ud800")


def test_a_text_of_no_tokens_is_refused() -> None:
    with pytest.raises(Refused, match="no tokens"):
        text_of("word_piece")[1].encode(" ")


def test_messages_go_through_the_chat_template(weights: Path) -> None:
    tokenizer, text = real(weights)
    prompt = (("system", "Be brief."), ("user", "Hi <|im_end|>"))
    expected = tokenizer.apply_chat_template(
        [{"role": role, "content": content} for role, content in prompt], add_generation_prompt=True
    )["input_ids"]
    assert text.has_template
    assert list(text.encode(prompt)) == expected


def test_messages_without_a_template_are_refused() -> None:
    text = text_of("byte_level")[1]
    assert not text.has_template
    with pytest.raises(Refused, match="no chat template; send the prompt as text"):
        text.encode((("user", "hi"),))


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{% for", "template"),
        ("{{ messages[5].content.x.y }}", "no element 5"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe|undefined"),
        ("{% set _ = messages.append(1) %}", "unsafe|safely"),
    ],
)
def test_a_template_that_fails_or_leaves_its_sandbox_is_refused(template: str, reason: str) -> None:
    tokenizer = made(byte_level())
    tokenizer.chat_template = template
    with pytest.raises(Refused, match=rf"chat template refuses these messages: (?s:.*)({reason})"):
        Text(tokenizer, 500).encode((("user", "hi"),))


def test_truncation_and_padding_of_the_file_are_left_out() -> None:
    tokenizer = byte_level()
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=50)
    assert 2 < len(Text(made(tokenizer), 500).encode("the cat sat on the mat")) < 50


def test_a_decoder_that_looks_around_is_refused() -> None:
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "<unk>": 2}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.CTC("<unk>")
    with pytest.raises(Refused, match="can't be streamed"):
        Text(PreTrainedTokenizerFast(tokenizer_object=tokenizer), 3)
