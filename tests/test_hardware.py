"""What a worker should get where the spec doesn't say (M06)."""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmengine_core.arguments.quantity import quantity_bytes
from llmengine_core.hardware import GPU_LADDER, infer
from llmengine_core.sizes import cache_bytes
from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.declarations import BackendInfo
from llmengine_core.types.models import ModelSpec
from llmengine_core.types.plan import CheckpointFacts, Hardware, HostFacts

HOST = HostFacts(cpus=4, memory=16 << 30)


def backend(*accelerators: str) -> BackendInfo:
    return BackendInfo(
        name="x",
        factory="x:Y",
        capabilities=Capabilities(),
        formats=frozenset({"gguf"}),
        accelerators=frozenset(accelerators),
    )


def inferred(parameters: int | None, *accelerators: str, **given_fields: object) -> Hardware:
    spec = ModelSpec(name="m", model="m", **given_fields)  # type: ignore[arg-type]
    checkpoint = CheckpointFacts(url="/m", parameters=parameters)
    weights = None if parameters is None else 2 * parameters
    return infer(spec, checkpoint, backend(*accelerators), HOST, weights)


@pytest.mark.parametrize(
    ("billions", "gpus", "gpu_type", "storage"),
    [
        (7, 1, "nvidia-ampere-a10", "40Gi"),
        (13, 2, "nvidia-ampere-a10", "80Gi"),
        (70, 4, "nvidia-hopper-h100", "200Gi"),
    ],
)
def test_m06_on_gpus_by_the_models_size(billions: int, gpus: int, gpu_type: str, storage: str) -> None:
    assert inferred(billions * 10**9, "cuda") == Hardware(
        cpus=8 * gpus, memory=f"{24 * gpus}Gi", storage=storage, gpus=gpus, gpu_type=gpu_type
    )


def test_m06_on_cpus_memory_for_the_weights_and_no_gpu() -> None:
    assert inferred(135_000_000, "cpu") == Hardware(
        cpus=3, memory="1Gi", storage="40Gi", gpus=0, gpu_type=None
    )


def test_m06_an_unknown_size_infers_what_does_not_depend_on_it() -> None:
    assert inferred(None, "cpu") == Hardware(cpus=3, memory=None, storage=None, gpus=0)
    assert inferred(None, "cuda", num_shards=2).gpus == 2


class Published(NamedTuple):
    """A model by its own config.json, and how the original counts it."""

    parameters: int
    layers: int
    hidden: int
    heads: int
    key_heads: int
    context: int
    billions: int
    """As the original reads them off the name, or has them in a table."""


MODELS = {
    "llama-2-7b": Published(6_738_415_616, 32, 4096, 32, 32, 4096, 7),
    "llama-2-13b": Published(13_015_864_320, 40, 5120, 40, 40, 4096, 13),
    "llama-2-70b": Published(68_976_648_192, 80, 8192, 64, 8, 4096, 70),
    "llama-3-8b": Published(8_030_261_248, 32, 4096, 32, 8, 8192, 8),
    "llama-3-70b": Published(70_553_706_496, 80, 8192, 64, 8, 8192, 70),
    "mistral-7b": Published(7_241_732_096, 32, 4096, 32, 8, 32768, 7),
    "mixtral-8x7b": Published(46_702_792_704, 32, 4096, 32, 8, 32768, 47),
    "mixtral-8x22b": Published(140_620_634_112, 56, 6144, 48, 8, 65536, 140),
    "codellama-34b": Published(33_743_970_304, 48, 8192, 64, 8, 16384, 34),
    "qwen2-72b-instruct": Published(72_706_203_648, 80, 8192, 64, 8, 32768, 72),
}


class Row(NamedTuple):
    """A row of the original's table, for what needs at most so many GB of weights and cache."""

    limit: int
    cpus: int
    gpus: int
    memory: str
    storage: str
    gpu_type: str


ORIGINAL = (
    Row(24, 10, 1, "24Gi", "80Gi", "nvidia-ampere-a10"),
    Row(48, 20, 2, "48Gi", "80Gi", "nvidia-ampere-a10"),
    Row(96, 40, 4, "96Gi", "96Gi", "nvidia-ampere-a10"),
    Row(180, 20, 2, "160Gi", "160Gi", "nvidia-hopper-h100"),
    Row(320, 40, 4, "320Gi", "320Gi", "nvidia-hopper-h100"),
    Row(640, 80, 8, "800Gi", "640Gi", "nvidia-hopper-h100"),
)


def originals(model: Published) -> Row:
    """What the original gives a model: twice its billions, and the cache of one whole context."""
    cache = 2 * 2 * model.layers * model.hidden * model.context // (model.heads // model.key_heads)
    gigabytes = ceil((cache + 2 * model.billions * 10**9) / 10**9 / 0.9)
    return next(row for row in ORIGINAL if gigabytes <= row.limit)


def ours(model: Published, **given_fields: object) -> Hardware:
    checkpoint = CheckpointFacts(
        url="/m",
        parameters=model.parameters,
        context_length=model.context,
        cache_bytes=cache_bytes(
            layers=model.layers, heads=model.key_heads, head_size=model.hidden // model.heads
        ),
    )
    spec = ModelSpec(name="m", model="m", **given_fields)  # type: ignore[arg-type]
    return infer(spec, checkpoint, backend("cuda"), HOST, 2 * model.parameters)


