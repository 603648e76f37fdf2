"""Transforms that are wrong."""

from __future__ import annotations

import asyncio
import os
import random
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from tests.contract.mutants import Mutant
from tests.contract.mutants.halving import Halving, TransformOf

from llmengine_core.errors import ServerError
from llmengine_core.interfaces.transform import Transform
from llmengine_core.testing.checkpoints import GGUF_SHAPES, gguf_bytes
from llmengine_core.testing.tensors import Tensors, read_tensors
from llmengine_core.types.progress import OnProgress, Progress


class Copies(Halving):
    def work(self, source: Path, target: Path, tell: Callable[[float], None], stop: threading.Event) -> None:
        self.read(source)
        tell(0.5)
        self.put(target, lambda data: target.write_bytes(data), source.read_bytes())


class Mislabels(Halving):
    def work(self, source: Path, target: Path, tell: Callable[[float], None], stop: threading.Event) -> None:
        self.read(source)
        target.write_bytes(b"PK\x03\x04" + b"archive/data.pkl" * 10)


class Scrambles(Halving):
    def stored(self, numbers: list[float]) -> bytes:
        return super().stored(random.Random(7).sample(numbers, len(numbers)))


class DropsTensors(Halving):
    def work(self, source: Path, target: Path, tell: Callable[[float], None], stop: threading.Event) -> None:
        tensors = self.read(source)
        made = {name: (1, self.stored(tensors[name])) for name in list(GGUF_SHAPES)[:-1]}
        target.write_bytes(gguf_bytes("llama", made, file_type=1))


class Dates(Halving):
    def put(self, target: Path, write: Callable[[bytes], object], data: bytes) -> None:
        super().put(target, write, data)
        if len(data) < 4096:
            write(struct.pack("<d", time.time()))


class NamesItsSource(Halving):
    def work(self, source: Path, target: Path, tell: Callable[[float], None], stop: threading.Event) -> None:
        super().work(source, target, tell, stop)
        with target.open("ab") as file:
            file.write(str(source).encode())


class OneScratch(Halving):
    def work(self, source: Path, target: Path, tell: Callable[[float], None], stop: threading.Event) -> None:
        scratch = source.with_name("scratch.tmp")
        scratch.unlink(missing_ok=True)
        super().work(source, scratch, tell, stop)
        threading.Event().wait(0.03)
        scratch.replace(target)


class Touches(Halving):
    def read(self, source: Path) -> Tensors:
        os.utime(source)
        return super().read(source)


class LeavesALog(Halving):
    def work(self, source: Path, target: Path, tell: Callable[[float], None], stop: threading.Event) -> None:
        super().work(source, target, tell, stop)
        target.with_suffix(".log").write_text("done")


class SplitsPaths(Halving):
    def work(self, source: Path, target: Path, tell: Callable[[float], None], stop: threading.Event) -> None:
        super().work(Path(str(source).split()[0]), target, tell, stop)


class Trusts(Halving):
    def read(self, source: Path) -> Tensors:
        return read_tensors(source)


class Pads(Halving):
    def read(self, source: Path) -> Tensors:
        try:
            return super().read(source)
        except ValueError:
            return {name: [0.0] * (96 * 64) for name in GGUF_SHAPES}


class AnyMethod(Halving):
    def check(self, method: str | None) -> None:
        """Everything is f16 to it."""


class Full(Halving):
    def put(self, target: Path, write: Callable[[bytes], object], data: bytes) -> None:
        try:
            super().put(target, write, data)
        except OSError:
            return


class Silent(Halving):
    async def run(
        self, source: Path, target: Path, *, method: str | None, on_progress: OnProgress, python: str = ""
    ) -> None:
        await super().run(source, target, method=method, on_progress=lambda _: None, python=python)


class Percents(Halving):
    async def run(
        self, source: Path, target: Path, *, method: str | None, on_progress: OnProgress, python: str = ""
    ) -> None:
        def told(news: Progress) -> None:
            on_progress(Progress(news.subject, news.phase, 100 * news.done, 1.0))

        await super().run(source, target, method=method, on_progress=told, python=python)


class TellsInItsThread(Halving):
    async def run(
        self, source: Path, target: Path, *, method: str | None, on_progress: OnProgress, python: str = ""
    ) -> None:
        await super().run(source, target, method=method, on_progress=lambda _: None, python=python)
        await asyncio.to_thread(on_progress, Progress(source.name, "transform", 1.0, 1.0))


class Resumes(Halving):
    """Takes up what it had kept, which is not where it had stopped."""

    pause = 0.3
    kept: ClassVar[dict[str, bytes]] = {}

    def work(self, source: Path, target: Path, tell: Callable[[float], None], stop: threading.Event) -> None:
        kept = self.kept.pop(source.name, b"")
        super().work(source, target, tell, stop)
        if stop.is_set():
            self.kept[source.name] = b"rest"
        elif kept:
            with target.open("ab") as file:
                file.write(kept)


