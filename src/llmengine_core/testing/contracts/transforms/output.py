"""What a transform makes, and of what it makes nothing."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
from collections.abc import Mapping
from pathlib import Path

from llmengine_core.errors import BadRequestError, ServerError
from llmengine_core.testing.contracts.transforms.ground import TransformGround, digest, inspected
from llmengine_core.testing.laws import NotApplicable, law
from llmengine_core.testing.tensors import Unreadable, drift, read_tensors

__all__ = ["OutputLaws"]

FULL_PRECISION = (None, "f32", "f16", "bf16")
ODD = " ö 'q' \"d\" $HOME;-x"
"""What a folder may be called."""


class OutputLaws(TransformGround):
    """Laws on what ``run`` writes."""

    @law()
    async def test_output_is_of_the_declared_format(self) -> None:
        """What is made is of the target format that is declared, as its content tells, and whole."""
        for method in self.tried():
            facts = await inspected(await self.done(method), self.bench.registry)
            assert facts.problem is None, f"what {method or 'it'} made can't be used: {facts.problem}"
            assert facts.format == self.bench.info.target_format, (
                f"what was made with method {method!r} is in {facts.format}, not in the declared "
                f"{self.bench.info.target_format}"
            )
            source = await inspected(self.bench.source, self.bench.registry)
            kept = (facts.architecture, facts.context_length)
            had = (source.architecture, source.context_length)
            assert kept == had, f"architecture and context length were {had}, and are {kept}"

    @law()
    async def test_output_has_the_quantization_asked(self) -> None:
        """What is made is quantized as asked, and not at all where that wasn't asked."""
        for method in self.tried():
            stored = (await inspected(await self.done(method), self.bench.registry)).quantization
            right = stored in FULL_PRECISION if method is None else stored == method
            assert right, f"asked was method {method!r}; what was made is stored as {stored!r}"

    @law()
    async def test_size_and_drift_are_bounded(self) -> None:
        """Weights are the same as before but for rounding; how large they are and how far they moved is reported."""
        before = await asyncio.to_thread(_read, self.bench.source)
        size = await asyncio.to_thread(_size, self.bench.source)
        for method in self.tried():
            target = await self.done(method)
            named = method or self.bench.info.target_format
            made = await asyncio.to_thread(_size, target)
            self.report(f"{named}: size, bytes", made)
            self.report(f"{named}: size, share of the source", made / size)
            after = await asyncio.to_thread(_read, target)
            try:
                moved = await asyncio.to_thread(drift, before, after)
            except (Unreadable, ValueError) as error:
                raise AssertionError(f"{named} changed how many weights there are: {error}") from error
            for name, value in moved.items():
                self.report(f"{named}: drift, {name}", value)
            assert moved["relative"] <= self.drift, (
                f"weights stored as {named} have moved by {moved['relative']:.3g} of their own size (the largest by "
                f"{moved['largest']:.3g}, the mean by {moved['mean']:.3g}); at most {self.drift:g} is rounding"
            )

    @law()
    async def test_output_loads(self) -> None:
        """What is made loads where its format is read."""
        for method in self.tried():
            await self.loads(await self.done(method))

    @law()
    async def test_equal_input_gives_equal_bytes(self) -> None:
        """The same checkpoint gives the same bytes, wherever it lies and wherever they go."""
        for method in self.tried():
            expected = await self.expected(method)
            copied = (await self.place("-copy")).parent / "other" / self.bench.source.name
            await asyncio.to_thread(_copy, self.bench.source, copied)
            target = await self.place("-elsewhere")
            await self.work(target, method, source=copied)
            assert await asyncio.to_thread(digest, target) == expected, (
                f"method {method!r} made other bytes of a copy of the same checkpoint; who keeps what was made by the "
                "digest of what it was made from would mistake one for the other"
            )

    @law()
    async def test_runs_at_once_do_not_meet(self) -> None:
        """Several may run at once on one checkpoint: each writes what it would have written alone."""
        method = self.tried()[0]
        expected = await self.expected(method)
        targets = [await self.place("-at-once") for _ in range(3)]
        ends = await asyncio.gather(
            *(self.work(target, method) for target in targets), return_exceptions=True
        )
        failed = [f"{type(end).__name__}({end})" for end in ends if end is not None]
        assert not failed, (
            f"of three that ran at once on one checkpoint {len(failed)} failed: {', '.join(failed)}"
        )
        seen = [await asyncio.to_thread(digest, target) for target in targets]
        assert set(seen) == {expected}, (
            "of three that ran at once some wrote other bytes than one that ran alone"
        )

    @law()
    async def test_the_source_is_never_changed(self) -> None:
        """The source is as it was, its times too, and nothing is left beside it or beside the target."""
        before = await asyncio.to_thread(_state, self.bench.source)
        for method in self.tried():
            target = await self.done(method)
            after = await asyncio.to_thread(_state, self.bench.source)
            assert after == before, f"the source was {before}, and now is {after}"
            beside = sorted(set(await asyncio.to_thread(os.listdir, target.parent)) - {target.name})
            assert not beside, f"beside the target there is {', '.join(beside)} after it was made"

    @law()
    async def test_paths_may_be_odd(self) -> None:
        """Source and target may lie under any name."""
        method = self.tried()[0]
        source = (await self.place(ODD)).parent / ODD / self.bench.source.name
        await asyncio.to_thread(_copy, self.bench.source, source)
        target = await self.place(ODD)
        await self.work(target, method, source=source)
        assert await asyncio.to_thread(target.exists), f"nothing was written to {target}"

    # -- what it makes nothing of ----------------------------------------------------------------------------

    @law()
    async def test_unfit_checkpoints_are_bad_requests(self) -> None:
        """A checkpoint that can't be worked on is a BadRequestError with a reason, never an error of other kind."""
        method = self.tried()[0]
        base = (await self.place("-unfit")).parent
        damaged = await asyncio.to_thread(self.unfit, base)
        # Not all at once: each may be a child.
        for what, source in damaged.items():
            target = await self.place("-unfit")
            try:
                await self.work(target, method, source=source)
            except BadRequestError as error:
                reason = str(error).strip()
            except Exception as error:
                raise AssertionError(
                    f"a checkpoint with {what} is the caller's fault; it raised {type(error).__name__}({error}), not a "
                    "BadRequestError"
                ) from error
            else:
                raise AssertionError(f"a checkpoint with {what} was taken for a good one")
            assert reason, f"a checkpoint with {what} was refused without a reason"

    def unfit(self, folder: Path) -> Mapping[str, Path]:
        """Checkpoints in ``folder`` that can't be worked on, by what is wrong with them."""
        source, found = self.bench.source, dict[str, Path]()
        weights = source if source.is_file() else max(_files(source), key=lambda each: each.stat().st_size)
        content = weights.read_bytes()
        cases = {
            "nothing in its weights": b"",
            "a poem for its weights": b"Roses are red, violets are blue.\n" * 20,
            "noise for its weights": random.Random(1).randbytes(len(content)),
            "half of its weights": content[: len(content) // 2],
            "the head of its weights alone": content[:40],
        }
        for number, (what, wrong) in enumerate(cases.items()):
            found[what] = folder / f"unfit-{number}" / source.name
            _copy(source, found[what])
            (found[what] if source.is_file() else found[what] / weights.relative_to(source)).write_bytes(
                wrong
            )
        if source.is_dir() and (source / "config.json").is_file():
            config = json.loads((source / "config.json").read_text())
            found["no config.json"] = folder / "unfit-a" / source.name
            _copy(source, found["no config.json"])
            (found["no config.json"] / "config.json").unlink()
            if self.bench.info.architectures is not None:
                found["an architecture of nobody's"] = folder / "unfit-b" / source.name
                _copy(source, found["an architecture of nobody's"])
                config |= {"model_type": "nobodys", "architectures": ["NobodysForCausalLM"]}
                (found["an architecture of nobody's"] / "config.json").write_text(json.dumps(config))
        return found

    @law()
    async def test_methods_not_declared_are_refused(self) -> None:
        """A quantization that it doesn't declare is a BadRequestError, and nothing is written."""
        for method in ("q1_9_nobodys", ""):
            target = await self.place("-undeclared")
            try:
                await self.work(target, method)
            except BadRequestError:
                left = await asyncio.to_thread(os.listdir, target.parent)
                assert not left, f"method {method!r} was refused, and {left} is there"
            except Exception as error:
                raise AssertionError(
                    f"method {method!r} is not declared; it raised {type(error).__name__}({error}), not a "
                    "BadRequestError"
                ) from error
            else:
                raise AssertionError(f"method {method!r} is not declared, and was not refused")

    @law()
    async def test_a_full_disk_is_said(self) -> None:
        """Where the disk is full it raises a ServerError or the system's own error, and never returns as if done."""
        async with self.full_disk() as folder:
            target = folder / self.target_name()
            try:
                await self.work(target, self.tried()[0])
            except (ServerError, OSError) as error:
                said = str(error).strip()
            else:
                raise AssertionError("the disk was full, and run() returned as if it had written everything")
            assert said, "the disk was full, and the error doesn't say anything"


def _read(path: Path) -> dict[str, list[float]]:
    try:
        return dict(read_tensors(path))
    except Unreadable as error:
        raise NotApplicable(f"weights can't be compared: {error}") from error


def _files(folder: Path) -> list[Path]:
    return sorted(each for each in folder.rglob("*") if each.is_file())


def _size(path: Path) -> int:
    return sum(each.stat().st_size for each in ([path] if path.is_file() else _files(path)))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)


def _state(path: Path) -> Mapping[str, tuple[int, int, str]]:
    """Of the files at ``path``, by name: size, time, digest."""
    files = [path] if path.is_file() else _files(path)
    return {str(each): (each.stat().st_size, each.stat().st_mtime_ns, digest(each)) for each in files}
