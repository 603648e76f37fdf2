"""What is to serve a spec, and why: pure, so that the same facts always give the same plan.

Every candidate is held against every rule. Nothing is looked up here, and nothing is tried: what can't be
known ahead is UNKNOWN, fits for now, and is checked again when the plan is carried out.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from llmengine_core.arguments.quantity import quantity_bytes
from llmengine_core.cases import Asked, Case, runs_code
from llmengine_core.hardware import infer
from llmengine_core.locations import shown
from llmengine_core.recipes import Conflict
from llmengine_core.routes import FULL_PRECISION
from llmengine_core.rules import NO_NEEDS, RULES
from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.declarations import Declarations
from llmengine_core.types.models import ModelSpec
from llmengine_core.types.plan import Candidate, CheckpointFacts, Facts, Plan, RuleResult, Verdict

__all__ = ["resolve"]

FRAMEWORKS = {
    "deepspeed": "llmengine-deepspeed",
    "lightllm": "llmengine-lightllm",
    "llama_cpp": "llmengine-llamacpp",
    "text_generation_inference": "llmengine-tgi",
    "transformers": "llmengine-transformers",
    "vllm": "llmengine-vllm",
}
"""Frameworks that are known by name, and the distributions that bring them, for mends."""


def resolve(
    spec: ModelSpec, declarations: Declarations, facts: Facts, *, needs: Capabilities = NO_NEEDS
) -> Plan:
    """Choose a backend for ``spec`` among all that are declared; ``chosen`` is None where none fits.

    ``needs`` are capabilities that the backend must declare. Never raises: a caller that needs a choice
    raises ``explanation.resolution_error`` of a plan without one.
    """
    asked = Asked(spec, declarations, facts, needs)
    cases = {declared.info.name: Case(asked, declared) for declared in declarations.backends}
    fitting: list[Candidate] = []
    others: list[Candidate] = []
    for each in map(_candidate, cases.values()):
        (fitting if each.fits else others).append(each)
    fitting.sort(key=_rank(spec))
    others += _absent(spec.inference_framework, declarations, served=bool(fitting))
    plan = Plan(
        model=spec.model,
        framework=spec.inference_framework,
        checkpoint=facts.checkpoint,
        candidates=(*fitting, *sorted(others, key=_rank(spec))),
        chosen=fitting[0].name if fitting else None,
        adapter=facts.adapter,
        asked=_asked(spec),
    )
    if not fitting:
        return plan
    best = fitting[0]
    case = cases[best.name]
    return replace(
        plan,
        why=_why(fitting, spec.inference_framework),
        notes=tuple(_notes(case, declarations, best)),
        hardware=infer(spec, facts.checkpoint, case.info, facts.host, case.weight_bytes),
    )


def _rank(spec: ModelSpec) -> Callable[[Candidate], tuple[bool, bool, int, str, str]]:
    """The best first: what was asked for by name, what loads the checkpoint as it is, what has priority."""
    framework = spec.inference_framework

    def rank(each: Candidate) -> tuple[bool, bool, int, str, str]:
        return (each.name != framework, bool(each.transforms), -each.priority, each.name, each.plugin)

    return rank


def _why(fitting: Sequence[Candidate], framework: str) -> str:
    """What the first of these candidates, the best first, has before the others."""
    best, *others = fitting
    if best.name == framework:
        return "asked for by name"
    if not others:
        return "nothing else fits"
    reasons: dict[str, list[str]] = {}
    for other in others:
        if other.transforms and not best.transforms:
            reason = "loads the checkpoint as it is, but {} can only once it is transformed"
        elif other.priority != best.priority:
            reason = f"has priority {best.priority}, but {{}} {other.priority}"
        else:
            reason = "comes by its name before {}, all else being equal"
        reasons.setdefault(reason, []).append(other.name)
    return "; ".join([reason.format(" and ".join(names)) for reason, names in reasons.items()])


def _candidate(case: Case) -> Candidate:
    place, route = case.place, case.route
    return Candidate(
        name=case.info.name,
        plugin=case.declared.plugin,
        version=(place.environment.version or None) if place else None,
        priority=case.info.priority,
        rules=tuple([rule(case) for rule in RULES.values()]),
        transforms=case.steps,
        environment=place.environment if place else None,
        quantizer=route.quantizer.name if route and route.quantizer else None,
        masker=place.masker.name if place and place.masker else None,
    )


# -- what is not there -------------------------------------------------------------------------------------------


def _absent(framework: str, declarations: Declarations, *, served: bool) -> Iterator[Candidate]:
    """Plugins that failed or were left out and might have mattered, and a framework that nobody registers."""
    registered = {declared.info.name for declared in declarations.backends}
    faults = [*declarations.faults, *declarations.left_out]
    exact = [fault for fault in faults if framework in (fault.plugin, *fault.registers)]
    nobody = framework != "auto" and framework not in registered and not exact
    for fault in faults:
        might = framework == "auto" or (not served and not fault.registers)
        if fault in declarations.left_out:
            might = nobody
        if might or fault in exact:
            name = framework if framework in fault.registers else fault.plugin
            said = f"plugin {fault.distribution or repr(fault.plugin)} {fault.message}"
            yield _missing(name, fault.plugin, RuleResult("plugin", Verdict.FAILED, said, fault.mend))
    if nobody:
        yield _missing(framework, "", _unknown_framework(framework, registered))


def _missing(name: str, plugin: str, reason: RuleResult) -> Candidate:
    """A candidate that fails because its plugin isn't loaded; the other rules had nothing to look at."""
    others = (
        RuleResult(rule, Verdict.UNKNOWN, "its plugin is not loaded") for rule in RULES if rule != "plugin"
    )
    return Candidate(name=name, plugin=plugin, rules=(reason, *others))


