"""The rules that a backend must pass to serve a spec, in order; each is a pure function of what was seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from functools import lru_cache
from types import MappingProxyType

from llmengine_core.arguments.quantity import quantity_bytes
from llmengine_core.cases import Asked, Case, runs_code
from llmengine_core.recipes import ANY_VERSION, Conflict
from llmengine_core.routes import FULL_PRECISION
from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.plan import EnvironmentFacts, RuleResult, Verdict

__all__ = ["NO_NEEDS", "RULES"]

NO_NEEDS = Capabilities()


# Most results are the same from plan to plan, and to look one up costs less than to make it.


@lru_cache(maxsize=2048)
def _passed(rule: str, fact: str) -> RuleResult:
    return RuleResult(rule, Verdict.PASSED, fact)


@lru_cache(maxsize=2048)
def _failed(rule: str, fact: str, mend: str | None = None) -> RuleResult:
    return RuleResult(rule, Verdict.FAILED, fact, mend)


@lru_cache(maxsize=2048)
def _unknown(rule: str, fact: str) -> RuleResult:
    return RuleResult(rule, Verdict.UNKNOWN, fact)


ASKED_FOR = _passed("framework", "asked for by name")
ANY_WILL_DO = _passed("framework", "any will do")
ANY_VERSION_WILL_DO = _passed("version", "any will do")
NO_ENGINE = _passed("engine", "it needs none in this environment")
NO_DEVICE = _passed("device", "it takes none of this machine's")
NO_MEMORY = _passed("memory", "it takes none of this machine's")
ONE_SHARD = _passed("shards", "1")
NO_CAPABILITIES = _passed("capabilities", "none are asked for")


def _plugin(case: Case) -> RuleResult:
    return _passed("plugin", f"{case.declared.distribution or case.declared.plugin} is loaded")


def _framework(case: Case) -> RuleResult:
    asked = case.spec.inference_framework
    if asked == case.info.name:
        return ASKED_FOR
    if asked == "auto":
        return ANY_WILL_DO
    fact = f"not asked for (framework is {asked!r})"
    return _failed("framework", fact, f"inference_framework={case.info.name!r}")


def _engine(case: Case) -> RuleResult:
    environment, seen, place = case.info.environment, case.seen, case.place
    if seen is None:
        return _unknown("engine", "it was not looked for")
    missing = None
    if environment is not None and not seen.environments:
        where = "on this machine" if environment.builds else "in this environment"
        missing = f"its engine {environment.distribution} is not {where}"
    elif environment is not None and place is None and not case.versions:
        missing = f"no environment here has {environment.distribution} for {case.accelerator}"
    if missing is not None or seen.problems:
        facts = "; ".join([*([missing] if missing else []), *(problem.message for problem in seen.problems)])
        mends = [problem.mend for problem in seen.problems if problem.mend]
        return _installable("engine", facts, *([case.install()] if missing else []), *mends)
    if environment is None:
        return NO_ENGINE
    if place is None:
        return _passed("engine", f"{environment.distribution} is here")
    why = f": {place.why}" if place.why else ""
    return _passed("engine", f"{environment.distribution} is {_place(place.environment)}{why}")


def _version(case: Case) -> RuleResult:
    tag, environment = case.spec.inference_framework_image_tag, case.info.environment
    version = case.place.environment.version if case.place is not None else ""
    if tag == ANY_VERSION:
        return _passed("version", f"{version} is here") if version else ANY_VERSION_WILL_DO
    if case.place is not None:
        return _passed("version", f"{version} is here, as asked for")
    if environment is None or case.seen is None:
        return _unknown("version", f"version {tag} was asked for; the engine tells when it is reached")
    others = ", ".join(filter(None, case.versions))
    fact = f"version {tag} is not here" + (f", but {others}" if others else "")
    latest = "inference_framework_image_tag='latest'"
    found = case.install()
    if isinstance(found, Conflict):
        return _failed("version", f"{fact}; {found.reason}", latest)
    return _failed("version", fact, f"{found}, or {latest}")


def _checkpoint(case: Case) -> RuleResult:
    checkpoint, info = case.checkpoint, case.info
    if checkpoint.problem is not None:
        return _failed("checkpoint", checkpoint.problem.message, checkpoint.problem.mend)
    architecture = checkpoint.architecture
    if not case.architecture_known and not runs_code(info, checkpoint, allowed=case.facts.allow_remote_code):
        return _strange(case)
    if checkpoint.format is None:
        return _unknown("checkpoint", "its format is seen when it is here")
    route = case.route or case.plain
    if route is None and checkpoint.format not in info.formats:
        usable = next((method for method in case.offered if case.ready(method)), None)
        fact = f"format {checkpoint.format!r} (loads {_listed(info.formats)})"
        return _failed("checkpoint", fact, f"quantize={usable!r}" if usable else None)
    if route is not None and (missing := case.asked.routes.missing(route)):
        fact = f"{checkpoint.format}{route.via}; no environment here runs {' and '.join(missing)}"
        return _installable("checkpoint", fact, *map(case.install_transform, missing))
    way = f"{checkpoint.format}{route.via if route else ''}"
    if not case.architecture_known:
        fact = f"{way}, architecture {architecture!r} by its own code, as the settings allow"
    elif info.architectures is None or architecture is None:
        what = f"architecture {architecture!r}" if architecture else "its architecture"
        fact = f"{way}; {what} is tried when it loads"
    else:
        return _passed("checkpoint", f"{way}, architecture {architecture!r}")
    return _unknown("checkpoint", fact)


def _strange(case: Case) -> RuleResult:
    """A model of an architecture that the backend doesn't know."""
    checkpoint, info = case.checkpoint, case.info
    fact = f"architecture {checkpoint.architecture!r}"
    if checkpoint.remote_code and info.remote_code and checkpoint.format in (None, *info.formats):
        fact = f"{fact} is code that comes with the checkpoint, which the settings don't allow"
        return _failed("checkpoint", fact, "LLMENGINE_ALLOW_REMOTE_CODE=true, once you have read it")
    return _failed("checkpoint", f"{fact} (loads {_listed(info.architectures or ())})")


