"""What Model.create and Model.update accept and refuse before any work."""

from __future__ import annotations

import copy
from contextlib import suppress
from dataclasses import asdict
from enum import Enum
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmengine_core.arguments.checks import shown
from llmengine_core.arguments.model import CLIENT_ONLY, GPU_TYPES, ClientOnly, merge_model, parse_model
from llmengine_core.arguments.quantity import quantity, quantity_bytes
from llmengine_core.errors import BadRequestError, UnsupportedFeatureError
from llmengine_core.types.models import ModelSpec


class Framework(str, Enum):  # noqa: UP042 - such enums are what the facade has
    VLLM = "vllm"


def parse(**given_: Any) -> ModelSpec:
    arguments = {"name": "my-model", "model": "llama-2-7b", "inference_framework_image_tag": "latest"}
    return parse_model(**arguments | given_)


names = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?", fullmatch=True)
words = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
amounts = st.sampled_from(["4Gi", "512Mi", "1.5Gi", "2e9", "2E9", "100M", "+1k", ".5G", "1500m", 2e9, 10**9])
texts = st.text(st.characters(exclude_categories=["Cs"]))


@st.composite
def in_range(draw: st.DrawFn) -> dict[str, Any]:
    gpus = draw(st.none() | st.integers(0, 16))
    minimum = draw(st.integers(0, 5))
    return {
        "name": draw(names),
        "model": draw(names | st.tuples(names, names).map("/".join)),
        "inference_framework_image_tag": draw(
            st.just("latest") | st.from_regex(r"v?[0-9]+\.[0-9]+(\.post1)?", fullmatch=True)
        ),
        "inference_framework": draw(words),
        "num_shards": draw(st.integers(1, gpus or 16)),
        "quantize": draw(st.none() | words),
        "checkpoint_path": draw(
            st.none() | st.sampled_from(["s3://bucket/path", "file:///a b/ü", "weights.tar"])
        ),
        "cpus": draw(st.none() | st.integers(1, 200)),
        "memory": draw(st.none() | amounts),
        "storage": draw(st.none() | amounts),
        "gpus": gpus,
        "min_workers": minimum,
        "max_workers": 1 if minimum == 0 else draw(st.integers(minimum, 100)),
        "per_worker": draw(st.integers(1, 1000)),
        "gpu_type": draw(st.none() | st.sampled_from(GPU_TYPES)) if gpus else None,
        "high_priority": draw(st.none() | st.booleans()),
        "post_inference_hooks": draw(st.none() | st.just([]) | st.just(["callback"])),
        "default_callback_url": draw(
            st.none() | st.sampled_from(["http://a.example", "https://b.example:8443/x?y=z"])
        ),
        "public_inference": draw(st.none() | st.booleans()),
        "labels": draw(st.none() | st.dictionaries(texts.filter(bool), texts)),
    }


@given(in_range())
def test_m01_everything_in_range_is_accepted_and_checking_again_changes_nothing(
    given_: dict[str, Any],
) -> None:
    spec = parse(**given_)
    assert parse_model(**asdict(spec)) == spec
    assert merge_model(spec, {}) == spec
    assert copy.deepcopy(spec) == spec
    for name, value in given_.items():
        if value is not None and name not in ("memory", "storage", "post_inference_hooks"):
            assert getattr(spec, name) == value


junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters()),
    st.binary(),
    st.lists(st.text(st.characters()) | st.integers(), max_size=3),
    st.dictionaries(st.text() | st.integers(), st.text(st.characters()) | st.integers(), max_size=3),
    st.integers(-(2**31), 2**31 - 1).map(np.int32),
    st.floats().map(np.float64),
    st.sampled_from(
        [10**5000, object(), np.array([1]), float("nan"), "1e999999999", "9" * 10_000, np.bool_(True)]
    ),
)
FIELDS = [*ModelSpec.__dataclass_fields__, *CLIENT_ONLY]


@given(st.dictionaries(st.sampled_from(FIELDS), junk, min_size=1, max_size=3))
def test_m01_junk_in_any_field_is_the_callers_error_or_accepted(given_: dict[str, Any]) -> None:
    with suppress(BadRequestError):
        spec = parse(**given_)
        assert parse_model(**asdict(spec)) == spec


