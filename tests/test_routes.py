"""Ways through transforms, against every chain that there is."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from llmengine_core.routes import FULL_PRECISION, Route, Routes
from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.declarations import (
    BackendInfo,
    QuantizationMethod,
    QuantizerInfo,
    TransformInfo,
)
from llmengine_core.types.plan import CheckpointFacts, TransformStep

FORMATS = ["a", "b", "c", "d", "e"]
METHODS = ["q4", "q8"]
formats = st.sampled_from(FORMATS)


@st.composite
def transforms(draw: st.DrawFn) -> list[TransformInfo]:
    """Up to twelve conversions and quantizers between five formats."""
    ends = draw(st.lists(st.tuples(formats, formats, st.integers(0, 1)), max_size=12))
    infos = []
    for at, (source, target, priority) in enumerate(ends):
        least = int(source == target)  # one that neither converts nor quantizes is not sound
        infos.append(
            TransformInfo(
                name=f"t{at}",
                factory="x:Y",
                priority=priority,
                source_format=source,
                target_format=target,
                methods=draw(st.frozensets(st.sampled_from(METHODS), min_size=least, max_size=1)),
                sources=draw(st.none() | st.frozensets(st.sampled_from(METHODS), max_size=1)),
                architectures=draw(st.sampled_from([None, None, frozenset({"llama"}), frozenset({"gemma"})])),
            )
        )
    return infos


some_methods = st.frozensets(st.sampled_from(METHODS), max_size=1)
backends = st.builds(
    BackendInfo,
    name=st.just("engine"),
    factory=st.just("x:Y"),
    capabilities=st.just(Capabilities()),
    formats=st.frozensets(formats, min_size=1, max_size=2),
    quantizations=some_methods,
    loads_quantized=st.none() | some_methods,
)
checkpoints = st.builds(
    CheckpointFacts,
    url=st.just("/x"),
    format=formats,
    quantization=st.sampled_from([None, "f16", *METHODS]),
    architecture=st.sampled_from([None, "llama"]),
)
quantizers = st.lists(
    st.builds(
        QuantizerInfo,
        name=st.sampled_from(["bits", "pack"]),
        factory=st.just("x:Y"),
        priority=st.integers(0, 1),
        methods=st.just((QuantizationMethod(name="q4", bits=4.5),)),
        backends=st.sampled_from([frozenset({"engine"}), frozenset({"other"})]),
        stored=some_methods,
        accelerators=st.sampled_from([frozenset({"cpu"}), frozenset({"cuda"})]),
    ),
    unique_by=lambda info: info.name,
    max_size=2,
)
missing = st.frozensets(st.integers(0, 11).map(lambda at: f"t{at}"))


def chains(start: str, infos: list[TransformInfo], seen: tuple[str, ...]) -> list[list[TransformInfo]]:
    """Every chain of conversions that comes to no format twice, with or without one quantizer at its end."""
    found: list[list[TransformInfo]] = [[]]
    for info in infos:
        if info.source_format == start:
            if info.methods:
                found.append([info])
            elif info.target_format not in seen:
                rests = chains(info.target_format, infos, (*seen, info.target_format))
                found += [[info, *rest] for rest in rests]
    return found


def begins(info: TransformInfo, stored: str | None) -> bool:
    """Whether a transform takes a checkpoint that is stored so."""
    return stored in FULL_PRECISION or info.sources is None or stored in info.sources


def knows(info: TransformInfo, checkpoint: CheckpointFacts) -> bool:
    """Whether a transform takes models of this architecture."""
    return None in (info.architectures, checkpoint.architecture) or checkpoint.architecture in (
        info.architectures or ()
    )


def reads(backend: BackendInfo, stored: str | None, beside: list[QuantizerInfo]) -> bool:
    """Whether a backend loads weights that are quantized so."""
    return (
        stored in FULL_PRECISION
        or backend.loads_quantized is None
        or stored in backend.loads_quantized
        or any(stored in each.stored for each in beside if backend.name in each.backends)
    )


Cost = tuple[int, int]
"""Transforms that can't run here, and steps."""


