"""Where a plugin is: by the name of its entry point, of its distribution, or of its module. Nothing is imported."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import metadata, util
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path
from typing import Any

from llmengine_core.hookspecs import GROUP
from llmengine_core.recipes import canonical

__all__ = ["find", "folders", "told"]


def find(plugin: str) -> tuple[str, str, Distribution | None, EntryPoint | None]:
    """The plugin's name, its module, and where it is installed: by the name of its entry point, of its distribution,
    or of a module. Raises ``LookupError`` that says what there is.
    """
    entries: list[tuple[Distribution, EntryPoint]] = []
    for distribution in metadata.distributions():
        try:
            entries += [(distribution, entry) for entry in distribution.entry_points.select(group=GROUP)]
        except Exception:
            if canonical(str(distribution.name)) == canonical(plugin):
                raise
    tests: Iterable[Callable[[Distribution, EntryPoint], bool]] = (
        lambda _, entry: entry.name == plugin,
        lambda distribution, _: canonical(str(distribution.name)) == canonical(plugin),
        lambda _, entry: entry.module == plugin,
        lambda _, entry: entry.module.partition(".")[0] == plugin,
    )
    for test in tests:
        fit = {
            (entry.name, entry.value): (each, entry) for each, entry in reversed(entries) if test(each, entry)
        }
        if len(fit) > 1:
            names = ", ".join(sorted(entry.name for _, entry in fit.values()))
            raise LookupError(f"{plugin!r} brings several plugins: {names}; name one of them")
        for distribution, entry in fit.values():
            return entry.name, entry.module, distribution, entry
    top = plugin.partition(".")[0]
    if not top.isidentifier() or util.find_spec(top) is None:
        known = ", ".join(sorted({entry.name for _, entry in entries})) or "none"
        raise LookupError(
            f"there is no plugin {plugin!r}: no entry point of the group {GROUP!r}, no distribution and no module has "
            f"that name; installed are {known}"
        )
    return plugin.rpartition(".")[2], plugin, None, None


def folders(module: str) -> list[str]:
    """Where a module's package has its files."""
    spec = util.find_spec(module.partition(".")[0])
    if spec is None:
        return []
    return list(spec.submodule_search_locations or ([str(Path(spec.origin).parent)] if spec.origin else []))


def told(distribution: Distribution | None, entry: EntryPoint | None) -> dict[str, Any] | None:
    """What a distribution says of itself and of a plugin; None where there is none."""
    if distribution is None or entry is None:
        return None
    return {
        "distribution": str(distribution.name),
        "version": str(distribution.version),
        "requires": list(distribution.requires or ()),
        "entry": entry.name,
        "value": entry.value,
        "core": metadata.version("llmengine-core"),
    }
