"""``llmengine plugins``: what loaded, and what did not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from llmengine_core.cli.console import Console, common_options, json_option, pass_console

if TYPE_CHECKING:
    from llmengine_core.plugins import Plugin
    from llmengine_core.registry import Registry
    from llmengine_core.types.plan import PluginFault

__all__ = ["plugins"]


@click.command(short_help="Show the plugins, and why one failed.")
@json_option
@common_options
@pass_console
def plugins(console: Console) -> None:
    """Show what plugins are here, what they register, and why one failed."""
    from llmengine_core.registry import Registry
    from llmengine_core.settings import load_settings

    registry = Registry.build(load_settings())
    value = {
        "plugins": [
            {"name": each.name, "distribution": each.distribution, "registers": registered(each)}
            for each in registry.plugins
        ],
        "failed": registry.faults,
        "left_out": registry.left_out,
    }
    console.result(value, _lines(registry))


def registered(plugin: Plugin) -> dict[str, list[str]]:
    """The names that a plugin registers, by kind."""
    from llmengine_core.registry import KINDS

    found: dict[str, list[str]] = {}
    for info in plugin.declared:
        found.setdefault(KINDS[type(info)], []).append(info.name)
    return found


def _lines(registry: Registry) -> Iterator[str]:
    width = max((len(each.name) for each in registry.plugins), default=0)
    for plugin in registry.plugins:
        names = "; ".join(f"{kind} {', '.join(names)}" for kind, names in registered(plugin).items())
        origin = f" ({plugin.distribution})" if plugin.distribution else ""
        yield f"{plugin.name.ljust(width)}  {names}{origin}"
    yield from _faults("failed", registry.faults)
    yield from _faults("left out", registry.left_out)


def _faults(title: str, faults: tuple[PluginFault, ...]) -> Iterator[str]:
    for each in faults:
        origin = f" ({each.distribution})" if each.distribution else ""
        yield f"{title}: {each.plugin}{origin} {each.message}"
        if each.mend:
            yield f"    mend: {each.mend}"