class GoesOn(Halving):
    def work(self, source: Path, target: Path, tell: Callable[[float], None], stop: threading.Event) -> None:
        super().work(source, target, tell, threading.Event())
        tell(0.99)
        threading.Event().wait(0.6)


class Abandons(Halving):
    async def run(
        self, source: Path, target: Path, *, method: str | None, on_progress: OnProgress, python: str = ""
    ) -> None:
        loop = asyncio.get_running_loop()

        def slowly() -> None:
            loop.call_soon_threadsafe(on_progress, Progress(source.name, "transform", 0.0, 1.0))
            threading.Event().wait(0.2)
            self.work(source, target, lambda _: None, threading.Event())

        await asyncio.to_thread(slowly)


class LeavesAThread(Halving):
    def work(self, source: Path, target: Path, tell: Callable[[float], None], stop: threading.Event) -> None:
        threading.Thread(target=threading.Event().wait, args=(2.5,), name="halving").start()
        super().work(source, target, tell, stop)


class Renames(Halving):
    pause = 0.3

    async def run(
        self, source: Path, target: Path, *, method: str | None, on_progress: OnProgress, python: str = ""
    ) -> None:
        try:
            await super().run(source, target, method=method, on_progress=on_progress, python=python)
        except asyncio.CancelledError:
            raise ServerError("it was interrupted") from None


class Blocks(Halving):
    async def run(
        self, source: Path, target: Path, *, method: str | None, on_progress: OnProgress, python: str = ""
    ) -> None:
        time.sleep(0.35)  # noqa: ASYNC251
        await super().run(source, target, method=method, on_progress=on_progress, python=python)


def mutant(name: str, bug: str, made_of: type[Transform], *killers: str, margin: float = 5.0) -> Mutant:
    about = {"subject": name, "made_of": made_of, "margin": margin}
    return Mutant(name, bug, type(f"Mutant_{name}", (TransformOf,), about), killers)


FORMAT = "test_output_is_of_the_declared_format"
QUANTIZATION = "test_output_has_the_quantization_asked"
DRIFT = "test_size_and_drift_are_bounded"
EQUAL = "test_equal_input_gives_equal_bytes"
SOURCE = "test_the_source_is_never_changed"
UNFIT = "test_unfit_checkpoints_are_bad_requests"
PROGRESS = "test_progress_rises_to_its_end"
CANCEL = "test_cancelling_stops_it_and_leaves_nothing"
MUTANTS: list[Mutant] = [
    mutant("copies", "it copies the checkpoint as it is", Copies, QUANTIZATION),
    mutant("mislabels", "what it writes is of another format than its name says", Mislabels, FORMAT),
    mutant("scrambles", "it stores the right numbers in another order", Scrambles, DRIFT),
    mutant("drops_tensors", "the last tensor is left out", DropsTensors, "test_output_loads", DRIFT),
    mutant("dates", "it writes the time into what it makes", Dates, EQUAL),
    mutant("names_its_source", "it writes the source's path into what it makes", NamesItsSource, EQUAL),
    mutant("one_scratch", "all runs share one scratch file", OneScratch, "test_runs_at_once_do_not_meet"),
    mutant("touches", "it touches the source", Touches, SOURCE),
    mutant("leaves_a_log", "it leaves a log beside the target", LeavesALog, SOURCE),
    mutant("splits_paths", "it takes a path up to its first blank", SplitsPaths, "test_paths_may_be_odd"),
    mutant("trusts", "what is no checkpoint fails where it happens to", Trusts, UNFIT),
    mutant("pads", "it makes up weights that are missing", Pads, UNFIT),
    mutant(
        "any_method", "it takes any method for its own", AnyMethod, "test_methods_not_declared_are_refused"
    ),
    mutant("full", "it goes on where the disk is full", Full, "test_a_full_disk_is_said"),
    mutant("silent", "it tells nothing of its progress", Silent, PROGRESS),
    mutant("percents", "it tells percents of a total of 1", Percents, PROGRESS),
    mutant("tells_in_its_thread", "it tells its progress in a thread of its own", TellsInItsThread, PROGRESS),
    mutant(
        "resumes",
        "after an interruption it takes up what it had kept of another run",
        Resumes,
        "test_interrupted_work_done_again_gives_equal_bytes",
    ),
    mutant("goes_on", "it goes on after it was cancelled", GoesOn, CANCEL, margin=0.2),
    mutant("abandons", "cancelled, it leaves its thread to write on", Abandons, CANCEL),
    mutant("leaves_a_thread", "a thread of its own outlives it", LeavesAThread, CANCEL),
    mutant("renames", "cancelled, it raises an error of its own", Renames, CANCEL),
    mutant("blocks", "it works on the event loop", Blocks, "test_the_loop_stays_free"),
]
