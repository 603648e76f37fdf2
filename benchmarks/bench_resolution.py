"""Resolution of one spec among 50 backends and 50 transforms. Goal: at most 1 ms of CPU, the median of many.

Nothing is looked up: facts and declarations are made here, so that only the pure part is measured. The ratio
is that to one dataclass replacement, a measure of this machine.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace

from llmengine_core.explanation import summarize
from llmengine_core.resolution import resolve
from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.declarations import (
    BackendInfo,
    Declarations,
    Declared,
    EnvironmentSpec,
    TransformInfo,
)
from llmengine_core.types.models import ModelSpec
from llmengine_core.types.plan import BackendFacts, CheckpointFacts, EnvironmentFacts, Facts, HostFacts

PLUGINS = 50
FORMATS = ("gguf", "safetensors", "pytorch")
SPEC = ModelSpec(name="bench", model="llama", inference_framework="auto", quantize="m1")
HERE = (EnvironmentFacts(python="/python", version="1.0"),)
FACTS = Facts(
    checkpoint=CheckpointFacts(
        url="file:///llama", format="gguf", path="/llama", size=10**9, architecture="llama", heads=32
    ),
    host=HostFacts(cpus=16, memory=64 << 30),
    backends={f"engine{at}": BackendFacts(environments=HERE if at % 4 else ()) for at in range(PLUGINS)},
)


def backend(at: int) -> BackendInfo:
    return BackendInfo(
        name=f"engine{at}",
        factory="a.b:C",
        priority=at % 5,
        capabilities=Capabilities(),
        formats=frozenset({FORMATS[at % 3]}),
        quantizations=frozenset({"int8"}),
        environment=EnvironmentSpec(distribution=f"engine{at}", module=f"engine{at}"),
    )


def transform(at: int) -> TransformInfo:
    return TransformInfo(
        name=f"transform{at}",
        factory="a.b:C",
        source_format=FORMATS[at % 3],
        target_format=FORMATS[at // 3 % 3],
        methods=frozenset({f"m{at % 4}"}) if at % 3 == at // 3 % 3 or at % 2 else frozenset(),
    )


DECLARATIONS = Declarations(
    backends=tuple(Declared(backend(at), f"plugin{at}") for at in range(PLUGINS)),
    transforms=tuple(Declared(transform(at), f"plugin{at}") for at in range(PLUGINS)),
)


def milliseconds(work: Callable[[], object], *, times: int = 300) -> float:
    """The median of the CPU time that a call takes."""
    spent = []
    for _ in range(times):
        began = time.process_time_ns()
        work()
        spent.append(time.process_time_ns() - began)
    return statistics.median(spent) / 1e6


def main() -> None:
    """Print the figures."""
    plan = resolve(SPEC, DECLARATIONS, FACTS)
    unit = milliseconds(lambda: [replace(SPEC) for _ in range(100)]) / 100
    rows = {
        "resolve one spec among 50 plugins": milliseconds(lambda: resolve(SPEC, DECLARATIONS, FACTS)),
        "the same, named framework": milliseconds(
            lambda: resolve(replace(SPEC, inference_framework="engine7"), DECLARATIONS, FACTS)
        ),
        "put the plan into words": milliseconds(lambda: summarize(plan)),
    }
    for what, took in rows.items():
        print(f"{what:36} {took:7.3f} ms  = {took / unit:6.0f} replacements of a spec")


if __name__ == "__main__":
    main()
