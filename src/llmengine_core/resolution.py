"""What is to serve a spec, and why: pure, so that the same facts always give the same plan.

Every candidate is held against every rule. Nothing is looked up here, and nothing is tried: what can't be
known ahead is UNKNOWN, fits for now, and is checked again when the plan is carried out.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator

from llmengine_core.arguments.quantity import quantity_bytes
from llmengine_core.hardware import infer
from llmengine_core.routes import FULL_PRECISION, Routes
from llmengine_core.rules import NO_NEEDS, RULES, Case
from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.declarations import BackendInfo, Declarations
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
    routes = Routes(facts.checkpoint, (declared.info for declared in declarations.transforms))
    weight_bytes = _weight_bytes(spec, facts.checkpoint)
    cases = (Case(spec, each, facts, routes, weight_bytes, needs) for each in declarations.backends)
    candidates = [_candidate(case) for case in cases]
    served = any(each.fits for each in candidates)
    candidates += _absent(spec.inference_framework, declarations, served=served)
    candidates.sort(key=lambda each: _rank(each, spec.inference_framework))
    best = candidates[0] if candidates and candidates[0].fits else None
    return Plan(
        model=spec.model,
        framework=spec.inference_framework,
        checkpoint=facts.checkpoint,
        candidates=tuple(candidates),
        chosen=best.name if best else None,
        asked=_asked(spec),
        notes=tuple(_notes(spec, declarations, facts, best)) if best else (),
        hardware=infer(spec, facts.checkpoint, _info(best, declarations), facts.host, weight_bytes)
        if best
        else None,
    )


def _info(candidate: Candidate, declarations: Declarations) -> BackendInfo:
    return next(each.info for each in declarations.backends if each.info.name == candidate.name)


def _rank(candidate: Candidate, framework: str) -> tuple[bool, bool, int, str, str]:
    """The best first: what fits, what was asked for by name, then priority and name."""
    fits, asked = candidate.fits, candidate.name == framework
    return (not fits, not asked, -candidate.priority, candidate.name, candidate.plugin)


def _candidate(case: Case) -> Candidate:
    return Candidate(
        name=case.info.name,
        plugin=case.declared.plugin,
        version=case.version,
        priority=case.info.priority,
        rules=tuple([rule(case) for rule in RULES.values()]),
        transforms=case.route.steps if case.route else (),
    )


def _weight_bytes(spec: ModelSpec, checkpoint: CheckpointFacts) -> int | None:
    """How much the weights take as they are served; None where that can't be told yet."""
    if spec.quantize in (None, checkpoint.quantization):
        return checkpoint.size
    number = re.search(r"\d+", spec.quantize)  # "q8_0", "int4", "f16": bits, and one more for scales
    bits = int(number[0]) if number else 0
    if checkpoint.parameters is None or not 1 <= bits <= 32:
        return None
    return checkpoint.parameters * (bits + (bits < 16)) // 8


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
            asked[field] = str(value)
    return asked


def _notes(spec: ModelSpec, declarations: Declarations, facts: Facts, best: Candidate) -> Iterator[str]:
    checkpoint, host = facts.checkpoint, facts.host
    if checkpoint.path is None and checkpoint.url:
        yield f"the weights are not on this machine yet; they are fetched from {checkpoint.url}"
    method = next((step.method for step in best.transforms if step.method), None)
    if method and checkpoint.quantization not in FULL_PRECISION:
        yield f"{method} is made of {checkpoint.quantization} weights, not of full precision"
    if spec.cpus is not None and spec.cpus > host.cpus:
        yield f"cpus={spec.cpus} were asked for; this machine has {host.cpus}, and replicas run on those"
    if spec.memory is not None and (quantity_bytes(spec.memory) or 0) > host.memory:
        yield f"memory={spec.memory} was asked for; this machine has {host.memory / 2**30:.1f}Gi"
    if spec.gpu_type is not None:
        yield f"gpu_type={spec.gpu_type} is not compared with this machine's GPUs"
    if spec.high_priority:
        yield "high_priority is stored, but there is no prewarmed pool here that it could take a place in"
    info = _info(best, declarations)
    dialects = {dialect for each in declarations.guided_decoders for dialect in each.info.dialects}
    if info.capabilities.structured and info.capabilities.structured_dialect not in dialects:
        yield "guided requests are refused until a checker is here: python -m pip install llmengine-llguidance"
