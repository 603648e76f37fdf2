"""The rules that a backend must pass to serve a spec, in order; each is a pure function of what was seen."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from types import MappingProxyType

from llmengine_core.arguments.quantity import quantity_bytes
from llmengine_core.routes import Routes
from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.declarations import BackendInfo, Declared
from llmengine_core.types.models import ModelSpec
from llmengine_core.types.plan import Facts, RuleResult, Verdict

__all__ = ["NO_NEEDS", "RULES", "Case"]

NO_NEEDS = Capabilities()
PASSED, FAILED, UNKNOWN = Verdict.PASSED, Verdict.FAILED, Verdict.UNKNOWN


class Case:
    """One backend for one spec, and all that was seen of it."""

    __slots__ = (
        "checkpoint", "declared", "host", "info", "needs", "offered", "plain", "route", "seen", "spec", "weight_bytes",
    )  # fmt: skip

    def __init__(
        self,
        spec: ModelSpec,
        declared: Declared[BackendInfo],
        facts: Facts,
        routes: Routes,
        weight_bytes: int | None,
        needs: Capabilities,
    ) -> None:
        self.spec, self.declared, self.needs = spec, declared, needs
        self.checkpoint, self.host = facts.checkpoint, facts.host
        self.weight_bytes = weight_bytes
        """What the weights take in the quantization that was asked for; None where that can't be told yet."""
        self.info = info = declared.info
        self.seen = facts.backends.get(info.name)
        self.plain = routes.plain(info)
        """From the checkpoint to what the backend loads, without quantizing."""
        self.route = self.plain if spec.quantize is None else routes.quantized(info, spec.quantize)
        """The same with the quantization that was asked for."""
        self.offered = routes.offered(info)
        """Quantizations that can be had."""

    @property
    def version(self) -> str | None:
        """Of the engine that would run."""
        return (self.seen.environments[0].version or None) if self.seen and self.seen.environments else None


ASKED_FOR = RuleResult("framework", PASSED, "asked for by name")
ANY_WILL_DO = RuleResult("framework", PASSED, "any will do")
NO_ENGINE = RuleResult("engine", PASSED, "it needs none in this environment")
NO_DEVICE = RuleResult("device", PASSED, "it takes none of this machine's")
NO_MEMORY = RuleResult("memory", PASSED, "it takes none of this machine's")
ONE_SHARD = RuleResult("shards", PASSED, "1")
NO_CAPABILITIES = RuleResult("capabilities", PASSED, "none are asked for")


def _plugin(case: Case) -> RuleResult:
    return RuleResult("plugin", PASSED, f"{case.declared.distribution or case.declared.plugin} is loaded")


def _framework(case: Case) -> RuleResult:
    asked = case.spec.inference_framework
    if asked == case.info.name:
        return ASKED_FOR
    if asked == "auto":
        return ANY_WILL_DO
    fact = f"not asked for (framework is {asked!r})"
    return RuleResult("framework", FAILED, fact, f"inference_framework={case.info.name!r}")


def _engine(case: Case) -> RuleResult:
    environment, seen = case.info.environment, case.seen
    if seen is None:
        return RuleResult("engine", UNKNOWN, "it was not looked for")
    if environment is not None and not seen.environments:
        wanted = environment.requirements or (environment.distribution,)
        fact = f"its engine {environment.distribution} is not in this environment"
        return RuleResult("engine", FAILED, fact, f"python -m pip install {shlex.join(wanted)}")
    if seen.problems:
        mends = dict.fromkeys(problem.mend for problem in seen.problems if problem.mend)
        fact = "; ".join(problem.message for problem in seen.problems)
        return RuleResult("engine", FAILED, fact, "; ".join(mends) or None)
    if environment is None:
        return NO_ENGINE
    return RuleResult("engine", PASSED, f"{environment.distribution} is here")