def _unknown_framework(framework: str, registered: Iterable[str]) -> RuleResult:
    if framework in FRAMEWORKS:
        fact, mend = "no plugin for it is installed", f"python -m pip install {FRAMEWORKS[framework]}"
        return RuleResult("plugin", Verdict.FAILED, fact, mend)
    known = sorted({"auto", *registered})
    close = difflib.get_close_matches(framework, {*known, *FRAMEWORKS}, n=1)
    fact = f"no plugin registers it (registered: {', '.join(known)})"
    mend = f"inference_framework={(close or ['auto'])[0]!r}"
    return RuleResult("plugin", Verdict.FAILED, fact, mend)


# -- what else there is to say -----------------------------------------------------------------------------------


def _asked(spec: ModelSpec) -> dict[str, str]:
    """What a spec asks for beyond the defaults that a plan depends on."""
    asked: dict[str, str] = {}
    if spec.inference_framework_image_tag != "latest":
        asked["inference_framework_image_tag"] = spec.inference_framework_image_tag
    if spec.num_shards != 1:
        asked["num_shards"] = str(spec.num_shards)
    for field in ("quantize", "checkpoint_path", "cpus", "memory", "storage", "gpus", "gpu_type"):
        if (value := getattr(spec, field)) is not None:
            asked[field] = shown(value) if field == "checkpoint_path" else str(value)
    return asked


def _notes(case: Case, declarations: Declarations, best: Candidate) -> Iterator[str]:
    spec, info, checkpoint, host = case.spec, case.info, case.checkpoint, case.facts.host
    if checkpoint.path is None and checkpoint.url:
        yield f"the weights are not on this machine yet; they are fetched from {shown(checkpoint.url)}"
    yield from _adapter_notes(case.facts.adapter, spec.model)
    method = next((step.method for step in best.transforms if step.method), None)
    if checkpoint.quantization not in FULL_PRECISION and best.transforms:
        yield f"{method or 'full precision'} is made of {checkpoint.quantization} weights" + (
            ", not of full precision" if method else "; what they lost isn't won back"
        )
    if checkpoint.remote_code:
        runs = runs_code(info, checkpoint, allowed=case.facts.allow_remote_code)
        yield f"the checkpoint brings code of its own, which {'may run with your rights' if runs else 'is not run'}"
    if spec.cpus is not None and spec.cpus > host.cpus:
        yield f"cpus={spec.cpus} were asked for; this machine has {host.cpus}, and replicas run on those"
    if spec.memory is not None and (quantity_bytes(spec.memory) or 0) > host.memory:
        yield f"memory={spec.memory} was asked for; this machine has {host.memory / 2**30:.1f}Gi"
    if spec.gpu_type is not None:
        yield f"gpu_type={spec.gpu_type} is not compared with this machine's GPUs"
    if spec.gpus is None and host.gpus and info.accelerators >= {"cpu", "cuda"}:
        yield "it runs on the processors; gpus=1 puts it on a GPU"
    if spec.high_priority:
        yield "high_priority is stored, but there is no prewarmed pool here that it could take a place in"
    dialects = {dialect for each in declarations.guided_decoders for dialect in each.info.dialects}
    if not info.capabilities.structured:
        return
    if info.capabilities.structured_dialect not in dialects:
        yield "guided requests are refused until a checker is here: python -m pip install llmengine-llguidance"
    elif case.unguided:
        found = case.install_masker()
        said = found.reason if isinstance(found, Conflict) else found
        yield f"guided requests are refused, since no masker is beside the engine: {said}"


def _adapter_notes(adapter: CheckpointFacts | None, model: str) -> Iterator[str]:
    """That an adapter names a base which doesn't look like ``model``; one by its folder may have any name."""
    base = adapter.base if adapter is not None else None
    if base is None or base.startswith(("/", ".", "~")):
        return
    one, other = (re.sub(r"[^a-z0-9]", "", name.lower().rpartition("/")[2]) for name in (base, model))
    if one not in other and other not in one:
        yield f"the adapter says that it was trained on {base!r}; whether it fits {model!r} shows when it is loaded"
