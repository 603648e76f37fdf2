"""How a checkpoint comes into a form that a backend loads: the shortest chain of registered transforms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

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


class Routes:
    """All ways that lead from one checkpoint through the registered transforms."""

    def __init__(self, checkpoint: CheckpointFacts, transforms: Iterable[TransformInfo]) -> None:
        self._checkpoint = checkpoint
        ranked = sorted(transforms, key=lambda info: (-info.priority, info.name))
        self._quantizers = [info for info in ranked if info.methods]
        self._reached = _conversions(checkpoint.format, [info for info in ranked if not info.methods])

    def plain(self, backend: BackendInfo) -> Route | None:
        """The shortest way without quantizing; None where there is none."""
        ways = [self._reached[each] for each in sorted(backend.formats) if each in self._reached]
        return Route(min(ways, key=len), "as it is stored") if ways else None

    def quantized(self, backend: BackendInfo, method: str) -> Route | None:
        """The shortest way to that quantization; None where it isn't offered."""
        ways: list[Route] = []
        plain = self.plain(backend)
        if plain is not None and not plain.steps and method == self._checkpoint.quantization:
            return Route((), "as it is stored")
        if plain is not None and method in backend.quantizations and self._applicable(plain):
            ways.append(Route(plain.steps, "applied as it loads"))
        for info in self._quantizers:
            if (
                method in info.methods
                and info.target_format in backend.formats
                and info.source_format in self._reached
            ):
                step = TransformStep(
                    transform=info.name,
                    source_format=info.source_format,
                    target_format=info.target_format,
                    method=method,
                )
                ways.append(Route((*self._reached[info.source_format], step), f"made once by {info.name}"))
        return min(ways, key=lambda way: len(way.steps), default=None)

    def offered(self, backend: BackendInfo) -> list[str]:
        """The quantizations that there is a way to, sorted; any that there might be, for an unknown format."""
        if self._checkpoint.format is None:
            made = [info.methods for info in self._quantizers if info.target_format in backend.formats]
            return sorted(backend.quantizations.union(*made))
        plain = self.plain(backend)
        methods = set(backend.quantizations) if plain is not None and self._applicable(plain) else set()
        if plain is not None and not plain.steps and self._checkpoint.quantization is not None:
            methods.add(self._checkpoint.quantization)
        for info in self._quantizers:
            if info.target_format in backend.formats and info.source_format in self._reached:
                methods |= info.methods
        return sorted(methods)

    def _applicable(self, plain: Route) -> bool:
        """Whether an engine can quantize what it gets on this way; a conversion gives full precision."""
        return bool(plain.steps) or self._checkpoint.quantization in FULL_PRECISION


def _conversions(
    start: str | None, transforms: list[TransformInfo]
) -> Mapping[str, tuple[TransformStep, ...]]:
    """For each format that can be converted to, the shortest chain; nothing where the start isn't known."""
    if start is None:
        return {}
    reached: dict[str, tuple[TransformStep, ...]] = {start: ()}
    edge = [start]
    while edge:
        farther: list[str] = []
        for source in edge:
            for info in transforms:
                if info.source_format == source and info.target_format not in reached:
                    step = TransformStep(
                        transform=info.name, source_format=source, target_format=info.target_format
                    )
                    reached[info.target_format] = (*reached[source], step)
                    farther.append(info.target_format)
        edge = farther
    return reached
