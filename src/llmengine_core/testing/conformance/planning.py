"""The program that finds out what of a plugin can be judged, in a process of its own since it imports the plugin."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from llmengine_core.errors import LLMEngineError
from llmengine_core.explanation import resolution_error
from llmengine_core.inspection import inspect
from llmengine_core.plugins import Plugin, describe_error
from llmengine_core.registry import Registry
from llmengine_core.resolution import resolve
from llmengine_core.settings import Settings, load_settings
from llmengine_core.testing.conformance.channel import Channel
from llmengine_core.testing.conformance.finding import find
from llmengine_core.testing.conformance.subjects import (
    CONTRACTS,
    FRESH,
    Gap,
    Subject,
    contract_of,
    of_file,
    of_plugin,
)
from llmengine_core.types.declarations import (
    BackendInfo,
    GuidedDecoderInfo,
    Info,
    ObserverInfo,
    QuantizerInfo,
    RuntimeInfo,
    StorageInfo,
    StoreInfo,
    TransformInfo,
)
from llmengine_core.types.models import ModelCard, ModelSpec

__all__ = ["main"]

SIMPLE: dict[type, tuple[str, str]] = {
    GuidedDecoderInfo: ("guided", "decoder"),
    TransformInfo: ("transform", "transform"),
    QuantizerInfo: ("quantizer", "quantizer"),
    StorageInfo: ("storage", "storage"),
    StoreInfo: ("store", "store"),
    RuntimeInfo: ("runtime", "runtime"),
    ObserverInfo: ("observer", "observer"),
}
"""By declaration, the kind of its contract and the attribute that names it there."""
KNOWN_SCHEMES = frozenset({"memory", "file", "sqlite"})
"""Of URLs that contracts can make up."""


def main() -> None:
    """Tell what there is to judge, and end."""
    logging.getLogger().addHandler(logging.NullHandler())
    channel = Channel()
    order = channel.order
    channel.begin("plan", order["seconds"])
    try:
        plan = Plan(order)
        subjects = [*plan.subjects()]
        if order["laws"]:
            subjects = [_with_laws(each, order["contracts"]) for each in subjects]
    except LookupError as error:
        channel.tell(missing=str(error))
        channel.close()
        return
    channel.tell(
        name=plan.name,
        distribution=plan.distribution,
        subjects=[each.as_json() for each in subjects],
        gaps=[{"kind": each.kind, "subject": each.subject, "reason": each.reason} for each in plan.gaps],
    )
    channel.close()


class Plan:
    """Subjects in the order in which they are tried, and what can't be one."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.order = order
        self.gaps: list[Gap] = []
        self.distribution = ""
        self.name, self._module, distribution, _ = find(order["plugin"])
        if distribution is not None:
            self.distribution = f"{distribution.name} {distribution.version}"
        self._attributes: dict[str, Any] = {}
        """Of all contracts: how they find the plugin."""
        if distribution is None:
            self._attributes["plugin"] = self._module

    def subjects(self) -> Iterator[Subject]:
        """All of the kinds that were asked for."""
        found = [*self._all()]
        kinds = self.order["kinds"]
        self.gaps = [each for each in self.gaps if not kinds or each.kind in kinds]
        chosen = [each for each in found if not kinds or each.kind in kinds]
        names = list(CONTRACTS)
        yield from sorted(
            chosen, key=lambda each: names.index(each.kind) if each.kind in names else len(names)
        )

    def _all(self) -> Iterator[Subject]:
        own = _own(self.order["contracts"]) if self.order["contracts"] else []
        if not any(each.kind == "plugin" for each in own):
            yield of_plugin(self.order["plugin"], self.order["url"])
        if own:
            yield from own
            return
        settings = load_settings()
        registry = Registry.build(
            settings, modules=[] if self.distribution else [import_module(self._module)]
        )
        plugin = next((each for each in registry.plugins if each.name == self.name), None)
        if plugin is None:
            faults = [each for each in (*registry.faults, *registry.left_out) if each.plugin == self.name]
            said = "; ".join(f"it {each.message}. Mend: {each.mend}" for each in faults)
            self.gaps.append(Gap("plugin", self.name, f"it could not be loaded: {said or 'it is not there'}"))
            return
        factories = set()
        for info in plugin.declared:
            if self.order["profile"] == "smoke" and isinstance(info, TransformInfo):
                if info.factory in factories:
                    continue
                factories.add(info.factory)
            if isinstance(info, BackendInfo):
                yield from self._backend(info, plugin, registry, settings)
            elif type(info) in SIMPLE:
                kind, attribute = SIMPLE[type(info)]
                yield from self._simple(info, kind, attribute)

    def _simple(self, info: Info | ModelCard, kind: str, attribute: str) -> Iterator[Subject]:
        attributes = {**self._attributes, attribute: info.name}
        if isinstance(info, (StorageInfo, StoreInfo)):
            url = self.order["url"]
            if url is not None and urlsplit(url).scheme in info.schemes:
                attributes[FRESH] = url
            elif not info.schemes & KNOWN_SCHEMES:
                mend = f"name a place that may be written to (--url {min(info.schemes)}://...)"
                reason = f"there is no URL to judge {info.name!r} on. Mend: {mend}"
                self.gaps.append(Gap(kind, info.name, reason))
                return
        yield Subject(kind, info.name, CONTRACTS[kind], attributes)

    def _backend(
        self, info: BackendInfo, plugin: Plugin, registry: Registry, settings: Settings
    ) -> Iterator[Subject]:
        wanted = self.order["kinds"] or (
            ["backend"] if self.order["profile"] == "smoke" else ["backend", "lifecycle"]
        )
        kinds = [each for each in ("backend", "lifecycle") if each in wanted]
        if not kinds:
            return
        model, reason = self._model(info, plugin, registry, settings)
        for kind in kinds:
            if model is None:
                self.gaps.append(Gap(kind, info.name, reason))
                continue
            attributes = {**self._attributes, "backend": info.name, "model": model}
            if self.order["checkpoint"]:
                attributes["checkpoint"] = self.order["checkpoint"]
            title = f"{info.name} on {self.order['checkpoint'] or model}"
            yield Subject(kind, title, CONTRACTS[kind], attributes)

    def _model(
        self, info: BackendInfo, plugin: Plugin, registry: Registry, settings: Settings
    ) -> tuple[str | None, str]:
        """A model that it can serve here, or why there is none."""
        if self.order["model"] or self.order["checkpoint"]:
            return self.order["model"] or "conformance", ""
        own = [each for each in plugin.declared if isinstance(each, ModelCard)]
        others = [each for each in registry.models.values() if each not in own]
        refused: list[str] = []
        for card in [*sorted(own, key=_size), *sorted(others, key=_size)]:
            spec = ModelSpec(name="conformance", model=card.name, inference_framework=info.name)
            try:
                facts = asyncio.run(inspect(spec, card, registry, settings, afar=False))
                plan = resolve(spec, registry.declarations, facts)
            except LLMEngineError as error:
                refused.append(f"{card.name}: {error.message}")
                continue
            if plan.chosen is not None and facts.checkpoint.path is None:
                refused.append(f"{card.name}: its weights are not on this machine")
            elif plan.chosen is not None:
                return card.name, ""
            else:
                refused.append(f"{card.name}: {resolution_error(plan).message}")
        tried = "\n".join(refused[:3]) or "no model is known by name"
        return None, (
            f"there is no model here to judge {info.name!r} on. Mend: name one that it can serve (--model), or a "
            f"checkpoint (--checkpoint-path). What was tried:\n{tried}"
        )


def _own(source: str) -> list[Subject]:
    """An author's contracts. Raises ``LookupError`` where there are none to be had."""
    try:
        found = [*of_file(source)]
    except Exception as error:
        raise LookupError(f"the contracts {source!r} can't be imported: {describe_error(error)}") from None
    if not found:
        raise LookupError(f"{source!r} has no contract: no class that inherits one of llmengine_core.testing")
    return found


def _size(card: ModelCard) -> tuple[int, str]:
    return card.parameters, card.name


def _with_laws(subject: Subject, source: str | None) -> Subject:
    laws = tuple(sorted(contract_of(subject, source).laws()))
    return Subject(subject.kind, subject.subject, subject.contract, subject.attributes, laws)