def _quantization(case: Case) -> RuleResult:
    asked, checkpoint, route = case.spec.quantize, case.checkpoint, case.route
    if route is not None:
        opened = route.steps and checkpoint.quantization not in FULL_PRECISION
        unasked = (
            f"{checkpoint.quantization} is opened up"
            if opened
            else f"stored as {checkpoint.quantization or 'it is'}"
        )
        what = f"{asked}, {route.how}" if asked else f"not asked for; {unasked}"
        if (lacking := case.lacks(route)) is None:
            return _passed("quantization", what)
        where = _place(case.place.environment) if case.place else "here"
        fact = f"{asked or checkpoint.quantization} needs {lacking}, which is not {where}"
        return _installable("quantization", fact, case.install())
    stored, info = checkpoint.quantization, case.info
    refused = checkpoint.format in info.formats and not case.asked.routes.loads(info)
    if asked is None and not refused:
        return _passed("quantization", f"not asked for; stored as {stored or 'it is'}")
    offered = case.offered
    if checkpoint.format is None and asked in offered:
        return _unknown("quantization", f"{asked} depends on the checkpoint's format")
    if asked is None:
        fact = f"the weights are stored in {stored!r} (loads {_listed(info.loads_quantized or ())})"
    elif case.asked.routes.needs_precision(info, asked, case.accelerator):
        fact = f"quantization {asked!r} of weights that are stored in {stored!r} (offers {_listed(offered)})"
    else:
        fact = f"quantization {asked!r} (offers {_listed(offered)})"
    ready = [method for method in offered if case.ready(method) or checkpoint.format is None]
    best = stored if stored in ready else next(iter(ready), None)
    unread = refused or (case.plain is not None and case.lacks(case.plain) is not None)
    rest = None if unread else "leave quantize out"
    return _failed("quantization", fact, f"quantize={best!r}" if best else rest)


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
        return _unknown("shards", f"{shards}; the model's attention heads aren't known yet")
    elif heads % shards:
        fact = f"num_shards={shards} doesn't divide the model's {heads} attention heads"
    else:
        return _passed("shards", f"{shards}, for {heads} attention heads")
    return _failed("shards", fact, f"num_shards={mend}")


