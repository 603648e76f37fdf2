"""``llmengine explain``: how a model would be served, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from llmengine_core.cli.console import Console, common_options, json_option
from llmengine_core.cli.exits import NOTHING_FITS
from llmengine_core.cli.spec_options import (
    changeable_options,
    framework_option,
    given_spec,
    spec_file_option,
)

__all__ = ["explain"]


@click.command(short_help="Explain what would serve a model, and why.")
@click.argument("base", required=False)
@framework_option
@changeable_options
@spec_file_option
@json_option
@common_options
@click.pass_context
def explain(context: click.Context, /, base: str | None, spec_file: Path | None, **options: Any) -> None:
    """Explain what would serve the base model BASE, and what would not: every rule and every mend.

    Nothing is changed and no engine is started. The exit code is 4 where nothing fits.
    """
    import asyncio

    from llmengine_core import explanation
    from llmengine_core.inspection import inspect
    from llmengine_core.registry import Registry
    from llmengine_core.resolution import resolve
    from llmengine_core.settings import load_settings

    if base is not None:
        options["model"] = base
    spec = given_spec(None, spec_file, options)
    settings = load_settings()
    registry = Registry.build(settings)
    facts = asyncio.run(inspect(spec, registry.models.get(spec.model), registry, settings))
    plan = resolve(spec, registry.declarations, facts)
    context.ensure_object(Console).result(plan, explanation.explain(plan))
    if plan.chosen is None:
        context.exit(NOTHING_FITS)
