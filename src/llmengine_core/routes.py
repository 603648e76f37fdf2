"""How a checkpoint comes into a form that a backend loads: the shortest chain of registered transforms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from llmengine_core.types.declarations import BackendInfo, TransformInfo
from llmengine_core.types.plan import CheckpointFacts, TransformStep

__all__ = ["FULL_PRECISION", "Route", "Routes"]

FULL_PRECISION = frozenset({None, "f32", "f16", "bf16"})
"""Ways to store weights that lose nothing worth naming; only these can be quantized by an engine as it loads."""


@dataclass(frozen=True, slots=True)
class Route:
    """One way from the checkpoint to what a backend loads."""

    steps: tuple[TransformStep, ...]
    how: str
    """Where the quantization comes from, for people."""
    via: str = ""
    """The steps, for people: " → q8_0 by requantize"."""


@dataclass(frozen=True, slots=True)
class _Ways:
    """The shortest ways to some formats."""

    plain: Route | None
    precise: Route | None
    """The one that ends in full precision."""
    made: Mapping[str, Route]
    """To each quantization that a transform makes."""


class Routes:
    """All ways that lead from one checkpoint through the registered transforms."""

    def __init__(self, checkpoint: CheckpointFacts, transforms: Iterable[TransformInfo]) -> None:
        self._format, self._stored = checkpoint.format, checkpoint.quantization
        ranked = sorted(transforms, key=lambda info: (-info.priority, info.name))
        self._quantizers = [info for info in ranked if info.methods]
        self._reached = _conversions(checkpoint, [info for info in ranked if not info.methods])
        self._by_formats: dict[frozenset[str], _Ways] = {}

    def plain(self, backend: BackendInfo) -> Route | None:
        """The shortest way without quantizing; None where there is none."""
        return self._to(backend.formats).plain

    def quantized(self, backend: BackendInfo, method: str) -> Route | None:
        """The shortest way to that quantization; None where it isn't offered or the format isn't known."""
        ways = self._to(backend.formats)
        if ways.plain is not None and not ways.plain.steps and method == self._stored:
            return ways.plain
        found = [ways.made[method]] if method in ways.made and self._format is not None else []
        if ways.precise is not None and method in backend.quantizations:
            found.insert(0, replace(ways.precise, how="applied as it loads"))
        return min(found, key=lambda way: len(way.steps), default=None)

    def offered(self, backend: BackendInfo) -> list[str]:
        """The quantizations that there is a way to, sorted; for an unknown format, that there might be."""
        ways = self._to(backend.formats)
        methods = set(ways.made)
        if self._format is None or ways.precise is not None:
            methods |= backend.quantizations
        if ways.plain is not None and not ways.plain.steps and self._stored is not None:
            methods.add(self._stored)
        return sorted(methods)

    def _to(self, formats: frozenset[str]) -> _Ways:
        ways = self._by_formats.get(formats)
        if ways is None:
            found = [self._reached[each] for each in sorted(formats) if each in self._reached]
            plain = _shortest(found)
            # An engine can't quantize what is quantized; a conversion gives full precision.
            precise = plain if self._stored in FULL_PRECISION else _shortest([way for way in found if way])
            ways = self._by_formats[formats] = _Ways(plain, precise, self._quantizing(formats))
        return ways

    def _quantizing(self, formats: frozenset[str]) -> dict[str, Route]:
        found: dict[str, Route] = {}
        for info in self._quantizers:
            before = self._reached.get(info.source_format, () if self._format is None else None)
            if before is None or info.target_format not in formats:
                continue
            if not before and not _starts(info, self._stored):
                continue
            for method in info.methods:
                if method not in found or len(before) + 1 < len(found[method].steps):
                    step = TransformStep(
                        transform=info.name,
                        source_format=info.source_format,
                        target_format=info.target_format,
                        method=method,
                    )
                    found[method] = _route((*before, step), f"made once by {info.name}")
        return found


def _shortest(ways: list[tuple[TransformStep, ...]]) -> Route | None:
    return _route(min(ways, key=len), "as it is stored") if ways else None


def _route(steps: tuple[TransformStep, ...], how: str) -> Route:
    via = "".join(f" → {step.method or step.target_format} by {step.transform}" for step in steps)
    return Route(steps, how, via)


def _starts(info: TransformInfo, stored: str | None) -> bool:
    """Whether a transform may be the first step; those behind it find full precision."""
    return info.sources is None or stored in FULL_PRECISION or stored in info.sources


def _conversions(
    checkpoint: CheckpointFacts, transforms: list[TransformInfo]
) -> Mapping[str, tuple[TransformStep, ...]]:
    """For each format that can be converted to, the shortest chain; nothing where the start isn't known."""
    start = checkpoint.format
    if start is None:
        return {}
    reached: dict[str, tuple[TransformStep, ...]] = {start: ()}
    edge = [start]
    while edge:
        farther: list[str] = []
        for source in edge:
            for info in transforms:
                if info.source_format != source or info.target_format in reached:
                    continue
                if source != start or _starts(info, checkpoint.quantization):
                    step = TransformStep(
                        transform=info.name, source_format=source, target_format=info.target_format
                    )
                    reached[info.target_format] = (*reached[source], step)
                    farther.append(info.target_format)
        edge = farther
    return reached