def best(
    checkpoint: CheckpointFacts,
    infos: list[TransformInfo],
    beside: list[QuantizerInfo],
    absent: frozenset[str],
    backend: BackendInfo,
    method: str | None,
) -> Cost | None:
    """The cost of the best chain that ends in what the backend loads, quantized as asked."""
    costs = []
    start = str(checkpoint.format)
    applied = {
        each.name
        for quantizer in beside
        if backend.name in quantizer.backends and "cpu" in quantizer.accelerators
        for each in quantizer.methods
    } | backend.quantizations
    for chain in chains(start, [info for info in infos if knows(info, checkpoint)], (start,)):
        if chain and not begins(chain[0], checkpoint.quantization):
            continue
        ends = chain[-1].target_format if chain else start
        made: Any = chain[-1].methods if chain and chain[-1].methods else None
        stored = None if chain else checkpoint.quantization
        native = made is None and stored in FULL_PRECISION and method in applied
        ready = method in (made or {stored}) and reads(backend, method, beside)
        as_asked = (made is None and reads(backend, stored, beside)) if method is None else ready or native
        if ends in backend.formats and as_asked:
            costs.append((sum(info.name in absent for info in chain), len(chain)))
    return min(costs, default=None)


def cost(routes: Routes, route: Route | None) -> Cost | None:
    return None if route is None else (len(routes.missing(route)), len(route.steps))


@given(checkpoints, transforms(), quantizers, missing, backends)
def test_the_best_way_is_found_where_there_is_one(
    checkpoint: CheckpointFacts,
    infos: list[TransformInfo],
    beside: list[QuantizerInfo],
    absent: frozenset[str],
    backend: BackendInfo,
) -> None:
    routes = Routes(checkpoint, infos, beside, missing=absent)
    assert cost(routes, routes.plain(backend)) == best(checkpoint, infos, beside, absent, backend, None)
    for method in METHODS:
        found = routes.quantized(backend, method)
        assert cost(routes, found) == best(checkpoint, infos, beside, absent, backend, method)
        assert (method in routes.offered(backend)) == (found is not None)


@given(checkpoints, transforms(), quantizers, backends)
def test_what_must_be_beside_a_backend_is_named_where_it_is_needed_and_only_there(
    checkpoint: CheckpointFacts, infos: list[TransformInfo], beside: list[QuantizerInfo], backend: BackendInfo
) -> None:
    routes = Routes(checkpoint, infos, beside)
    alone = Routes(checkpoint, infos)
    for method in METHODS:
        route, without = routes.quantized(backend, method), alone.quantized(backend, method)
        if route is None or without is None:
            assert without is None
            assert route is None or route.quantizer in beside
        else:
            assert len(route.steps) <= len(without.steps)
            assert route.quantizer is None or backend.name in route.quantizer.backends


@given(checkpoints, transforms(), backends, st.sampled_from([None, *METHODS]))
def test_a_way_begins_at_the_checkpoint_and_ends_at_the_backend(
    checkpoint: CheckpointFacts, infos: list[TransformInfo], backend: BackendInfo, method: str | None
) -> None:
    routes, by_name = Routes(checkpoint, infos), {info.name: info for info in infos}
    route = routes.plain(backend) if method is None else routes.quantized(backend, method)
    if route is None:
        return
    at = checkpoint.format
    for step in route.steps:
        info = by_name[step.transform]
        assert (step.source_format, step.target_format) == (info.source_format, info.target_format)
        assert step.source_format == at
        assert step.method in info.methods if info.methods else step.method is None
        at = step.target_format
    assert at in backend.formats
    assert [step.method for step in route.steps[:-1] if step.method] == []


@given(checkpoints, transforms(), quantizers, missing, backends, st.randoms(use_true_random=False))
def test_the_order_of_declarations_means_nothing(
    checkpoint: CheckpointFacts,
    infos: list[TransformInfo],
    beside: list[QuantizerInfo],
    absent: frozenset[str],
    backend: BackendInfo,
    random: Any,
) -> None:
    one = Routes(checkpoint, infos, beside, missing=absent)
    other = Routes(
        checkpoint,
        random.sample(infos, len(infos)),
        random.sample(beside, len(beside)),
        missing=absent,
    )
    assert one.plain(backend) == other.plain(backend)
    for method in METHODS:
        assert one.quantized(backend, method) == other.quantized(backend, method)


