"""Carries out a plan up to the point where a replica can be started: fetch, unpack, verify, transform."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from llmengine_core.archives import BadArchive, extract
from llmengine_core.cache import Weights, WeightsCache, Work, digest
from llmengine_core.cases import runs_code
from llmengine_core.errors import BadRequestError, ServerError
from llmengine_core.explanation import resolution_error
from llmengine_core.inspection import look_around
from llmengine_core.interfaces.quantizer import Quantizer
from llmengine_core.interfaces.storage import Storage, StorageError
from llmengine_core.interfaces.transform import Transform
from llmengine_core.locks import in_thread
from llmengine_core.looks import Absent, look, scheme_of, shown, split_location
from llmengine_core.placement import Place, accelerator_of
from llmengine_core.places import Places
from llmengine_core.registry import Registry
from llmengine_core.resolution import resolve
from llmengine_core.settings import Settings
from llmengine_core.types.declarations import BackendInfo
from llmengine_core.types.launch import Adapter, Deployment
from llmengine_core.types.models import ModelSpec
from llmengine_core.types.plan import Candidate, CheckpointFacts, Plan, Problem, TransformStep
from llmengine_core.types.progress import OnProgress, Progress
from llmengine_core.urls import UrlPolicy
from llmengine_core.weights import look_again

__all__ = ["Provisioner", "run_transform"]

ROOM_LEFT = 16 << 20
"""Bytes; a disk that has fewer is what made work on it fail."""
PICKLED = ("pytorch", "adapter")
"""Formats of which files may be programs, which shows only where they lie as a whole."""


class Provisioner:
    """Brings weights onto this machine and into the form that the chosen backend loads.

    What it makes lies in the weights cache, is made once for all who need it, and stays there until ``close``,
    or while it is needed (``keep``).
    """

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        *,
        on_progress: OnProgress | None = None,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._policy = UrlPolicy(settings.private_hosts)
        self._places = Places(settings, registry)
        self._cache = WeightsCache(settings.home, size=settings.weights_size)
        self._on_progress = on_progress or (lambda _: None)

    async def prepare(self, spec: ModelSpec, plan: Plan) -> Deployment:
        """What to start for a plan that was chosen; all its files are on this machine and verified.

        Raises ``BadRequestError`` where the weights are not what they were vouched to be, ``ServerError``
        where this machine can't hold or reach them, or where what the plan names is no longer here.
        """
        choice, info, code, place = await self._ground(spec, plan)
        work = Work(spec.name, self._on_progress)
        with self._explained(plan.checkpoint, spec.name):
            weights, settled = await self._settled(spec, plan, work)
            if settled is not plan:
                plan = settled
                choice, info, code, place = await self._ground(spec, plan)
            for step in choice.transforms:
                weights = await self._apply(step, weights, work, place)
        stored = None if choice.transforms else plan.checkpoint.quantization
        load_options = await asyncio.to_thread(self._load_options, choice, spec.quantize or stored)
        return Deployment(
            backend=choice.name,
            version=(place.environment.version if place else choice.version) or "",
            weights=str(weights.path),
            weights_digest=weights.digest,
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
            subject=_called(plan.checkpoint),
        )

    async def adapter(self, spec: ModelSpec, plan: Plan) -> Adapter | None:
        """What is to be loaded on a plan's deployment, on this machine; None for the base model itself.

        Raises as ``prepare`` does.
        """
        if plan.adapter is None:
            return None
        work = Work(spec.name, self._on_progress)
        with self._explained(plan.adapter, spec.name):
            weights = await self._weights(plan.adapter, work)
            if _is_uncertain(plan.adapter):
                seen = await self._seen(plan.adapter, weights.path, spec.name)
                if seen.format != "adapter":
                    raise BadRequestError(
                        f"what lies at {shown(plan.adapter.url)} is no adapter, but {seen.format}; update the model"
                    )
                weights = replace(weights, path=Path(seen.path or weights.path))
        return Adapter(weights.digest, str(weights.path))

    def keep(self, needed: Callable[[], Collection[str]]) -> None:
        """Keep for good only what these paths lead into: ``needed`` gives what something is still loaded from."""
        self._cache.needed = needed

    def close(self) -> None:
        """Let what was prepared be removed once there must be room for other weights. Idempotent."""
        self._cache.close()

    def without_masker(self, info: BackendInfo, spec: ModelSpec) -> str:
        """What would bring a masker beside a backend that runs without one. Reads files: call it in a thread."""
        return self._places.without_masker(info, spec)

    async def _ground(self, spec: ModelSpec, plan: Plan) -> tuple[Candidate, BackendInfo, bool, Place | None]:
        """The chosen candidate, its backend, whether a checkpoint's own code may run, and where it runs."""
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
        return choice, info, code, await asyncio.to_thread(self._places.of_engine, info, choice, spec)

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

    @contextmanager
    def _explained(self, checkpoint: CheckpointFacts, subject: str) -> Iterator[None]:
        """Errors of storages, archives and the disk as ours."""
        try:
            yield
        except StorageError as error:
            raise ServerError(
                f"the weights of {subject!r} could not be fetched from {shown(checkpoint.url)}: {error}"
            ) from error
        except BadArchive as error:
            raise BadRequestError(
                f"the weights of {subject!r} can't be unpacked from {shown(checkpoint.url)}: {error}"
            ) from error
        except OSError as error:
            raise ServerError(
                f"the weights of {subject!r} could not be prepared: {error.strerror or error} "
                f"({error.filename or self._cache.layout.root}); free space or rights there, or set LLMENGINE_HOME"
            ) from error

    # -- weights ---------------------------------------------------------------------------------------------

    async def _settled(self, spec: ModelSpec, plan: Plan, work: Work) -> tuple[Weights, Plan]:
        """The weights of a plan on this machine, and the plan; a new one where they turn out to be others than said.

        The backend stays the same, or ``ResolutionError`` says why it can't serve them.
        """
        checkpoint = plan.checkpoint
        weights = await self._weights(checkpoint, work)
        if not _is_uncertain(checkpoint):
            return weights, plan
        seen = await self._seen(checkpoint, weights.path, spec.name)
        weights = replace(weights, path=Path(seen.path or weights.path))
        if _nature(seen) != _nature(checkpoint):
            around = await asyncio.to_thread(look_around, self._registry, self._settings)
            facts = replace(around, checkpoint=seen, adapter=plan.adapter)
            framework = plan.chosen or spec.inference_framework
            plan = resolve(replace(spec, inference_framework=framework), self._registry.declarations, facts)
            if plan.choice is None:
                raise resolution_error(plan)
        return weights, plan

    async def _weights(self, checkpoint: CheckpointFacts, work: Work) -> Weights:
        """Weights on this machine, unpacked and with the digest that was vouched for."""
        if checkpoint.archive is not None:
            return await self._unpacked(checkpoint, work)
        if checkpoint.path is None:
            return await self._fetched(checkpoint, work)
        path = Path(checkpoint.path)
        if not await asyncio.to_thread(path.exists):
            raise BadRequestError(
                f"the weights of {work.subject!r} are gone: there is no {path}. Put them back, or update the "
                "model's checkpoint_path"
            )
        fingerprint, is_file = await asyncio.to_thread(lambda: (_fingerprint(path), path.is_file()))
        if checkpoint.sha256 is None or not is_file:
            return Weights(path, fingerprint)
        await self._cache.check(path, checkpoint.sha256, work)
        return Weights(path, checkpoint.sha256)

    async def _fetched(self, checkpoint: CheckpointFacts, work: Work) -> Weights:
        async def look_now(said: CheckpointFacts) -> CheckpointFacts:
            seen = await look_again(said, self._registry, self._policy)
            if seen.problem is not None:
                raise ServerError(_unusable(work.subject, seen.problem))
            return seen

        return await self._cache.fetched(checkpoint, work, storage=self._open_storage, look=look_now)

    def _open_storage(self, url: str) -> Storage:
        info = self._registry.storages_by_scheme.get(scheme_of(url) or "")
        if info is None:
            raise ServerError(
                f"no plugin that was loaded reads {shown(url)}; `llmengine plugins` shows what loaded and what failed"
            )
        return self._registry.open_storage(info, url, self._policy)

    async def _unpacked(self, checkpoint: CheckpointFacts, work: Work) -> Weights:
        """What is in an archive; where that was fetched, it isn't kept."""
        local = replace(checkpoint, archive=None)
        if checkpoint.path is not None:
            packed = await self._weights(local, work)
            key = digest("unpacked", packed.digest)
        else:
            packed = None
            key = digest("unpacked", self._cache.key_of(checkpoint))

        async def unpack(target: Path) -> None:
            archive = (packed or await self._fetched(local, work)).path
            tell = work.reporting("unpack")
            await in_thread(lambda stop: extract(archive, target, on_bytes=tell, stop=stop))
            if packed is None:
                await self._cache.drop(self._cache.key_of(local))

        name = _called(checkpoint).partition(".tar")[0].strip(".") or "checkpoint"  # "...tar" is no ".."
        return await self._cache.made(
            key, work, kind="unpacked", name=name, source=shown(checkpoint.url), make=unpack
        )

    async def _seen(self, checkpoint: CheckpointFacts, path: Path, subject: str) -> CheckpointFacts:
        """What turned out to be in an archive, or where a card says. Raises ``BadRequestError`` for what is no use."""
        try:
            seen = await look(str(path), self._registry, self._policy)
        except Absent as error:
            raise BadRequestError(_unusable(subject, error.problem)) from error
        if seen.problem is not None:
            raise BadRequestError(_unusable(subject, seen.problem))
        return replace(
            seen,
            url=checkpoint.url,
            parameters=seen.parameters or checkpoint.parameters,
            context_length=seen.context_length or checkpoint.context_length,
        )

    # -- transform -------------------------------------------------------------------------------------------

    async def _apply(self, step: TransformStep, source: Weights, work: Work, place: Place | None) -> Weights:
        info = self._registry.transforms.get(step.transform)
        revision = step.revision if info is None else info.revision
        derived = digest(source.digest, step.transform, revision, step.target_format, step.method)
        suffix = ".gguf" if step.target_format == "gguf" else ""

        def told(progress: Progress) -> None:
            self._on_progress(
                Progress(work.subject, "transform", progress.done, progress.total, progress.unit)
            )

        async def transform(target: Path) -> None:
            if info is None:
                raise ServerError(
                    f"the model {work.subject!r} needs the transform {step.transform!r}, whose plugin is no longer "
                    "here; install it again, or update the model"
                )
            beside = place.environment.python if place else ""
            python = await asyncio.to_thread(self._places.of_transform, info, step.python, beside)
            run = self._registry.load(info)
            await run_transform(run, source.path, target, method=step.method, on_progress=told, python=python)

        made = await self._cache.made(
            derived,
            work,
            kind="derived",
            name=f"{step.method or step.target_format}{suffix}",
            source=f"{source.path.name} by {step.transform}",
            make=transform,
        )
        return replace(made, digest=derived)


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


