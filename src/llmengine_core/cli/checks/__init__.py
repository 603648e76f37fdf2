"""What ``llmengine doctor`` looks at. Each check stands by itself: one that fails says so, and hides no other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from llmengine_core.cli.checks.finding import Finding
from llmengine_core.cli.checks.machine import clock, home, packages, sockets
from llmengine_core.cli.checks.serving import engines, guided, models, plugins
from llmengine_core.cli.checks.stores import database, storage
from llmengine_core.errors import LLMEngineError
from llmengine_core.plugins import describe_error
from llmengine_core.registry import Registry
from llmengine_core.settings import load_settings

__all__ = ["CHECKS", "examine"]

CHECKS = {
    check.__name__: check
    for check in (packages, plugins, home, database, storage, sockets, engines, guided, models, clock)
}
"""By what they look at; what explains others comes first."""


def examine() -> Iterator[Finding]:
    """Make every check, one after the other."""
    try:
        settings = load_settings()
    except LLMEngineError as error:
        yield Finding("broken", f"{error.message} Nothing else was checked.", None, "settings")
        return
    registry = Registry.build(settings)
    for name, check in CHECKS.items():
        try:
            for finding in check(settings, registry):
                yield replace(finding, check=name)
        except Exception as error:
            yield Finding("broken", f"the check itself failed: {describe_error(error)}", None, name)
