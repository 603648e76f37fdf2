"""One backend for one spec, and all that follows from what was seen; what the rules look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import ceil

from llmengine_core.placement import (
    Place,
    accelerator_of,
    choose,
    holds,
    install,
    maskers_by_dialect,
    runs_on,
)
from llmengine_core.recipes import Conflict
from llmengine_core.routes import Route, Routes
from llmengine_core.sizes import bits_by_name
from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.declarations import BackendInfo, Declarations, Declared
from llmengine_core.types.models import ModelSpec
from llmengine_core.types.plan import CheckpointFacts, EnvironmentFacts, Facts, TransformStep

__all__ = ["GET_MASKER", "Asked", "Case", "runs_code"]

GET_MASKER = "python -m pip install llmengine-llguidance"


class Asked:
    """What is asked of every backend, and what was seen besides them."""

    def __init__(
        self, spec: ModelSpec, declarations: Declarations, facts: Facts, needs: Capabilities
    ) -> None:
        self.spec, self.declarations, self.facts = spec, declarations, facts
        self.needs = needs if facts.adapter is None else replace(needs, adapters="dynamic")
        """An adapter is always loaded on what runs already: its base is shared, whoever comes first."""
        self.transforms = {declared.info.name: declared.info for declared in declarations.transforms}
        environments = facts.transforms
        missing = {
            name
            for name, info in self.transforms.items()
            if info.environment is not None and not environments.get(name)
        }
        quantizers = [declared.info for declared in declarations.quantizers]
        self.routes = Routes(facts.checkpoint, self.transforms.values(), quantizers, missing=missing)
        self.maskers = maskers_by_dialect([declared.info for declared in declarations.guided_decoders])


class Case:
    """A backend that might serve a spec."""

    __slots__ = (
        "_command", "accelerator", "asked", "checkpoint", "declared", "facts", "info", "maskers", "place", "plain",
        "route", "seen", "spec",
    )  # fmt: skip

    def __init__(self, asked: Asked, declared: Declared[BackendInfo]) -> None:
        self.asked, self.spec, self.facts, self.declared = asked, asked.spec, asked.facts, declared
        self._command: str | Conflict | None = None
        self.checkpoint = asked.facts.checkpoint
        self.info = info = declared.info
        self.seen = asked.facts.backends.get(info.name)
        self.accelerator = accelerator = accelerator_of(info, asked.spec.gpus)
        method, routes = asked.spec.quantize, asked.routes
        self.plain = routes.plain(info)
        """From the checkpoint to what the backend loads, without quantizing."""
        self.route = self.plain if method is None else routes.quantized(info, method, accelerator)
        """The same with the quantization that was asked for."""
        dialect = info.capabilities.structured_dialect
        self.maskers = asked.maskers.get(dialect or "", ()) if info.takes_masker else ()
        """Those that could run beside the backend, the best first."""
        here = self.seen.environments if self.seen is not None and info.environment is not None else ()
        self.place = self._choose(here) if here else None
        """Where it would run; None where that isn't here, or elsewhere."""

    def _choose(self, environments: Sequence[EnvironmentFacts]) -> Place | None:
        return choose(
            environments,
            tag=self.spec.inference_framework_image_tag,
            accelerator=self.accelerator,
            quantizer=self.route.quantizer if self.route else None,
            maskers=self.maskers,
        )

    @property
    def versions(self) -> list[str]:
        """Of the engine, in the environments here that are for the device that it would compute on."""
        seen = self.seen.environments if self.seen else ()
        return list(dict.fromkeys(each.version for each in seen if runs_on(each, self.accelerator)))

    @property
    def architecture_known(self) -> bool:
        """Whether the backend lists the model's architecture; also where one of both isn't told."""
        known, architecture = self.info.architectures, self.checkpoint.architecture
        return known is None or architecture is None or architecture in known

    @property
    def weight_bytes(self) -> int | None:
        """What the weights take as they are served; None where that can't be told yet."""
        method, checkpoint = self.spec.quantize, self.checkpoint
        if self.route is not None:
            bits = self.route.bits
        else:
            bits = None if method in (None, checkpoint.quantization) else bits_by_name(method or "")
        if bits is None:
            return checkpoint.size
        if not bits or checkpoint.parameters is None:
            return None
        return ceil(checkpoint.parameters * bits / 8)

    @property
    def steps(self) -> tuple[TransformStep, ...]:
        """What must be done to the checkpoint first, each in an environment that is here, if there is one."""
        return tuple([self._placed(step) for step in self.route.steps]) if self.route else ()

    def _placed(self, step: TransformStep) -> TransformStep:
        able = self.facts.transforms.get(step.transform, ())
        if not able or self.asked.transforms[step.transform].environment is None:
            return step
        own = self.place.environment.python if self.place is not None else None
        found = next((each for each in able if each.python == own), able[0])
        return replace(step, python=found.python) if found.name else step

    @property
    def offered(self) -> list[str]:
        """Quantizations that can be had, sorted."""
        return self.asked.routes.offered(self.info, self.accelerator)

    def ready(self, method: str) -> bool:
        """Whether a quantization that is offered could be had with what is installed."""
        route = self.asked.routes.quantized(self.info, method, self.accelerator)
        if route is None:
            return False
        return not self.asked.routes.missing(route) and self.lacks(route) is None

    def lacks(self, route: Route) -> str | None:
        """The distribution that is not where the engine would run, though this way needs it; None where all is."""
        environment = route.quantizer.environment if route.quantizer else None
        if environment is None or self.place is None or holds(self.place.environment, environment):
            return None
        return environment.distribution

    def install(self) -> str | Conflict:
        """The command that brings an environment with all that is wanted, or why there can't be one."""
        if self._command is None:  # several rules may ask for it, and to merge environments takes a while
            self._command = install(
                self.info,
                self.asked.declarations,
                self.facts.pins,
                tag=self.spec.inference_framework_image_tag,
                accelerator=self.accelerator,
                method=self.spec.quantize or self.checkpoint.quantization,
                quantizer=self.route.quantizer if self.route else None,
                masker=next(iter(self.maskers), None),
            )
        return self._command

    @property
    def unguided(self) -> bool:
        """Whether the backend enforces constraints by a masker, and none is there or would be installed."""
        without = not self.maskers if self.place is None else self.place.masker is None
        return self.info.takes_masker and without

    def install_masker(self) -> str | Conflict:
        """The command that brings a masker to where the engine runs, or why there can't be one."""
        return self.install() if self.maskers else GET_MASKER

    def install_transform(self, name: str) -> str | Conflict:
        """The command that brings the environment of a transform. One that needs the engine runs beside it."""
        transform, own = self.asked.transforms[name], self.info.environment
        assert transform.environment is not None  # one without is never missing
        if own is not None and own.builds and own.distribution == transform.environment.distribution:
            return self.install()
        return install(transform, self.asked.declarations, self.facts.pins)


def runs_code(info: BackendInfo, checkpoint: CheckpointFacts, *, allowed: bool) -> bool:
    """Whether code that comes with a checkpoint is run: where it is allowed and the backend doesn't know better."""
    known = info.architectures is not None and checkpoint.architecture in info.architectures
    return allowed and info.remote_code and checkpoint.remote_code and not known