@given(in_range(), st.dictionaries(st.sampled_from(FIELDS[2:]), junk, max_size=3))
def test_m10_junk_in_an_update_is_the_callers_error_or_accepted(
    given_: dict[str, Any], changes: dict[str, Any]
) -> None:
    changes.pop("inference_framework", None)
    with suppress(BadRequestError):
        spec = merge_model(parse(**given_), changes)
        assert parse_model(**asdict(spec)) == spec


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "."),
        ("name", ".."),
        ("name", "a/b"),
        ("name", "../a"),
        ("name", "-a"),
        ("name", "a."),
        ("name", "a" * 129),
        ("name", "a b"),
        ("name", "ä"),
        ("name", "a\n"),
        ("name", None),
        ("model", ""),
        ("model", "a/b/c"),
        ("model", "/a"),
        ("inference_framework_image_tag", None),
        ("inference_framework_image_tag", ""),
        ("inference_framework_image_tag", 9),
        ("inference_framework_image_tag", "a b"),
        ("source", "s3"),
        ("source", None),
        ("inference_framework", ""),
        ("inference_framework", None),
        ("num_shards", 0),
        ("num_shards", True),
        ("num_shards", "1"),
        ("quantize", ""),
        ("quantize", 4),
        ("checkpoint_path", ""),
        ("checkpoint_path", "a\0b"),
        ("checkpoint_path", b"/a"),
        ("cpus", 0),
        ("cpus", 1.5),
        ("cpus", "8"),
        ("gpus", -1),
        ("min_workers", -1),
        ("min_workers", None),
        ("max_workers", -1),
        ("per_worker", 0),
        ("endpoint_type", "sync"),
        ("endpoint_type", "async"),
        ("high_priority", "yes"),
        ("public_inference", 1),
        ("post_inference_hooks", "callback"),
        ("post_inference_hooks", ["insight"]),
        ("default_callback_url", "ftp://a.example"),
        ("default_callback_url", "http://"),
        ("default_callback_url", "http://a b.example"),
        ("default_callback_url", "http://a.example:99999"),
        ("default_callback_url", "http://[::1"),
        ("default_callback_url", "a.example"),
        ("labels", ["team"]),
        ("labels", {"team": 1}),
        ("labels", {"": "a"}),
    ],
)
def test_m01_out_of_range_names_the_field(field: str, value: object) -> None:
    with pytest.raises(BadRequestError, match=field):
        parse(**{field: value})


@pytest.mark.parametrize(
    "name",
    [
        "llama-2-7b",
        "llama-2-7b.my-experiment.230717-230150",
        "llama-2-7b.suffix.2023-07-18-12-00-00",
        "A_1",
        "7",
    ],
)
def test_m01_the_references_names_and_those_of_fine_tunes_are_names(name: str) -> None:
    assert parse(name=name).name == name


def test_m02_a_framework_may_be_any_name_and_members_of_enums_give_theirs() -> None:
    assert parse().inference_framework == "vllm"
    assert parse(inference_framework="auto").inference_framework == "auto"
    assert parse(inference_framework="llama_cpp").inference_framework == "llama_cpp"
    assert type(parse(inference_framework=Framework.VLLM).inference_framework) is str


def test_m03_the_tag_has_no_default() -> None:
    with pytest.raises(TypeError, match="inference_framework_image_tag"):
        parse_model(name="a", model="b")  # type: ignore[call-arg]


def test_m05_shards_fit_the_gpus() -> None:
    assert parse(num_shards=4, gpus=4).num_shards == 4
    assert parse(num_shards=4, gpus=0).num_shards == 4
    assert parse(num_shards=4).gpus is None
    with pytest.raises(BadRequestError, match="num_shards is 5; it must be at most gpus, which is 4"):
        parse(num_shards=5, gpus=4)


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("24Gi", 24 * 2**30),
        ("512Mi", 512 * 2**20),
        ("1.5Gi", 3 * 2**29),
        ("2e9", 2 * 10**9),
        ("2E9", 2 * 10**9),
        ("1E", 10**18),
        ("1Ei", 2**60),
        ("1k", 1000),
        ("1Ki", 1024),
        ("1500m", 2),
        ("1n", 1),
        ("3u", 1),
        ("+4M", 4 * 10**6),
        (".5k", 500),
        ("5.", 5),
        ("1e-1", 1),
        ("0Gi", 0),
    ],
)
def test_m06_quantities_are_read_as_kubernetes_reads_them(written: str, size: int) -> None:
    assert quantity_bytes(written) == size


