"""A transform that is right keeps the laws, and so do some that are right in their own way."""

from __future__ import annotations

from pathlib import Path

from tests.contract.mutants.halving import Halving, TransformOf

from llmengine_core.interfaces.transform import Transform
from llmengine_core.types.progress import OnProgress, Progress


class InPhases(Transform):
    """Counts bytes in one phase and doesn't know the end of the other; tells that it is done twice."""

    async def run(
        self, source: Path, target: Path, *, method: str | None, on_progress: OnProgress, python: str = ""
    ) -> None:
        for done in (0, 100, 100):
            on_progress(Progress(source.name, "read", done, 100, "bytes"))
        await Halving().run(source, target, method=method, on_progress=lambda _: None)
        on_progress(Progress(source.name, "count", 17))


class TestHalving(TransformOf):
    made_of = Halving


class TestInPhases(TransformOf):
    made_of = InPhases
