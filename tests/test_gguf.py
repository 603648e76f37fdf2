"""GGUF headers: read right, bounded, and never trusted."""

from __future__ import annotations

import struct
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.checkpoint_files import SCALARS, gguf, gguf_text, small_gguf, smollm2

from llmengine_core.gguf import LIMIT, STEP, BadHeader, GGUFHeader, MoreBytes, read_header

SMALL = small_gguf()


def read(content: bytes) -> GGUFHeader:
    return read_header(content, len(content))


def outcome(head: bytes, size: int) -> GGUFHeader | str | int:
    """The header, the reason why there is none, or how many bytes are needed to tell."""
    try:
        return read_header(head, size)
    except BadHeader as error:
        return error.reason
    except MoreBytes as error:
        return error.stop


def reason(content: bytes, size: int | None = None) -> str:
    with pytest.raises(BadHeader) as caught:
        read_header(content, len(content) if size is None else size)
    return caught.value.reason


def test_the_real_model_is_described_by_its_header_alone() -> None:
    path = smollm2()
    with path.open("rb") as file:
        header = read_header(file.read(STEP), path.stat().st_size)
    assert header.version == 3
    assert header.text("general.architecture") == "llama"
    assert header.number("llama.context_length") == 8192
    assert header.number("llama.attention.head_count") == 9
    assert header.quantization == "q4_1"
    assert header.parameters == 134_515_008
    assert "tokenizer.ggml.tokens" not in header.metadata


def test_a_real_model_that_lacks_its_last_byte_is_truncated() -> None:
    path = smollm2()
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(STEP)
    assert f"ends at byte {size:,}, the file at {size - 1:,}" in reason(head, size - 1)
    assert "truncated" in reason(head[:100_000], 100_000)


codes = st.sampled_from(sorted(SCALARS))


@st.composite
def scalars(draw: st.DrawFn) -> tuple[str, int | float | bool]:
    code = draw(codes)
    if code == "?":
        return code, draw(st.booleans())
    if code in "fd":
        return code, draw(st.floats(width=32 if code == "f" else 64, allow_nan=False))
    bits = 8 * struct.calcsize(f"<{code}")
    low, high = (0, 2**bits - 1) if code.isupper() else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return code, draw(st.integers(low, high))


@given(st.dictionaries(st.text(min_size=1, max_size=20), st.text(max_size=50) | scalars()))
def test_metadata_comes_back_as_it_was_written(metadata: dict[str, str | tuple[str, int]]) -> None:
    metadata = {f"x.{key}": value for key, value in metadata.items()}
    found = read(gguf(metadata)).metadata
    assert found == {key: value if isinstance(value, str) else value[1] for key, value in metadata.items()}


@given(st.lists(st.tuples(st.integers(0, 40), st.sampled_from([0, 1, 2, 3, 8, 12, 30])), max_size=8))
def test_weights_are_counted_and_their_place_is_checked(tensors: list[tuple[int, int]]) -> None:
    """Types as (elements of a block, bytes of a block), written down here from the format's description."""
    blocks = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 8: (32, 34), 12: (256, 144), 30: (1, 2)}
    entries, end = {}, 0
    for at, (count, kind) in enumerate(tensors):
        elements, width = blocks[kind]
        entries[f"t{at}"] = ((elements, count), kind, end)
        end += count * width
    assert read(gguf({}, entries, data=end)).parameters == sum(
        count * blocks[kind][0] for count, kind in tensors
    )
    if end:
        assert "truncated" in reason(gguf({}, entries, data=end - 1))


def test_the_quantization_is_that_of_most_weights_where_the_file_does_not_say() -> None:
    tensors = {"big": ((64, 32), 8, 0), "small": ((64,), 0, 2176)}
    assert read(gguf({}, tensors, data=2432)).quantization == "q8_0"
    assert read(gguf({"general.file_type": ("I", 1024)}, tensors, data=2432)).quantization == "q8_0"
    assert read(gguf({"general.file_type": ("I", 15)}, tensors, data=2432)).quantization == "q4_k_m"


def test_a_list_of_equal_numbers_is_one_number() -> None:
    assert read(small_gguf(heads=[("I", 8), ("I", 8)])).number("heads") == 8
    assert read(small_gguf(heads=[("I", 8), ("I", 4)])).number("heads") is None


@given(st.binary(max_size=200), st.integers(0, 400))
@example(b"GGUF", 4)
def test_any_bytes_end_in_a_header_or_a_reason(content: bytes, more: int) -> None:
    for head in (content, b"GGUF" + content, SMALL[:24] + content):
        found = outcome(head, len(head) + more)
        assert len(head) < found <= len(head) + more if isinstance(found, int) else found


@given(st.data())
def test_a_damaged_header_ends_in_a_header_or_a_reason(data: st.DataObject) -> None:
    damaged = bytearray(SMALL)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        width = data.draw(st.sampled_from([1, 4, 8]))
        damaged[at : at + width] = data.draw(st.binary(min_size=width, max_size=width))
    del damaged[data.draw(st.integers(0, len(damaged))) :]
    assert isinstance(outcome(bytes(damaged), len(damaged)), GGUFHeader | str)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (SMALL[:3], "truncated"),
        (b"ggml" + SMALL[4:], "doesn't start with 'GGUF'"),
        (struct.pack(">4sIQQ", b"GGUF", 3, 0, 0), "big-endian"),
        (struct.pack("<4sIQQ", b"GGUF", 1, 0, 0), "version is 1"),
        (struct.pack("<4sIQQ", b"GGUF", 3, 0, 2**63), "metadata entries"),
        (struct.pack("<4sIQQ", b"GGUF", 3, 2**60, 0), "tensors"),
        (struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + struct.pack("<Q", 2**62) + bytes(64), "metadata key"),
        (gguf({"a": ""})[:-40] + gguf_text("a") + struct.pack("<II", 99, 0), "type 99"),
        (gguf({"general.alignment": ("I", 3)}), "power of two"),
        (gguf({"general.alignment": ("I", 0)}), "power of two"),
        (gguf({"general.alignment": "32"}), "power of two"),
        (gguf({}, {"t": ((1,) * 9, 0, 0)}), "9 dimensions"),
        (gguf({}, {"t": ((2**63, 2**63), 0, 0)}, data=64), "truncated"),
        (gguf({}, {"t": ((2**40,), 99, 0)}, data=64), "truncated"),
        (gguf({}, {"t": ((1,), 0, 2**63)}, data=64), "truncated"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_hostile_headers_are_refused_with_the_reason(content: bytes, said: str) -> None:
    assert said in reason(content + bytes(64) if said in ("metadata key", "type 99") else content)


def test_lists_of_lists_are_refused() -> None:
    nested = struct.pack("<IIQ", 9, 9, 1) + struct.pack("<IQ", 4, 0)
    content = struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + gguf_text("a") + nested
    assert "values of the type 9" in reason(content + bytes(64))


def test_reading_is_bounded_in_bytes_and_in_time() -> None:
    """A list of empty texts that fills the largest header that is read, in a file that is larger still."""
    count = LIMIT // 8
    start = struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + gguf_text("a") + struct.pack("<IIQ", 9, 8, count)
    size = 10 * LIMIT
    began = time.process_time()
    head, rounds = start, 0
    while isinstance(found := outcome(head, size), int):
        assert found <= LIMIT
        head, rounds = start + bytes(found - len(start)), rounds + 1
    assert found == "its header is larger than 32 MiB"
    assert rounds <= 3
    assert time.process_time() - began < 10
