"""What contracts by name judge: a declaration of a plugin that is installed, or of a module that is named."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from types import ModuleType
from typing import Any, TypeVar

from llmengine_core.registry import KINDS, Registry
from llmengine_core.settings import Settings
from llmengine_core.types.declarations import Info, ObserverInfo, RuntimeInfo, TransformInfo

__all__ = ["find_declared", "registry_of"]

InfoT = TypeVar("InfoT", bound=Info)


@cache
def registry_of(settings: Settings, *plugins: str) -> Registry:
    """All that is installed, and the modules with these names; "" is none."""
    modules: list[ModuleType] = [importlib.import_module(name) for name in plugins if name]
    return Registry.build(settings, modules=modules)


def find_declared(registry: Registry, kind: type[InfoT], name: str) -> InfoT:
    """The declaration of that name. Raises ``AssertionError`` that says which there are, and what failed."""
    found: Mapping[type, Mapping[str, Any]] = {
        RuntimeInfo: registry.runtimes,
        TransformInfo: registry.transforms,
        ObserverInfo: registry.observers,
    }
    known = found[kind]
    if name not in known:
        faults = "".join(f"\n  {each.plugin} {each.message}" for each in registry.faults)
        raise AssertionError(
            f"no plugin registers the {KINDS[kind]} {name!r}, but: {', '.join(sorted(known)) or 'none'}{faults}"
        )
    info: InfoT = known[name]
    return info