def _version(case: Case) -> RuleResult:
    tag, environment = case.spec.inference_framework_image_tag, case.info.environment
    version = case.version
    if tag == version:
        return RuleResult("version", PASSED, f"{version} is here, as asked for")
    if tag == "latest":
        return RuleResult("version", PASSED, f"{version} is here" if version else "any will do")
    if environment is None:
        return RuleResult(
            "version", UNKNOWN, f"version {tag} was asked for; the engine tells when it is reached"
        )
    fact = f"version {tag} is not here" + (f", but {version}" if version else "")
    install = shlex.join(["python", "-m", "pip", "install", f"{environment.distribution}=={tag}"])
    return RuleResult("version", FAILED, fact, f"{install}, or inference_framework_image_tag='latest'")


def _checkpoint(case: Case) -> RuleResult:
    checkpoint, info = case.checkpoint, case.info
    if checkpoint.problem is not None:
        return RuleResult("checkpoint", FAILED, checkpoint.problem.message, checkpoint.problem.mend)
    architecture = checkpoint.architecture
    if info.architectures is not None and architecture is not None and architecture not in info.architectures:
        fact = f"architecture {architecture!r} (loads {_listed(info.architectures)})"
        return RuleResult("checkpoint", FAILED, fact)
    if checkpoint.format is None:
        return RuleResult("checkpoint", UNKNOWN, "its format is seen when it is here")
    route = case.route or case.plain
    if route is None:
        mend = f"quantize={case.offered[0]!r}" if case.offered else None
        fact = f"format {checkpoint.format!r} (loads {_listed(info.formats)})"
        return RuleResult("checkpoint", FAILED, fact, mend)
    if info.architectures is None or architecture is None:
        what = f"architecture {architecture!r}" if architecture else "its architecture"
        return RuleResult(
            "checkpoint", UNKNOWN, f"{checkpoint.format}{route.via}; {what} is tried when it loads"
        )
    return RuleResult("checkpoint", PASSED, f"{checkpoint.format}{route.via}, architecture {architecture!r}")


def _quantization(case: Case) -> RuleResult:
    asked, checkpoint = case.spec.quantize, case.checkpoint
    if asked is None:
        return RuleResult(
            "quantization", PASSED, f"not asked for; stored as {checkpoint.quantization or 'it is'}"
        )
    if case.route is not None:
        return RuleResult("quantization", PASSED, f"{asked}, {case.route.how}")
    if checkpoint.format is None and asked in case.offered:
        return RuleResult("quantization", UNKNOWN, f"{asked} depends on the checkpoint's format")
    fact = f"quantization {asked!r} (offers {_listed(case.offered)})"
    best = (
        checkpoint.quantization if checkpoint.quantization in case.offered else next(iter(case.offered), None)
    )
    return RuleResult("quantization", FAILED, fact, f"quantize={best!r}" if best else "leave quantize out")


def _shards(case: Case) -> RuleResult:
    shards, heads = case.spec.num_shards, case.checkpoint.heads
    if shards == 1:
        return ONE_SHARD
    limits = [case.info.max_shards, *([case.spec.gpus] if case.spec.gpus else [])]
    mend = next(n for n in range(min(shards, *limits), 0, -1) if not heads or heads % n == 0)
    if shards > case.info.max_shards:
        fact = f"num_shards={shards} (splits over {case.info.max_shards} at most)"
    elif shards > min(limits):
        fact = f"num_shards={shards} over gpus={case.spec.gpus}"
    elif not heads:
        return RuleResult("shards", UNKNOWN, f"{shards}; the model's attention heads aren't known yet")
    elif heads % shards:
        fact = f"num_shards={shards} doesn't divide the model's {heads} attention heads"
    else:
        return RuleResult("shards", PASSED, f"{shards}, for {heads} attention heads")
    return RuleResult("shards", FAILED, fact, f"num_shards={mend}")