def test_what_was_quantized_is_not_offered_to_those_that_do_not_start_from_it() -> None:
    hard = TransformInfo(
        name="hard", factory="x:Y", source_format="a", target_format="a", methods=frozenset({"q4"}),
        sources=frozenset({"q8"}),
    )  # fmt: skip
    engine = BackendInfo(name="e", factory="x:Y", capabilities=Capabilities(), formats=frozenset({"a"}))
    for stored, offered in (("q5", ["q5"]), ("q8", ["q4", "q8"]), ("f16", ["f16", "q4"]), (None, ["q4"])):
        routes = Routes(CheckpointFacts(url="/x", format="a", quantization=stored), [hard])
        assert routes.offered(engine) == offered
        assert (routes.quantized(engine, "q4") is not None) == ("q4" in offered)


def test_bits_of_a_weight_are_known_wherever_they_come_from() -> None:
    dequantize = TransformInfo(name="open", factory="x:Y", source_format="a", target_format="b")
    q8 = TransformInfo(
        name="q8", factory="x:Y", source_format="a", target_format="a", methods=frozenset({"q8_0"})
    )
    nf4 = QuantizerInfo(
        name="bits",
        factory="x:Y",
        methods=(QuantizationMethod(name="nf4", bits=4.5),),
        backends=frozenset({"e"}),
    )
    routes = Routes(CheckpointFacts(url="/x", format="a", quantization="q4"), [dequantize, q8], [nf4])
    one = BackendInfo(
        name="e",
        factory="x:Y",
        capabilities=Capabilities(),
        formats=frozenset({"b"}),
        quantizations=frozenset({"fp8", "awq"}),
    )
    other = BackendInfo(name="f", factory="x:Y", capabilities=Capabilities(), formats=frozenset({"a"}))

    def bits(backend: BackendInfo, method: str | None) -> float | None:
        route = routes.plain(backend) if method is None else routes.quantized(backend, method)
        assert route is not None
        return route.bits

    assert [bits(one, each) for each in (None, "nf4", "fp8", "awq")] == [16.0, 4.5, 9.0, 5.0]
    assert [bits(other, each) for each in (None, "q4", "q8_0")] == [None, None, 9.0]


def test_of_equal_ways_the_transform_with_the_higher_priority_is_taken() -> None:
    def convert(name: str, priority: int) -> TransformInfo:
        return TransformInfo(
            name=name, factory="x:Y", priority=priority, source_format="a", target_format="b"
        )

    engine = BackendInfo(name="e", factory="x:Y", capabilities=Capabilities(), formats=frozenset({"b"}))
    checkpoint = CheckpointFacts(url="/x", format="a")
    for infos in ([convert("x", 0), convert("y", 1)], [convert("y", 1), convert("x", 0)]):
        route = Routes(checkpoint, infos).plain(engine)
        assert route is not None
        assert route.steps == (TransformStep(transform="y", source_format="a", target_format="b"),)


def test_the_shorter_way_is_taken_wherever_it_stands() -> None:
    def transform(name: str, source: str, target: str, *methods: str) -> TransformInfo:
        return TransformInfo(
            name=name, factory="x:Y", source_format=source, target_format=target, methods=frozenset(methods)
        )

    infos = [
        transform("t0", "b", "b", "q8"),
        transform("t1", "a", "c"),
        transform("t2", "c", "b"),
        transform("t3", "a", "b", "q8"),
    ]
    engine = BackendInfo(name="e", factory="x:Y", capabilities=Capabilities(), formats=frozenset({"b", "c"}))
    routes = Routes(CheckpointFacts(url="/x", format="a"), infos)
    for route, names in ((routes.plain(engine), ["t1"]), (routes.quantized(engine, "q8"), ["t3"])):
        assert route is not None
        assert [step.transform for step in route.steps] == names