def _device(case: Case) -> RuleResult:
    if case.info.environment is None:
        return NO_DEVICE
    kinds, asked, here = case.info.accelerators, case.spec.gpus, case.facts.host.gpus
    if asked and "cuda" not in kinds:
        return _failed("device", f"gpus={asked} (runs on {_listed(kinds)})", "gpus=0")
    if asked and asked > here:
        mend = f"gpus={here}" if here else "gpus=0" if "cpu" in kinds else None
        return _failed("device", f"gpus={asked} (this machine has {_gpus(here)})", mend)
    if asked:
        return _passed("device", f"{_gpus(here)} here")
    if "cpu" in kinds:
        return _passed("device", f"{case.facts.host.cpus} processors here")
    if "cuda" not in kinds:
        return _unknown("device", f"runs on {_listed(kinds)}, which is not looked for")
    shards = case.spec.num_shards
    if asked == 0 and here:
        return _failed("device", "gpus=0 (runs on a GPU only)", f"gpus={min(shards, here)}")
    if here < shards:
        fact = f"needs {_gpus(shards)} (this machine has {_gpus(here)})"
        return _failed("device", fact, f"num_shards={here}" if here else None)
    return _passed("device", f"{_gpus(here)} here")


def _memory(case: Case) -> RuleResult:
    if case.info.environment is None:
        return NO_MEMORY
    weight_bytes = case.weight_bytes
    if weight_bytes is None:
        return _unknown("memory", "the size of the weights isn't known yet")
    need = int(weight_bytes * case.info.memory_factor)
    room, where = _room(case)
    fact = f"about {_size(need)}; {where} {_size(room)}"
    if room and need > room:  # told before what the spec gives: to give more would mend nothing
        return _failed("memory", f"needs {fact}")
    for field, least in (("memory", need), ("storage", weight_bytes)):
        given = getattr(case.spec, field)
        if given is not None and (quantity_bytes(given) or 0) < least:
            mend = f"{field}='{-(-least // 2**20)}Mi'"
            return _failed("memory", f"{field}={given!r} is less than the {_size(least)} it takes", mend)
    if not room:
        return _unknown("memory", f"about {_size(need)}; the GPU's memory isn't known")
    return _passed("memory", fact)


def _room(case: Case) -> tuple[int, str]:
    """How many bytes there are for weights and cache, and where; 0 where that isn't known."""
    if case.spec.gpus or "cpu" not in case.info.accelerators:
        return case.facts.host.gpu_memory * (case.spec.gpus or case.spec.num_shards), "its GPUs have"
    return case.facts.host.memory, "this machine has"


def _capabilities(case: Case) -> RuleResult:
    needs, has = case.asked.needs, case.info.capabilities
    if needs == NO_NEEDS:
        return NO_CAPABILITIES
    if case.unguided:
        has = replace(has, structured=frozenset())
    if needs.within(has):
        return _passed("capabilities", "all that are asked for")
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
        missing.append(_adapters(case.asked))
    if needs.structured_dialect not in (None, has.structured_dialect):
        missing.append(f"constraints in {needs.structured_dialect}")
    fact = f"can't do {', '.join(missing)}"
    declared = replace(needs, structured=frozenset()).within(has) and needs.within(case.info.capabilities)
    if case.unguided and declared:
        return _installable("capabilities", f"{fact} without a masker", case.install_masker())
    return _failed("capabilities", fact)


def _adapters(asked: Asked) -> str:
    """What is missing where a backend takes no such adapters, and which ones do."""
    declared = [each.info for each in asked.declarations.backends]
    able = [
        info.name
        for info in declared
        if Capabilities(adapters=asked.needs.adapters).within(info.capabilities)
    ]
    when = "while it runs" if asked.needs.adapters == "dynamic" else "as it starts"
    return f"adapters {when} (they are loaded by {_listed(able)})"


def _installable(rule: str, fact: str, *commands: str | Conflict) -> RuleResult:
    """A failed rule that commands mend, if there is nothing that keeps what they install apart."""
    conflicts = [each for each in commands if isinstance(each, Conflict)]
    if not conflicts:
        return _failed(rule, fact, " && ".join(dict.fromkeys(map(str, commands))) or None)
    reasons = "; ".join(dict.fromkeys(each.reason for each in conflicts))
    return _failed(rule, f"{fact}, and can't be: {reasons}", conflicts[0].mend)


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


def _place(environment: EnvironmentFacts) -> str:
    return f"in the environment {environment.name}" if environment.name else "here"


def _gpus(count: int) -> str:
    return f"{count or 'no'} GPU{'' if count == 1 else 's'}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