def _is_uncertain(checkpoint: CheckpointFacts) -> bool:
    """Whether weights may be others than their facts say: nobody has looked at all of what they were told from."""
    if checkpoint.path is None and checkpoint.archive is None:
        return not checkpoint.files or checkpoint.format in PICKLED
    return checkpoint.archive is not None


def _nature(checkpoint: CheckpointFacts) -> tuple[object, ...]:
    """What decides who can serve weights."""
    return (
        checkpoint.format,
        checkpoint.quantization,
        checkpoint.architecture,
        checkpoint.heads,
        checkpoint.remote_code,
        checkpoint.base,
    )


def _unusable(subject: str, problem: Problem) -> str:
    mend = f"; {problem.mend}" if problem.mend else ""
    return f"the weights of {subject!r} can't be used: {problem.message}{mend}"


def _called(checkpoint: CheckpointFacts) -> str:
    """What a checkpoint is called, for people."""
    if checkpoint.path is not None:
        return Path(checkpoint.path).name
    return split_location(checkpoint.url)[1].partition("?")[0]


def _fingerprint(path: Path) -> str:
    """Changes with what lies at ``path``: names, sizes and times of its files."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return digest(*((str(f.resolve()), (s := f.stat()).st_size, s.st_mtime_ns, s.st_ino) for f in files))
