"""What is in an archive is told without unpacking it, by a bounded part of it."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.archive_files import compressed, entry, finished, packed
from tests.checkpoint_files import safetensors, small_gguf

from llmengine_core.packed import WINDOW, Bounds, describe_packed
from llmengine_core.types.plan import CheckpointFacts

KINDS = ("tar", "tar.gz", "tar.zst")
URL = "shelf://bucket/archive"
MUCH = Bounds(seconds=60, reads=10_000, bytes=1 << 30, unpacked=1 << 30)
CONFIG = b'{"model_type": "llama", "num_attention_heads": 4, "max_position_embeddings": 256}'
WEIGHTS = safetensors({"a": (8, 8), "b": (32,)})
FOLDER = {"m": None, "m/config.json": CONFIG, "m/model.safetensors": WEIGHTS, "m/tokenizer.json": b"{}"}
FACTS = CheckpointFacts(
    url=URL,
    format="safetensors",
    size=len(WEIGHTS),
    architecture="llama",
    parameters=96,
    context_length=256,
    heads=4,
)


class Reader:
    """Content that counts how it is read."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.reads = self.taken = 0

    def __call__(self, start: int, stop: int) -> bytes:
        assert 0 <= start < stop <= len(self.content)
        self.reads += 1
        self.taken += stop - start
        return self.content[start:stop]


def look(content: bytes, kind: str, bounds: Bounds = MUCH) -> tuple[CheckpointFacts, Reader]:
    reader = Reader(content)
    return describe_packed(URL, kind, reader, len(content), bounds), reader


def reason(facts: CheckpointFacts) -> str:
    assert facts.problem is not None
    return facts.problem.message


@pytest.mark.parametrize("kind", KINDS)
def test_m04_an_archive_is_what_is_in_it(kind: str) -> None:
    def facts(files: dict[str, bytes | None]) -> CheckpointFacts:
        return look(compressed(packed(files), kind), kind)[0]

    assert facts(FOLDER) == replace(FACTS, archive=kind)
    model = facts({"README.md": b"A model", "model": small_gguf()})
    assert (model.format, model.quantization, model.size) == ("gguf", "q8_0", len(small_gguf()))
    assert (model.url, model.archive) == (URL, kind)
    trained = json.dumps({"base_model_name_or_path": "org/llama"}).encode()
    adapter = facts({"adapter_config.json": trained, "adapter_model.safetensors": WEIGHTS})
    assert (adapter.format, adapter.base) == ("adapter", "org/llama")
    index = json.dumps({"weight_map": {"a": "parts/one.safetensors", "b": "two.safetensors"}}).encode()
    parts: dict[str, bytes | None] = {
        "config.json": CONFIG,
        "model.safetensors.index.json": index,
        "parts/one.safetensors": WEIGHTS,
        "two.safetensors": WEIGHTS,
    }
    assert facts(parts).parameters == 2 * 96
    del parts["parts/one.safetensors"]
    assert "1 of its 2 shards are missing, the first is parts/one" in reason(facts(parts))
    assert "no weights were found in the folder (it holds README.md)" in reason(
        facts({"README.md": b"A model"})
    )
    assert "is truncated" in reason(facts(FOLDER | {"m/model.safetensors": WEIGHTS[:-1]}))


@pytest.mark.parametrize("kind", KINDS)
def test_m04_what_would_not_be_unpacked_is_told_before_it_is_fetched(kind: str) -> None:
    for member, said in (
        (entry("../evil", b"x"), "outside its folder"),
        (entry("link", kind=b"2", link="/etc"), "a symbolic link"),
        (entry("a", b"x") + entry("a", b"x"), "more than once"),
    ):
        facts = look(compressed(finished(entry("model", WEIGHTS), member), kind), kind)[0]
        assert said in reason(facts)
        assert reason(facts).startswith(f"the archive {URL} can't be used: it holds ")
    content = compressed(packed(FOLDER), kind)
    assert "truncated" in reason(look(content[: len(content) // 3], kind)[0])


def test_a_million_members_are_not_walked() -> None:
    content = compressed(finished(*(entry(f"f{number}") for number in range(10_050))), "tar.zst")
    assert "more than 10,000 files and folders" in reason(look(content, "tar.zst")[0])


def test_of_a_plain_archive_only_headers_are_read() -> None:
    shards = {
        f"model-{number:05}-of-00012.safetensors": safetensors({"w": (1024, 1024)}) for number in range(1, 13)
    }
    index = json.dumps({"weight_map": {name: name for name in shards}}).encode()
    beside: dict[str, bytes | None] = {"config.json": CONFIG, "model.safetensors.index.json": index}
    for files in ({**shards, **beside}, {**beside, **shards}):
        content = packed(files)
        facts, reader = look(content, "tar")
        assert (facts.size, facts.parameters) == (sum(map(len, shards.values())), 12 << 20)
        assert len(content) > 48 << 20
        assert reader.reads <= 3 * len(files)
        assert reader.taken <= reader.reads * WINDOW + len(index)


def test_an_archive_of_small_files_is_read_about_once() -> None:
    content = packed(
        {f"notes/{number}": os.urandom(100) * 80 for number in range(2_000)} | {"w": small_gguf()}
    )
    facts, reader = look(content, "tar")
    assert facts.format == "gguf"
    assert reader.taken < 2 * len(content) + WINDOW


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "bounds",
    [
        replace(MUCH, seconds=-1),
        replace(MUCH, reads=1),
        replace(MUCH, bytes=150 << 10),
        replace(MUCH, unpacked=300 << 10),
    ],
    ids=["seconds", "reads", "bytes", "unpacked"],
)
def test_what_cannot_be_told_within_bounds_is_left_open(kind: str, bounds: Bounds) -> None:
    files = {**FOLDER, **{f"m/noise{number}": os.urandom(3 << 20) for number in range(3)}}
    content = compressed(packed(files), kind)
    if kind == "tar" and bounds.unpacked != MUCH.unpacked:
        return  # nothing is unpacked of it
    facts, reader = look(content, kind, bounds)
    assert facts == CheckpointFacts(url=URL, archive=kind)
    assert reader.taken <= bounds.bytes


@pytest.mark.parametrize("kind", ["tar.gz", "tar.zst"])
def test_a_compressed_archive_is_gone_through_again_only_up_to_what_is_needed(kind: str) -> None:
    long = safetensors({f"layer.{number}.weight": (1,) for number in range(2_000)})
    files = {"config.json": CONFIG, "model.safetensors": long, "noise": os.urandom(8 << 20)}
    content = compressed(packed(files), kind)
    facts, reader = look(content, kind)
    assert facts.parameters == 2_000
    assert int.from_bytes(long[:8], "little") > 64 << 10, "it doesn't lie in what is kept of every file"
    assert reader.taken < len(content) + (4 << 20)


@given(st.binary(max_size=1500), st.sampled_from(KINDS))
def test_any_bytes_end_in_facts_or_a_problem(junk: bytes, kind: str) -> None:
    for content in (junk, compressed(junk, kind), compressed(packed({"a": junk}), kind)):
        facts = look(content, kind)[0]
        assert facts.archive == kind
        assert URL in reason(facts)
