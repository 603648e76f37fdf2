"""Small tokenizers of every kind that models come with, made here."""

from __future__ import annotations

from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

__all__ = ["KINDS", "made"]

CORPUS = [
    "the cat sat on the mat",
    "a naïve café costs 3 €",
    "don't stop, it's 12:30!",
    "日本語 and 🎉 emoji",
] * 4
SPECIAL = ["<s>", "</s>", "<unk>"]
ADDED = [AddedToken("<think>", special=False), AddedToken("née ", special=False)]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def byte_level(**options: Any) -> Tokenizer:
    """As GPT-2, Llama 3 and Qwen have them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(**{"add_prefix_space": False} | options)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def byte_level_started() -> Tokenizer:
    """One that puts a start token before each text, and an end token behind it."""
    tokenizer = byte_level()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return tokenizer


def byte_level_composed() -> Tokenizer:
    """One that composes characters first, as Qwen's do."""
    tokenizer = byte_level()
    tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def _pieces() -> dict[str, int]:
    words = ["▁", *"abcdefghijklmnopqrstuvwxyz0123456789.,!'", "é", "▁t", "he", "▁the", "at", "▁a", "é"]
    return {token: at for at, token in enumerate(dict.fromkeys([*SPECIAL, *BYTES, *words]))}


def byte_fallback() -> Tokenizer:
    """As Llama 2 and Mistral have them: sentencepiece's BPE, converted."""
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he"), ("a", "t"), ("▁", "a")]
    tokenizer = Tokenizer(models.BPE(_pieces(), merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


def byte_fallback_split() -> Tokenizer:
    """As Gemma has them: nothing before the first word."""
    tokenizer = byte_fallback()
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(" "), "merged_with_previous")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return tokenizer


def unigram() -> Tokenizer:
    """sentencepiece's other model, with spaces as its own pre-tokenizer makes them."""
    tokenizer = Tokenizer(models.Unigram([(piece, -float(at)) for piece, at in _pieces().items()], 2, True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence([decoders.Metaspace(), decoders.ByteFallback()])
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


def word_piece() -> Tokenizer:
    """As BERT has them."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


KINDS = {
    kind.__name__: kind
    for kind in (
        byte_level, byte_level_started, byte_level_composed, byte_fallback, byte_fallback_split, unigram, word_piece
    )
}  # fmt: skip


def made(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """As the library holds it, with added tokens of both sorts."""
    tokenizer.add_tokens(ADDED)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
