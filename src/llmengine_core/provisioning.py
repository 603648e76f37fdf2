"""Carries out a plan up to the point where a replica can be started: fetch, verify, transform."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any

from llmengine_core.cases import runs_code
from llmengine_core.errors import BadRequestError, ServerError
from llmengine_core.interfaces.quantizer import Quantizer
from llmengine_core.interfaces.storage import Storage, StorageError
from llmengine_core.interfaces.transform import Transform
from llmengine_core.locks import file_lock, in_thread
from llmengine_core.placement import Place, accelerator_of
from llmengine_core.places import Places
from llmengine_core.registry import Registry
from llmengine_core.settings import Settings
from llmengine_core.types.declarations import BackendInfo
from llmengine_core.types.launch import Adapter, Deployment
from llmengine_core.types.models import ModelSpec
from llmengine_core.types.plan import Candidate, CheckpointFacts, Plan, TransformStep
from llmengine_core.types.progress import OnProgress, Progress

__all__ = ["Provisioner", "run_transform"]

BLOCK = 4 << 20
"""Bytes hashed or copied at a time."""
ROOM_LEFT = 16 << 20
"""Bytes; a disk that has fewer is what made work on it fail."""


class Provisioner:
    """Brings weights onto this machine and into the form that the chosen backend loads.

    What it makes lies under ``<home>/weights`` by content, is written beside and renamed, and is made once:
    others that need it at the same time, in this process or another, wait for a file lock.
    """

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        *,
        storage: Callable[[str], tuple[Storage, str]],
        on_progress: OnProgress | None = None,
    ) -> None:
        self._settings = settings
        self._weights = settings.home / "weights"
        self._registry = registry
        self._places = Places(settings, registry)
        self._storage = storage
        self._on_progress = on_progress or (lambda _: None)

    async def prepare(self, spec: ModelSpec, plan: Plan) -> Deployment:
        """What to start for a plan that was chosen; all its files are on this machine and verified.

        Raises ``BadRequestError`` where the weights are not what they were vouched to be, ``ServerError``
        where this machine can't hold or reach them, or where what the plan names is no longer here.
        """
        choice = plan.choice
        if choice is None:
            raise ServerError(f"there is no plan for {plan.model!r}")
        info = self._registry.backends.get(choice.name)
        if info is None:
            raise ServerError(
                f"the model {spec.name!r} needs the backend {choice.name!r}, whose plugin is no longer here; "
                "install it again, or update the model"
            )
        code = self._code(info, plan.checkpoint, spec.name)
        place = await asyncio.to_thread(self._places.of_engine, info, choice, spec)
        try:
            path = await self._fetch(plan.checkpoint, spec.name)
            digest = await self._verify(path, plan.checkpoint, spec.name)
            for step in choice.transforms:
                path, digest = await self._apply(step, path, digest, spec.name, place)
        except OSError as error:
            raise ServerError(
                f"the weights of {spec.name!r} could not be prepared: {error.strerror or error} "
                f"({error.filename or self._weights}); free space or rights there, or set LLMENGINE_HOME"
            ) from error
        stored = None if choice.transforms else plan.checkpoint.quantization
        load_options = await asyncio.to_thread(self._load_options, choice, spec.quantize or stored)
        return Deployment(
            backend=choice.name,
            version=(place.environment.version if place else choice.version) or "",
            weights=str(path),
            weights_digest=digest,
            quantization=spec.quantize or stored,
            tensor_parallel_size=spec.num_shards,
            per_worker=spec.per_worker,
            adapters=plan.adapter is not None,
            options={} if spec.cpus is None else {"cpus": spec.cpus},
            python=place.environment.python if place and place.environment.name else "",
            accelerator=accelerator_of(info, spec.gpus),
            load_options=load_options,
            masker=place.masker.masker if place and place.masker else None,
            allow_remote_code=code,
            subject=Path(plan.checkpoint.path or plan.checkpoint.url).name,
        )

    async def adapter(self, spec: ModelSpec, plan: Plan) -> Adapter | None:
        """What is to be loaded on a plan's deployment, on this machine; None for the base model itself.

        Raises as ``prepare`` does.
        """
        if plan.adapter is None:
            return None
        path = await self._fetch(plan.adapter, spec.name)
        return Adapter(await self._verify(path, plan.adapter, spec.name), str(path))

    def without_masker(self, info: BackendInfo, spec: ModelSpec) -> str:
        """What would bring a masker beside a backend that runs without one. Reads files: call it in a thread."""
        return self._places.without_masker(info, spec)

    def _code(self, info: BackendInfo, checkpoint: CheckpointFacts, subject: str) -> bool:
        """Whether code of the checkpoint's own may run; refused where the plan counts on it and it may not any more."""
        if runs_code(info, checkpoint, allowed=self._settings.allow_remote_code):
            return True
        if info.architectures is not None and runs_code(info, checkpoint, allowed=True):
            raise BadRequestError(
                f"the architecture {checkpoint.architecture!r} of {subject!r} is code that comes with the checkpoint, "
                "and the settings don't allow that any more; set LLMENGINE_ALLOW_REMOTE_CODE=true, once you have read "
                "it, or update the model"
            )
        return False

    def _load_options(self, choice: Candidate, method: str | None) -> Mapping[str, Any]:
        """What the quantizer says to the backend's loader; its place has been found, so it is registered."""
        if choice.quantizer is None or method is None:
            return {}
        quantizer: Quantizer = self._registry.load_once(self._registry.quantizers[choice.quantizer])
        return quantizer.load_options(method, choice.name)

    # -- fetch -----------------------------------------------------------------------------------------------

    async def _fetch(self, checkpoint: CheckpointFacts, subject: str) -> Path:
        if checkpoint.path is not None:
            path = Path(checkpoint.path)
            if not await asyncio.to_thread(path.exists):
                raise BadRequestError(
                    f"the weights of {subject!r} are gone: there is no {path}. Put them back, or update the "
                    "model's checkpoint_path"
                )
            return path
        storage, key = self._storage(checkpoint.url)
        try:
            target = self._weights / "fetched" / _digest(checkpoint.url) / Path(key).name
            async with self._made_once(target) as missing:
                if missing is not None:
                    await self._download(storage, key, missing, checkpoint.size, subject)
            return target
        except StorageError as error:
            raise ServerError(
                f"the weights of {subject!r} could not be fetched from {checkpoint.url}: {error}"
            ) from error
        finally:
            await storage.aclose()

    async def _download(
        self, storage: Storage, key: str, target: Path, size: int | None, subject: str
    ) -> None:
        done = 0
        file = await asyncio.to_thread(target.open, "wb", buffering=0)
        try:
            async for piece in storage.get(key):
                await asyncio.to_thread(_write_all, file, piece)
                done += len(piece)
                self._on_progress(Progress(subject, "fetch", done, size, "bytes"))
            await asyncio.to_thread(os.fsync, file.fileno())
        finally:
            file.close()

    # -- verify ----------------------------------------------------------------------------------------------

    async def _verify(self, path: Path, checkpoint: CheckpointFacts, subject: str) -> str:
        """The digest that the weights were vouched for, or a fingerprint of what lies there."""
        fingerprint, is_file = await asyncio.to_thread(lambda: (_fingerprint(path), path.is_file()))
        expected = checkpoint.sha256
        if expected is None or not is_file:
            return fingerprint
        stamp = self._weights / "verified" / fingerprint
        if await asyncio.to_thread(_read_text, stamp) != expected:
            loop = asyncio.get_running_loop()

            def told(progress: Progress) -> None:
                loop.call_soon_threadsafe(self._on_progress, progress)

            seen = await in_thread(lambda stop: _hash(path, subject, told, stop))
            if seen != expected:
                raise BadRequestError(
                    f"the weights of {subject!r} are not what they should be: {path} has the SHA-256 {seen}, "
                    f"expected is {expected}. Fetch them again"
                )
            with suppress(OSError):  # where nothing can be written, they are hashed again next time
                await asyncio.to_thread(_replace_text, stamp, expected)
        return expected

    # -- transform -------------------------------------------------------------------------------------------

    async def _apply(
        self, step: TransformStep, source: Path, digest: str, subject: str, place: Place | None
    ) -> tuple[Path, str]:
        info = self._registry.transforms.get(step.transform)
        revision = step.revision if info is None else info.revision
        derived = _digest(json.dumps([digest, step.transform, revision, step.target_format, step.method]))
        suffix = ".gguf" if step.target_format == "gguf" else ""
        target = self._weights / "derived" / derived / f"{step.method or step.target_format}{suffix}"

        def told(progress: Progress) -> None:
            self._on_progress(Progress(subject, "transform", progress.done, progress.total, progress.unit))

        async with self._made_once(target) as missing:
            if missing is not None:
                if info is None:
                    raise ServerError(
                        f"the model {subject!r} needs the transform {step.transform!r}, whose plugin is no longer "
                        "here; install it again, or update the model"
                    )
                beside = place.environment.python if place else ""
                python = await asyncio.to_thread(self._places.of_transform, info, step.python, beside)
                work = self._registry.load(info)
                await run_transform(
                    work, source, missing, method=step.method, on_progress=told, python=python
                )
        return target, derived

    # -- once, whole, or not at all --------------------------------------------------------------------------

    @asynccontextmanager
    async def _made_once(self, target: Path) -> AsyncIterator[Path | None]:
        """Where to make what is missing at ``target``, or None where it is there; under a lock of its own."""
        if await asyncio.to_thread(target.exists):
            yield None
            return
        async with file_lock(target.parent / "lock"):
            if await asyncio.to_thread(target.exists):
                yield None
                return
            missing = target.with_name(f".partial-{target.name}")
            await asyncio.to_thread(_remove, missing)
            try:
                yield missing
                await asyncio.to_thread(missing.replace, target)
            finally:
                await asyncio.to_thread(_remove, missing)


