"""What a worker should get where the spec doesn't say (M06)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmengine_core.arguments.quantity import quantity_bytes
from llmengine_core.hardware import GPU_LADDER, infer
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
