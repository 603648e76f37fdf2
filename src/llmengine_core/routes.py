"""How a checkpoint comes into a form that a backend loads, quantized as asked: the best chain of transforms."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from llmengine_core.sizes import bits_by_name
from llmengine_core.types.declarations import BackendInfo, QuantizerInfo, TransformInfo
from llmengine_core.types.plan import CheckpointFacts, TransformStep

__all__ = ["FULL_PRECISION", "Route", "Routes"]

FULL_PRECISION = frozenset({None, "f32", "f16", "bf16"})
"""Ways to store weights that lose nothing worth naming; only these can be quantized as an engine loads them."""
CONVERTED_BITS = 16.0
"""That a weight takes after a conversion of what was quantized."""


@dataclass(frozen=True, slots=True)
class Route:
    """One way from the checkpoint to what a backend loads."""

    steps: tuple[TransformStep, ...]
    how: str
    """Where the quantization comes from, for people."""
    via: str = ""
    """The steps, for people: " → q8_0 by requantize"."""
    quantizer: QuantizerInfo | None = None
    """What must be beside the backend for it to load this."""
    bits: float | None = None
    """That a weight takes as it is served; 0 where that can't be told, None for as many as in the checkpoint."""


@dataclass(frozen=True, slots=True)
class _Ways:
    """The best ways to some formats, whatever the backend can read of them."""

    direct: Route | None
    """The checkpoint as it is."""
    converted: Route | None
    """One that ends in full precision, by at least one conversion."""
    made: Mapping[str, Route]
    """To each quantization that a transform makes."""