async def run_transform(
    work: Transform, source: Path, target: Path, *, method: str | None, on_progress: OnProgress, python: str
) -> None:
    """Run a transform; see there. A disk that it filled is the ``ServerError`` then, whatever it says itself."""
    try:
        await work.run(source, target, method=method, on_progress=on_progress, python=python)
    except (ServerError, OSError) as error:
        free = (await asyncio.to_thread(shutil.disk_usage, target.parent)).free
        if free >= ROOM_LEFT:
            raise
        raise ServerError(
            f"the disk is full: {free >> 10:,} KiB are free in {target.parent}, where {target.name} was being made; "
            f"free space there, or work elsewhere ({error})"
        ) from error


def _remove(path: Path) -> None:
    """A file or folder, if there is one."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _fingerprint(path: Path) -> str:
    """Changes with what lies at ``path``: names, sizes and times of its files."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    seen = [(str(f.resolve()), (s := f.stat()).st_size, s.st_mtime_ns, s.st_ino) for f in files]
    return _digest(json.dumps(seen))


def _hash(path: Path, subject: str, told: Callable[[Progress], object], stop: threading.Event) -> str:
    digest = hashlib.sha256()
    size = path.stat().st_size
    done = 0
    with path.open("rb") as file:
        while (block := file.read(BLOCK)) and not stop.is_set():
            digest.update(block)
            done += len(block)
            told(Progress(subject, "verify", done, size, "bytes"))
    return digest.hexdigest()


def _write_all(file: FileIO, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


def _read_text(path: Path) -> str | None:
    """A file's text; None where there is none, or none that can be read."""
    try:
        return path.read_text()
    except (OSError, ValueError):
        return None


def _replace_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        written.write_text(text)
        os.replace(written, path)
    finally:
        written.unlink(missing_ok=True)
