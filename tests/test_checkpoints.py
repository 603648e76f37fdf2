"""Checkpoints are told by their content, from file sizes and first bytes alone."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
from collections.abc import Callable, Mapping

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st
from tests.checkpoint_files import gguf, safetensors, small_gguf

from llmengine_core.checkpoints import Description, MoreNeeded, describe, within
from llmengine_core.types.plan import CheckpointFacts

ADAPTER = safetensors({"lora_A": (2, 8)})
WEIGHTS = safetensors({"a": (8, 8), "b": (32,)})
CONFIG = b'{"model_type": "llama", "num_attention_heads": 4, "max_position_embeddings": 256}'
PYTORCH = b"PK\x03\x04" + bytes(26) + b"archive/data.pkl" + bytes(100)
URL = "file:///model"


def look(files: Mapping[str, bytes], *, folder: bool) -> tuple[Description, dict[str, int]]:
    """Serve what is asked for; the answer, and how much was read of each file."""
    sizes = {name: len(content) for name, content in files.items()}
    heads: dict[str, bytes] = {}
    while True:
        try:
            found = describe(URL, sizes, heads, folder=folder)
        except MoreNeeded as more:
            wanted = more.wanted
        else:
            return found, {name: len(head) for name, head in heads.items()}
        assert wanted
        for name, stop in wanted.items():
            if name in sizes:
                assert len(heads.get(name, b"")) < stop <= sizes[name], "every round brings it forward"
            else:
                assert (stop, "/" in name, name in heads) == (0, True, False), "asked for once"
            heads[name] = files.get(name, b"")[:stop]


def folder(**files: bytes) -> Description:
    return look({name.replace("__", "."): content for name, content in files.items()}, folder=True)[0]


def file(content: bytes, name: str = "model") -> CheckpointFacts:
    return look({name: content}, folder=False)[0].facts


def reason(facts: CheckpointFacts) -> str:
    assert facts.problem is not None
    return facts.problem.message


def test_m04_a_gguf_file_is_known_by_its_content_not_its_name() -> None:
    for name in ("model.gguf", "model.safetensors", "readme"):
        assert file(small_gguf(), name) == CheckpointFacts(
            url=URL,
            format="gguf",
            size=len(small_gguf()),
            quantization="q8_0",
            architecture="llama",
            parameters=64 * 64 + 64,
            context_length=128,
            heads=4,
        )
    assert "no format that is known" in reason(file(b"not a model\n", "model.gguf"))


def test_m04_safetensors_and_pytorch_files() -> None:
    assert (file(WEIGHTS).format, file(WEIGHTS).parameters) == ("safetensors", 96)
    assert file(PYTORCH).format == "pytorch"
    assert file(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + bytes(9)).format == "pytorch"
    assert file(b"PK\x03\x04" + bytes(200)).problem, "another zip archive is no model"


def test_m04_archives_are_known_by_their_content() -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("config.json"), io.BytesIO())
    plain = packed.getvalue()
    for content, kind in (
        (plain, "tar"),
        (gzip.compress(plain), "tar.gz"),
        (zstd.compress(plain), "tar.zst"),
    ):
        assert file(content) == CheckpointFacts(url=URL, archive=kind)
        found = folder(README__md=b"", model__tar=content).facts
        assert "no weights in the folder, but the archive 'model.tar'" in reason(found)
    problem = file(b"BZh91AY&SY" + bytes(100)).problem
    assert problem
    assert "packed with bzip2; archives that are taken are .tar, .tar.gz and .tar.zst" in problem.message
    assert problem.mend == "pack it as one of these, or unpack it and name the folder"


def test_m04_a_hugging_face_folder_prefers_safetensors() -> None:
    found = folder(config__json=CONFIG, model__safetensors=WEIGHTS, pytorch_model__bin=PYTORCH + bytes(5000))
    assert found == Description(
        CheckpointFacts(
            url=URL,
            format="safetensors",
            size=len(WEIGHTS),
            architecture="llama",
            parameters=96,
            context_length=256,
            heads=4,
        ),
        needed=("model.safetensors", "config.json"),
    )
    assert folder(config__json=CONFIG, pytorch_model__bin=PYTORCH).facts.format == "pytorch"


def test_the_models_own_settings_are_found_where_there_are_several() -> None:
    inner = {"model_type": "gemma", "num_attention_heads": 2, "n_positions": 64}
    config = json.dumps(
        {"model_type": "vision", "text_config": inner, "quantization_config": {"quant_method": "AWQ"}}
    ).encode()
    facts = folder(config__json=config, model__safetensors=WEIGHTS).facts
    assert (facts.architecture, facts.heads, facts.context_length, facts.quantization) == (
        "gemma",
        2,
        64,
        "awq",
    )


@pytest.mark.parametrize(
    ("said", "stored"),
    [
        ({"quant_method": "GPTQ", "bits": 4}, "gptq"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes"),
        ({"load_in_8bit": True, "load_in_4bit": False}, "bitsandbytes"),
        (
            {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
            "bitsandbytes-nf4",
        ),
        ({"load_in_4bit": True}, "bitsandbytes-fp4"),
        ({"bits": 4}, None),
        ({}, None),
        ("awq", None),
    ],
)
def test_how_weights_are_stored_is_said_by_name(said: object, stored: str | None) -> None:
    config = json.dumps(json.loads(CONFIG) | {"quantization_config": said}).encode()
    assert folder(config__json=config, model__safetensors=WEIGHTS).facts.quantization == stored


@pytest.mark.parametrize(
    ("said", "code"), [({"AutoModelForCausalLM": "x--y.Z"}, True), ({}, False), (None, False)]
)
def test_code_of_a_checkpoints_own_is_noticed(said: object, code: bool) -> None:
    config = json.dumps(json.loads(CONFIG) | {"auto_map": said}).encode()
    assert folder(config__json=config, model__safetensors=WEIGHTS).facts.remote_code is code
    assert not folder(config__json=CONFIG, model__safetensors=WEIGHTS).facts.remote_code


def test_shards_are_added_up_and_missed() -> None:
    index = json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}).encode()
    files = {"config.json": CONFIG, "model.safetensors.index.json": index, "one.safetensors": WEIGHTS}
    whole = look({**files, "two.safetensors": ADAPTER, "other.safetensors": WEIGHTS}, folder=True)[0].facts
    assert whole.size == len(WEIGHTS) + len(ADAPTER)
    assert "1 of its 2 shards are missing, the first is two.safetensors" in reason(
        look(files, folder=True)[0].facts
    )


def lying(kind: str, shape: list[int], offsets: list[int]) -> bytes:
    """A safetensors file whose header may not agree with itself."""
    header = json.dumps({"a": {"dtype": kind, "shape": shape, "data_offsets": offsets}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(64)


def needed(**files: bytes) -> list[str]:
    return sorted(folder(**files).needed)


def test_m04_one_form_of_the_weights_is_needed_and_what_belongs_to_them() -> None:
    beside = dict.fromkeys(
        ["tokenizer__json", "tokenizer_config__json", "merges__txt", "chat_template__jinja"], b"{}"
    )
    other = dict.fromkeys(["README__md", "LICENSE__txt", "train__json", "modeling__py", "model__onnx"], b"{}")
    forms = {
        "model__fp16__safetensors": WEIGHTS,
        "consolidated__safetensors": WEIGHTS,
        "flax_model__msgpack": WEIGHTS,
    }
    names = ["chat_template.jinja", "config.json", "merges.txt"]
    tokens = ["tokenizer.json", "tokenizer_config.json"]
    for kind, weights, unused in (
        ("model.safetensors", WEIGHTS, {"pytorch_model__bin": PYTORCH}),
        ("pytorch_model.bin", PYTORCH, {"training_args__bin": PYTORCH, "optimizer__pt": PYTORCH}),
    ):
        more = forms if kind == "model.safetensors" else {}
        found = needed(config__json=CONFIG, **{kind: weights}, **beside, **other, **more, **unused)
        assert found == sorted([*names, *tokens, kind])


def test_the_largest_form_is_not_taken_for_the_one_that_engines_load() -> None:
    big = safetensors({"a": (64, 64)})
    found = folder(config__json=CONFIG, model__safetensors=WEIGHTS, consolidated__safetensors=big)
    assert (found.facts.size, found.needed[0]) == (len(WEIGHTS), "model.safetensors")
    alone = folder(config__json=CONFIG, weights__safetensors=big, weights__fp16__safetensors=WEIGHTS)
    assert (alone.facts.size, alone.needed[0]) == (len(big), "weights.safetensors")
    odd = folder(config__json=CONFIG, consolidated__safetensors=big)
    assert odd.needed[0] == "consolidated.safetensors", "better than nothing"


def test_many_files_of_one_format_do_not_hide_the_better_one() -> None:
    names = [f"pytorch_model-{number:05}-of-00012.bin" for number in range(1, 13)]
    shards = dict.fromkeys(names, PYTORCH + bytes(9_000))
    files = {"config.json": CONFIG, "pytorch_model.bin.index.json": b"{}", **shards}
    index = json.dumps({"weight_map": {"a": "model-00001-of-00001.safetensors"}}).encode()
    better = {"model.safetensors.index.json": index, "model-00001-of-00001.safetensors": WEIGHTS}
    assert look(files | better, folder=True)[0].facts.format == "safetensors"
    quantized = {f"q{number}.gguf": small_gguf() + bytes(9_999) for number in range(9)}
    assert look(quantized | {"config.json": CONFIG, "model.safetensors": WEIGHTS}, folder=True)[0].needed == (
        "model.safetensors",
        "config.json",
    )


def test_weights_that_no_engine_looks_for_by_name_come_last() -> None:
    found = folder(config__json=CONFIG, model__fp16__safetensors=WEIGHTS, pytorch_model__bin=PYTORCH)
    assert (found.facts.format, found.needed[0]) == ("pytorch", "pytorch_model.bin")


def test_other_archives_in_a_folder_do_not_matter() -> None:
    found = folder(config__json=CONFIG, model__safetensors=WEIGHTS, data__bz2=b"BZh91AY" + bytes(9_000))
    assert (found.facts.format, found.facts.problem) == ("safetensors", None)


def test_code_is_needed_only_where_a_configuration_names_some() -> None:
    coded = json.dumps(json.loads(CONFIG) | {"auto_map": {"AutoModel": "m.X"}}).encode()
    files = {"model__safetensors": WEIGHTS, "m__py": b"class X: ...", "setup__cfg": b""}
    assert "m.py" not in needed(config__json=CONFIG, **files)
    assert "m.py" in needed(config__json=coded, **files)


@pytest.mark.parametrize("name", ["../w.bin", "/w.bin", "a/../w.bin", "a//w", "", ".", "a\\w", "a\n"])
def test_no_index_leads_out_of_its_folder(name: str) -> None:
    assert not within(name)
    index = json.dumps({"weight_map": {"a": name}}).encode()
    files = {"config.json": CONFIG, "model.safetensors.index.json": index, "w.safetensors": WEIGHTS}
    assert "is not in its folder" in reason(look(files, folder=True)[0].facts)


def test_a_file_that_is_too_large_to_belong_to_weights_is_refused() -> None:
    sizes = {"config.json": len(CONFIG), "model.safetensors": len(WEIGHTS), "tokenizer.json": 1 << 30}
    heads = {"config.json": CONFIG, "model.safetensors": WEIGHTS, "tokenizer.json": b"{" * 4096}
    assert "its tokenizer.json has 1,073,741,824 bytes" in reason(
        describe(URL, sizes, heads, folder=True).facts
    )


def test_an_adapter_folder_is_an_adapter() -> None:
    found = folder(adapter_config__json=b"{}", adapter_model__safetensors=ADAPTER).facts
    assert (found.format, found.size, found.base) == ("adapter", len(ADAPTER), None)
    trained = json.dumps({"base_model_name_or_path": "org/llama"}).encode()
    named = folder(adapter_config__json=trained, adapter_model__safetensors=ADAPTER).facts
    assert (named.format, named.base) == ("adapter", "org/llama")
    assert "no adapter weights" in reason(folder(adapter_config__json=b"{}", README__md=b"hello").facts)
    lora = gguf({"general.architecture": "llama", "general.type": "adapter"})
    assert file(lora).format == "adapter"


def test_a_folder_with_one_gguf_model_is_that_file() -> None:
    found = folder(README__md=b"A model", weights=small_gguf())
    assert (found.file, found.facts.format, found.facts.size) == ("weights", "gguf", len(small_gguf()))


def test_a_folder_with_several_gguf_models_asks_for_one() -> None:
    found = folder(a__gguf=small_gguf(), b__gguf=small_gguf()).facts
    assert "several GGUF models: a.gguf, b.gguf" in reason(found)
    assert found.problem
    assert found.problem.mend == "name one of the files"


def part(number: int, count: int = 2) -> bytes:
    return small_gguf(split__count=("H", count), split__no=("H", number))


def test_a_split_gguf_model_is_whole_or_says_what_is_wrong() -> None:
    first, second = "m-00001-of-00002.gguf", "m-00002-of-00002.gguf"
    assert "one of 2 parts" in reason(file(part(0)))
    files = {first: part(0), second: part(1), "README.md": b"A model"}
    whole = look(files, folder=True)[0]
    assert (whole.file, whole.needed, whole.facts.size) == (first, (first, second), 2 * len(part(0)))
    assert whole.facts.parameters == 2 * (64 * 64 + 64)
    for changed, said in (
        ({first: part(0)}, "1 of its 2 parts are missing, the first is 'm-00002-of-00002.gguf'"),
        (files | {second: part(0)}, "m-00002-of-00002.gguf is not part 2 of 2"),
        (files | {second: part(1, 3)}, "m-00002-of-00002.gguf is not part 2 of 2"),
        (files | {second: part(1)[:-1]}, "truncated"),
        (files | {"n.gguf": small_gguf()}, f"several GGUF models: {first}, {second}, n.gguf"),
    ):
        assert said in reason(look(changed, folder=True)[0].facts)


def test_every_shard_is_whole() -> None:
    names = [f"model-{number:05}-of-00012.safetensors" for number in range(1, 13)]
    index = json.dumps({"weight_map": {name: name for name in names}}).encode()
    files = {"config.json": CONFIG, "model.safetensors.index.json": index} | dict.fromkeys(names, WEIGHTS)
    assert look(files, folder=True)[0].facts.parameters == 12 * 96
    for damaged in (WEIGHTS[:-1], WEIGHTS[:30], WEIGHTS + b"x", b""):
        found = look(files | {names[9]: damaged}, folder=True)[0].facts
        assert names[9] in reason(found)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"tjgg" + bytes(100), "before GGUF"),
        (small_gguf()[:-1], "truncated"),
        (small_gguf()[:100], "truncated"),
        (WEIGHTS[:-1], "truncated"),
        (WEIGHTS[:40], "truncated"),
        (struct.pack("<Q", 90_000_000) + b'{"a"' + bytes(100), "at most 8,388,608 are read"),
        (WEIGHTS + b"more", "goes on behind its tensors"),
        (struct.pack("<Q", 20) + b'{"a": {"shape": 1}} ', "without a shape"),
        (lying("F32", [2], [0, 4]), "2 elements take 4 bytes"),
        (lying("F32", [2], [8, 0]), "2 elements take -8 bytes"),
        (lying("F32", [2], [4, 12]), "begins at byte 4 of the weights, not at 0"),
        (struct.pack("<Q", 12) + b'{"a": [[[]]}', "not valid JSON"),
        (safetensors({"a": (1,) * 17}), "without a shape"),
        (gguf({"general.name": "x"}), "no general.architecture"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_used_says_why(content: bytes, said: str) -> None:
    facts = file(content)
    assert said in reason(facts)
    assert URL in reason(facts)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "it holds nothing"),
        ({"README.md": b"hello", "LICENSE": b"MIT"}, "it holds LICENSE, README.md"),
        ({"model.safetensors": WEIGHTS}, "no config.json"),
        ({"config.json": b"[]", "model.safetensors": WEIGHTS}, "not a JSON object"),
        ({"config.json": b"[" * 100_000, "model.safetensors": WEIGHTS}, "not valid JSON"),
        ({"config.json": b" " * (1 << 20) + b" ", "model.safetensors": WEIGHTS}, "larger than 1 MiB"),
        ({"config.json": CONFIG, "model.safetensors": WEIGHTS[:-1]}, "truncated"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_folders_that_cannot_be_used_say_why(files: dict[str, bytes], said: str) -> None:
    assert said in reason(look(files, folder=True)[0].facts)


def test_no_weights_are_read() -> None:
    tensors = {"w": ((1024, 8192), 0, 0)}
    model = gguf({"general.architecture": "llama"}, tensors, data=4 * 1024 * 8192)
    assert look({"m": model}, folder=False)[1] == {"m": 4096}
    big = safetensors({"w": (1024, 1024)})
    assert look({"m": big}, folder=False)[1]["m"] <= 4096


WHOLE: dict[str, bytes] = {
    "config.json": CONFIG,
    "model.safetensors": WEIGHTS,
    "model.safetensors.index.json": b'{"weight_map": {"a": "model.safetensors"}}',
    "adapter_config.json": b"{}",
    "m-00001-of-00002.gguf": small_gguf(split__count=("H", 2)),
    "pytorch_model.bin": PYTORCH,
}
damages: st.SearchStrategy[Callable[[bytes], bytes]] = st.one_of(
    st.just(lambda content: content),
    st.binary(max_size=40).map(lambda junk: lambda content: junk),
    st.integers(0, 200).map(lambda stop: lambda content: content[:stop]),
    st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=8)).map(
        lambda change: (
            lambda content: content[: change[0]] + change[1] + content[change[0] + len(change[1]) :]
        )
    ),
)


@given(st.dictionaries(st.sampled_from(sorted(WHOLE)), damages), st.booleans())
def test_any_files_end_in_facts_or_a_problem(damaged: dict[str, Callable[[bytes], bytes]], one: bool) -> None:
    files = {name: damage(WHOLE[name]) for name, damage in damaged.items()}
    found = look(dict(list(files.items())[:1]) if one and files else files, folder=not (one and files))[
        0
    ].facts
    assert found.url == URL
    if found.archive is not None:
        assert found == CheckpointFacts(url=URL, archive=found.archive)
    elif found.problem is None:
        assert found.size is not None
        assert found.format in {"gguf", "safetensors", "pytorch", "adapter", None}
    else:
        assert URL in found.problem.message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
KEYS = [
    "model_type",
    "text_config",
    "quantization_config",
    "num_attention_heads",
    "weight_map",
    "torch_dtype",
]


@given(st.dictionaries(st.sampled_from(KEYS), json_values), st.dictionaries(st.text(max_size=3), json_values))
def test_any_json_ends_in_facts_or_a_problem(config: dict[str, object], header: dict[str, object]) -> None:
    written = json.dumps(header).encode()
    files = {
        "config.json": json.dumps(config).encode(),
        "model.safetensors": struct.pack("<Q", len(written)) + written,
    }
    assert look(files, folder=True)[0].facts.url == URL
    files["model.safetensors.index.json"] = files["config.json"]
    assert look(files, folder=True)[0].facts.url == URL