@pytest.mark.parametrize("name", MODELS)
def test_m06_gpus_are_the_originals_where_the_configuration_is_known(name: str) -> None:
    model = MODELS[name]
    row, found = originals(model), ours(model)
    assert (found.gpus, found.gpu_type) == (row.gpus, row.gpu_type)
    # The contract's own: the original gives 10 CPUs and up to 100Gi of memory for each GPU, and other disks.
    assert (found.cpus, found.memory) == (8 * row.gpus, f"{24 * row.gpus}Gi")


@pytest.mark.parametrize(
    ("name", "storage"),
    [("llama-2-7b", "40Gi"), ("mistral-7b", "40Gi"), ("llama-2-13b", "80Gi"), ("llama-2-70b", "200Gi")],
)
def test_m06_storage_is_that_of_what_models_are_called(name: str, storage: str) -> None:
    assert ours(MODELS[name]).storage == storage


@given(st.integers(1, 10**12))
def test_m06_storage_holds_the_weights_with_room_to_spare(parameters: int) -> None:
    storage = quantity_bytes(inferred(parameters, "cuda").storage or "")
    assert storage is not None
    assert storage >= 1.4 * 2 * parameters or storage == 200 << 30
    assert storage >= 1.33 * 2 * parameters


def test_m06_a_longer_context_takes_more() -> None:
    # The original gives this one 2 H100, 40Gi and 20 CPUs, by its name.
    longer = MODELS["llama-3-8b"]._replace(context=262_144)
    assert (ours(longer).gpus, ours(longer).gpu_type) == (4, "nvidia-ampere-a10")
    assert ours(MODELS["llama-3-8b"]).gpus == 1


def by_name(model: str, **given_fields: object) -> Hardware:
    """What is inferred where nothing was seen of the weights."""
    spec = ModelSpec(name="m", model=model, **given_fields)  # type: ignore[arg-type]
    return infer(spec, CheckpointFacts(url="/m"), backend("cuda"), HOST, None)


def test_m06_where_nothing_was_seen_the_models_name_tells_its_size() -> None:
    assert by_name("llama-2-13b") == inferred(13 * 10**9, "cuda")
    assert by_name("llama-2-7b").storage == "40Gi"
    assert by_name("mine").storage is None
    assert by_name("qwen2-1.5b").gpus == 1


@pytest.mark.parametrize(
    ("method", "gpus", "kind"),
    [
        (None, 4, "nvidia-hopper-h100"),
        ("bitsandbytes", 2, "nvidia-hopper-h100"),
        ("bitsandbytes-nf4", 4, "nvidia-ampere-a10"),
        ("awq", 4, "nvidia-ampere-a10"),
        ("q8_0", 2, "nvidia-hopper-h100"),
        ("q4_k_m", 4, "nvidia-ampere-a10"),
        ("odd", 4, "nvidia-hopper-h100"),
    ],
)
def test_m06_a_quantized_model_needs_less(method: str | None, gpus: int, kind: str) -> None:
    found = by_name("llama-2-70b", quantize=method)
    assert (found.gpus, found.gpu_type) == (gpus, kind)
    assert found.storage == "200Gi"  # what is fetched is not quantized yet


GIVEN = st.fixed_dictionaries(
    {},
    optional={
        "cpus": st.integers(1, 99),
        "memory": st.just("3Gi"),
        "storage": st.just("5Gi"),
        "gpus": st.integers(0, 8),
    },
)


@given(st.integers(1, 400 * 10**9), st.sampled_from(["cpu", "cuda"]), GIVEN)
def test_m06_what_is_given_stands(parameters: int, accelerator: str, fields: dict[str, object]) -> None:
    hardware = inferred(parameters, accelerator, **fields)
    assert {name: getattr(hardware, name) for name in fields} == fields
    assert hardware.cpus >= 1
    assert (hardware.gpu_type is not None) == (hardware.gpus > 0)


@given(st.integers(1, 200 * 10**9), st.integers(1, 200 * 10**9), st.sampled_from(["cpu", "cuda"]))
def test_m06_a_larger_model_never_gets_less(one: int, other: int, accelerator: str) -> None:
    small, large = (inferred(each, accelerator) for each in sorted([one, other]))
    for quantity in ("memory", "storage"):
        assert (quantity_bytes(getattr(small, quantity)) or 0) <= (
            quantity_bytes(getattr(large, quantity)) or 0
        ) or (
            small.gpu_type != large.gpu_type  # fewer of a larger kind
        )


@given(st.integers(1, 240 * 10**9), st.integers(1, 8))
def test_m06_gpus_hold_the_weights_and_every_shard(parameters: int, shards: int) -> None:
    hardware = inferred(parameters, "cuda", num_shards=shards)
    assert hardware.gpus >= shards
    rung = next(
        limit for limit, count, kind in GPU_LADDER if (count, kind) == (hardware.gpus, hardware.gpu_type)
    )
    assert 2 * parameters * 1.2 <= rung * 1e9