class Routes:
    """All ways that lead from one checkpoint through the registered transforms and quantizers.

    The best way has the fewest steps among those with the fewest transforms in ``missing``, which can't run here
    yet; then priority and name of the transforms decide.
    """

    def __init__(
        self,
        checkpoint: CheckpointFacts,
        transforms: Iterable[TransformInfo],
        quantizers: Iterable[QuantizerInfo] = (),
        *,
        missing: Collection[str] = (),
    ) -> None:
        self._format, self._stored = checkpoint.format, checkpoint.quantization
        self._missing = missing
        ranked = sorted(
            (info for info in transforms if _knows(info, checkpoint)),
            key=lambda info: (-info.priority, info.name),
        )
        self._making = [info for info in ranked if info.methods]
        self._reached = self._conversions([info for info in ranked if not info.methods])
        self._by_formats: dict[frozenset[str], _Ways] = {}
        self._by_reader: dict[Hashable, dict[str, Route | None]] = {}
        self._quantizers: dict[str, list[QuantizerInfo]] = {}
        for quantizer in sorted(quantizers, key=lambda info: (-info.priority, info.name)):
            for backend in quantizer.backends:
                self._quantizers.setdefault(backend, []).append(quantizer)

    def plain(self, backend: BackendInfo) -> Route | None:
        """The best way without quantizing; None where there is none."""
        ways = self._to(backend.formats)
        return self._as_stored(ways.direct, backend) or ways.converted

    def quantized(self, backend: BackendInfo, method: str, accelerator: str = "cpu") -> Route | None:
        """The best way to that quantization; None where it isn't offered or the format isn't known."""
        return self._quantizations(backend, accelerator).get(method)

    def offered(self, backend: BackendInfo, accelerator: str = "cpu") -> list[str]:
        """The quantizations that there is a way to, sorted; for an unknown format, that there might be."""
        found = self._quantizations(backend, accelerator)
        return sorted(method for method, way in found.items() if way is not None or self._format is None)

    def loads(self, backend: BackendInfo) -> bool:
        """Whether a backend can read weights that are quantized as the checkpoint's are, whatever their format."""
        return self._reader(backend, self._stored) is not False

    def needs_precision(self, backend: BackendInfo, method: str, accelerator: str = "cpu") -> bool:
        """Whether a quantization could be had, were the weights not stored quantized already."""
        found = self._quantizations(backend, accelerator)
        return self._stored not in FULL_PRECISION and method in found and found[method] is None

    def missing(self, route: Route) -> list[str]:
        """Names of the transforms on a way that can't run here yet."""
        return [step.transform for step in route.steps if step.transform in self._missing]

    # -- one backend -----------------------------------------------------------------------------------------

    def _quantizations(self, backend: BackendInfo, accelerator: str) -> Mapping[str, Route | None]:
        """Every quantization that a backend could serve, with the best way to it, if there is one."""
        own = backend.name if backend.name in self._quantizers else None
        key = (backend.formats, backend.quantizations, backend.loads_quantized, own, accelerator)
        found = self._by_reader.get(key)
        if found is None:
            found = self._by_reader[key] = {}
            for method, way in self._ways(backend, accelerator):
                way = None if self._format is None else way
                best = found.setdefault(method, way)
                if way and (best is None or self._cost(way.steps) < self._cost(best.steps)):
                    found[method] = way
        return found

    def _ways(self, backend: BackendInfo, accelerator: str) -> Iterator[tuple[str, Route | None]]:
        """Ways to quantizations; of equal ones, what needs less comes first."""
        ways = self._to(backend.formats)
        if self._stored is not None and ways.direct is not None:
            yield self._stored, self._as_stored(ways.direct, backend)
        # What is quantized isn't quantized again by an engine; a conversion gives full precision.
        precise = (
            ways.direct if self._stored in FULL_PRECISION and ways.direct is not None else ways.converted
        )
        for method in backend.quantizations:
            yield method, precise and replace(precise, how="applied as it loads", bits=bits_by_name(method))
        for quantizer in self._quantizers.get(backend.name, ()):
            if accelerator in quantizer.accelerators:
                how = f"applied as it loads, by {quantizer.name}"
                for each in quantizer.methods:
                    way = precise and replace(precise, how=how, bits=each.bits, quantizer=quantizer)
                    yield each.name, way
        for method, made in ways.made.items():
            reader = self._reader(backend, method)
            if reader is not False:
                yield method, made if reader is None else replace(made, quantizer=reader)

    def _as_stored(self, direct: Route | None, backend: BackendInfo) -> Route | None:
        reader = self._reader(backend, self._stored)
        if direct is None or reader is False:
            return None
        return direct if reader is None else replace(direct, quantizer=reader)

    def _reader(
        self, backend: BackendInfo, quantization: str | None
    ) -> QuantizerInfo | Literal[False] | None:
        """What lets a backend read weights that are quantized so: None for itself, False for nothing."""
        if quantization in FULL_PRECISION or quantization in (backend.loads_quantized or ()):
            return None
        for quantizer in self._quantizers.get(backend.name, ()):
            if quantization in quantizer.stored:
                return quantizer
        return None if backend.loads_quantized is None else False

    # -- some formats ----------------------------------------------------------------------------------------

    def _to(self, formats: frozenset[str]) -> _Ways:
        ways = self._by_formats.get(formats)
        if ways is None:
            found = [self._reached[each] for each in formats if each in self._reached]
            bits = None if self._stored in FULL_PRECISION else CONVERTED_BITS
            direct = _route((), "as it is stored") if () in found else None
            steps = min(filter(None, found), key=self._order, default=None)
            converted = _route(steps, "as it is stored", bits) if steps else None
            ways = self._by_formats[formats] = _Ways(direct, converted, self._made(formats))
        return ways

    def _made(self, formats: frozenset[str]) -> dict[str, Route]:
        best: dict[str, tuple[TransformStep, ...]] = {}
        for info in self._making:
            before = self._reached.get(info.source_format, () if self._format is None else None)
            if before is None or info.target_format not in formats:
                continue
            if not before and not _starts(info, self._stored):
                continue
            for method in info.methods:
                steps = (*before, _step(info, method))
                if method not in best or self._cost(steps) < self._cost(best[method]):
                    best[method] = steps
        return {
            method: _route(steps, f"made once by {steps[-1].transform}", bits_by_name(method))
            for method, steps in best.items()
        }

    def _conversions(self, transforms: list[TransformInfo]) -> dict[str, tuple[TransformStep, ...]]:
        """For each format that can be converted to, the best chain; nothing where the start isn't known."""
        if self._format is None:
            return {}
        reached: dict[str, tuple[TransformStep, ...]] = {}
        # Missing transforms, steps, and the ranks of the transforms decide, in this order.
        edge: list[tuple[int, int, tuple[int, ...], str]] = [(0, 0, (), self._format)]
        while edge:
            missing, length, ranks, at = heapq.heappop(edge)
            if at in reached:
                continue
            reached[at] = tuple(_step(transforms[rank]) for rank in ranks)
            for rank, info in enumerate(transforms):
                if info.source_format != at or info.target_format in reached:
                    continue
                if ranks or _starts(info, self._stored):
                    more = missing + (info.name in self._missing)
                    heapq.heappush(edge, (more, length + 1, (*ranks, rank), info.target_format))
        return reached

    def _cost(self, steps: tuple[TransformStep, ...]) -> tuple[int, int]:
        return sum([step.transform in self._missing for step in steps]), len(steps)

    def _order(self, steps: tuple[TransformStep, ...]) -> tuple[tuple[int, int], str]:
        return self._cost(steps), steps[-1].target_format


def _route(steps: tuple[TransformStep, ...], how: str, bits: float | None = None) -> Route:
    via = "".join([f" → {step.method or step.target_format} by {step.transform}" for step in steps])
    return Route(steps, how, via, None, bits)


def _step(info: TransformInfo, method: str | None = None) -> TransformStep:
    return TransformStep(
        transform=info.name,
        source_format=info.source_format,
        target_format=info.target_format,
        method=method,
        revision=info.revision,
    )


def _knows(info: TransformInfo, checkpoint: CheckpointFacts) -> bool:
    """Whether a transform can work on models of this architecture, or may be able to."""
    known = info.architectures
    return known is None or checkpoint.architecture is None or checkpoint.architecture in known


def _starts(info: TransformInfo, stored: str | None) -> bool:
    """Whether a transform may be the first step; those behind it find full precision."""
    return info.sources is None or stored in FULL_PRECISION or stored in info.sources