def _device(case: Case) -> RuleResult:
    if case.info.environment is None:
        return NO_DEVICE
    kinds, asked, here = case.info.accelerators, case.spec.gpus, case.host.gpus
    if asked and "cuda" not in kinds:
        return RuleResult("device", FAILED, f"gpus={asked} (runs on {_listed(kinds)})", "gpus=0")
    if asked and asked > here:
        mend = f"gpus={here}" if here else "gpus=0" if "cpu" in kinds else None
        return RuleResult("device", FAILED, f"gpus={asked} (this machine has {_gpus(here)})", mend)
    if asked:
        return RuleResult("device", PASSED, f"{_gpus(here)} here")
    if "cpu" in kinds:
        return RuleResult("device", PASSED, f"{case.host.cpus} processors here")
    if "cuda" not in kinds:
        return RuleResult("device", UNKNOWN, f"runs on {_listed(kinds)}, which is not looked for")
    shards = case.spec.num_shards
    if asked == 0 and here:
        return RuleResult("device", FAILED, "gpus=0 (runs on a GPU only)", f"gpus={min(shards, here)}")
    if here < shards:
        fact = f"needs {_gpus(shards)} (this machine has {_gpus(here)})"
        return RuleResult("device", FAILED, fact, f"num_shards={here}" if here else None)
    return RuleResult("device", PASSED, f"{_gpus(here)} here")


def _memory(case: Case) -> RuleResult:
    if case.info.environment is None:
        return NO_MEMORY
    if case.weight_bytes is None:
        return RuleResult("memory", UNKNOWN, "the size of the weights isn't known yet")
    need = int(case.weight_bytes * case.info.memory_factor)
    room, where = _room(case)
    fact = f"about {_size(need)}; {where} {_size(room)}"
    if room and need > room:  # told before what the spec gives: to give more would mend nothing
        return RuleResult("memory", FAILED, f"needs {fact}")
    for field, least in (("memory", need), ("storage", case.weight_bytes)):
        given = getattr(case.spec, field)
        if given is not None and (quantity_bytes(given) or 0) < least:
            mend = f"{field}='{-(-least // 2**20)}Mi'"
            return RuleResult(
                "memory", FAILED, f"{field}={given!r} is less than the {_size(least)} it takes", mend
            )
    if not room:
        return RuleResult("memory", UNKNOWN, f"about {_size(need)}; the GPU's memory isn't known")
    return RuleResult("memory", PASSED, fact)


def _room(case: Case) -> tuple[int, str]:
    """How many bytes there are for weights and cache, and where; 0 where that isn't known."""
    if case.spec.gpus or "cpu" not in case.info.accelerators:
        return case.host.gpu_memory * (case.spec.gpus or case.spec.num_shards), "its GPUs have"
    return case.host.memory, "this machine has"


def _capabilities(case: Case) -> RuleResult:
    needs, has = case.needs, case.info.capabilities
    if needs == NO_NEEDS:
        return NO_CAPABILITIES
    if needs.within(has):
        return RuleResult("capabilities", PASSED, "all that are asked for")
    missing = [
        each.name
        for each in fields(needs)
        if getattr(needs, each.name) is True and not getattr(has, each.name)
    ]
    missing += [f"guided_{kind}" for kind in sorted(needs.structured - has.structured)]
    if needs.structured <= has.structured:
        both = sorted(needs.combined & has.structured_excludes)
        missing += [f"{name} together with a constraint" for name in both]
    if not Capabilities(adapters=needs.adapters).within(has):
        missing.append(f"adapters {needs.adapters}")
    if needs.structured_dialect not in (None, has.structured_dialect):
        missing.append(f"constraints in {needs.structured_dialect}")
    return RuleResult("capabilities", FAILED, f"can't do {', '.join(missing)}")


RULES: Mapping[str, Callable[[Case], RuleResult]] = MappingProxyType(
    {
        "plugin": _plugin,
        "framework": _framework,
        "engine": _engine,
        "version": _version,
        "checkpoint": _checkpoint,
        "quantization": _quantization,
        "shards": _shards,
        "device": _device,
        "memory": _memory,
        "capabilities": _capabilities,
    }
)
"""Every rule by its name, in the order in which they are told."""


def _size(count: int) -> str:
    """Bytes for people: "1.2 GB"."""
    size, unit = float(count), "B"
    for bigger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, bigger
    return f"{size:.3g} {unit}"


def _gpus(count: int) -> str:
    return f"{count or 'no'} GPU{'' if count == 1 else 's'}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
