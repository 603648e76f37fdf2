"""Where what a plan names runs now: environments are looked for again when the plan is carried out."""

from __future__ import annotations

from llmengine_core import environments
from llmengine_core.errors import ServerError
from llmengine_core.placement import Place, accelerator_of, choose, holds, install, maskers_by_dialect
from llmengine_core.recipes import ANY_VERSION, Conflict, environment_specs
from llmengine_core.registry import Registry
from llmengine_core.settings import Settings
from llmengine_core.types.declarations import BackendInfo, EnvironmentSpec, QuantizerInfo, TransformInfo
from llmengine_core.types.models import ModelSpec
from llmengine_core.types.plan import Candidate, EnvironmentFacts

__all__ = ["Places"]


class Places:
    """The environments of this machine, for what is registered. Its methods read files: call them in a thread."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self._home = settings.home
        self._registry = registry
        self._declarations = registry.declarations

    def of_engine(self, info: BackendInfo, choice: Candidate, spec: ModelSpec) -> Place | None:
        """The environment that a plan chose for a backend, or where that is gone an equal one.

        None for an engine that needs none. One that lives in the current environment may have been upgraded in
        it. Raises ``ServerError`` with what mends it where there is none any more.
        """
        if info.environment is None:
            return None
        quantizer = self._quantizer(choice)
        planned, here = choice.environment, self._having(info.environment)
        same = [each for each in here if planned is not None and each.python == planned.python]
        in_current = planned is None or not planned.name
        fixed = spec.inference_framework_image_tag if in_current else choice.version or ANY_VERSION
        dialect = info.capabilities.structured_dialect or ""
        decoders = self._registry.guided_decoders.values()
        maskers = maskers_by_dialect(decoders).get(dialect, ()) if info.takes_masker else ()
        for environments_, tag in ((same, choice.version or ANY_VERSION), (here, fixed)):
            place = choose(
                environments_,
                tag=tag,
                accelerator=accelerator_of(info, spec.gpus),
                quantizer=quantizer,
                maskers=maskers,
            )
            if place is not None and (quantizer is None or holds(place.environment, quantizer.environment)):
                return place
        what = f"{info.environment.distribution} {choice.version or ''}".rstrip()
        beside = f" with {quantizer.name}" if quantizer else ""
        raise ServerError(
            f"the environment of {spec.name!r} is gone: nothing here has {what}{beside} any more. "
            + self._mend(info, tag=fixed, spec=spec, quantizer=quantizer)
            + "; or update the model"
        )

    def of_transform(self, info: TransformInfo, *preferred: str) -> str:
        """The interpreter that a transform runs in, "" for our own: one of those preferred, if it can run there.

        Raises ``ServerError`` as above.
        """
        if info.environment is None:
            return ""
        able = self._having(info.environment)
        found = next((each for each in able if each.python in preferred), able[0] if able else None)
        if found is None:
            raise ServerError(f"nothing here can run the transform {info.name!r}. {self._mend(info)}")
        return found.python if found.name else ""

    def without_masker(self, info: BackendInfo, spec: ModelSpec) -> str:
        """What would bring a masker beside a backend that runs without one."""
        return self._mend(info, tag=spec.inference_framework_image_tag, spec=spec)

    def _having(self, spec: EnvironmentSpec) -> tuple[EnvironmentFacts, ...]:
        # All specs are looked for, since what an environment is seen to hold is what they ask for.
        return environments.find(self._home, environment_specs(self._declarations))[spec]

    def _quantizer(self, choice: Candidate) -> QuantizerInfo | None:
        if choice.quantizer is None:
            return None
        found = self._registry.quantizers.get(choice.quantizer)
        if found is None:
            raise ServerError(
                f"the quantizer {choice.quantizer!r} is not registered any more; install its plugin again, or "
                "update the model"
            )
        return found

    def _mend(
        self,
        owner: BackendInfo | TransformInfo,
        *,
        tag: str = ANY_VERSION,
        spec: ModelSpec | None = None,
        quantizer: QuantizerInfo | None = None,
    ) -> str:
        found = install(
            owner,
            self._declarations,
            environments.read_pins(environment_specs(self._declarations)),
            tag=tag,
            accelerator=accelerator_of(owner, spec.gpus)
            if isinstance(owner, BackendInfo) and spec
            else "cpu",
            method=(spec.quantize if spec else None) or (quantizer.name if quantizer else None),
            quantizer=quantizer,
        )
        if isinstance(found, Conflict):
            return f"It can't be installed: {found.reason}"
        return f"Mend: {found}"