@given(st.integers(1, 2**20), st.sampled_from(["", "Ki", "Mi", "Gi", "k", "M", "G"]))
def test_m06_a_quantity_is_its_number_times_its_suffix(number: int, suffix: str) -> None:
    scale = {"": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "k": 10**3, "M": 10**6, "G": 10**9}[suffix]
    assert quantity_bytes(f"{number}{suffix}") == number * scale
    assert quantity("memory", f"{number}{suffix}") == f"{number}{suffix}"
    assert quantity_bytes(quantity("memory", number)) == number
    assert quantity_bytes(quantity("memory", np.int64(number))) == number
    assert quantity_bytes(quantity("memory", float(number))) == number


@pytest.mark.parametrize(
    "amount",
    [
        "",
        "0",
        "0Gi",
        "-1Gi",
        "Gi",
        ".",
        "1K",
        "1ki",
        "1gb",
        "1 Gi",
        " 1Gi",
        "1Gi\n",
        "1e",
        "1e+",
        "NaN",
        "Infinity",
        "9Ei",
        "1e99",
        "1e999999999",
        "٣Gi",
        0,
        -1,
        0.0,
        True,
        1e300,
        10**5000,
        float("nan"),
        None,
        b"1Gi",
        [1],
    ],
    ids=shown,
)
def test_m06_what_is_no_positive_quantity_is_refused(amount: object) -> None:
    with pytest.raises(BadRequestError, match="memory"):
        quantity("memory", amount)


def test_m06_a_gpu_type_goes_with_gpus() -> None:
    assert parse(gpus=1, gpu_type="nvidia-ampere-a10").gpu_type == "nvidia-ampere-a10"
    for gpus in (0, None):
        with pytest.raises(BadRequestError, match="gpu_type"):
            parse(gpus=gpus, gpu_type="nvidia-ampere-a10")
    with pytest.raises(BadRequestError, match="nvidia-hopper-h100-3g40gb"):
        parse(gpus=1, gpu_type="gtx-1080")


def test_m07_workers() -> None:
    assert parse(min_workers=2, max_workers=2).max_workers == 2
    with pytest.raises(
        BadRequestError, match="max_workers is 1; it must be at least min_workers, which is 2"
    ):
        parse(min_workers=2, max_workers=1)
    with pytest.raises(BadRequestError, match="1 where min_workers is 0"):
        parse(min_workers=0, max_workers=2)
    with pytest.raises(BadRequestError, match="max_workers"):
        parse(min_workers=0, max_workers=0)


def test_m10_an_update_is_checked_after_merging() -> None:
    spec = parse(min_workers=1, max_workers=3, gpus=2, num_shards=2)
    assert merge_model(spec, {"max_workers": 5, "min_workers": None}).max_workers == 5
    with pytest.raises(BadRequestError, match="max_workers"):
        merge_model(spec, {"min_workers": 4})
    with pytest.raises(BadRequestError, match="num_shards"):
        merge_model(spec, {"gpus": 1})
    assert merge_model(spec, {"labels": {}}).labels == {}


@pytest.mark.parametrize("name", ["name", "inference_framework", "colour"])
def test_m10_what_an_update_cannot_change_is_a_type_error(name: str) -> None:
    with pytest.raises(TypeError, match=rf"update\(\) got an unexpected keyword argument '{name}'"):
        merge_model(parse(), {name: "x"})


@pytest.mark.parametrize("name", sorted(CLIENT_ONLY))
def test_c13_the_original_clients_arguments_are_taken_where_neutral_and_refused_elsewhere(name: str) -> None:
    for neutral in CLIENT_ONLY[name]:
        assert parse(**{name: neutral}) == parse()
        assert merge_model(parse(), {name: neutral}) == parse()
    with pytest.raises(UnsupportedFeatureError, match=name):
        parse(**{name: "something"})
    with pytest.raises(UnsupportedFeatureError, match=name):
        merge_model(parse(), {name: "something"})


def test_c13_the_typed_names_are_the_checked_ones() -> None:
    assert ClientOnly.__annotations__.keys() == CLIENT_ONLY.keys()
