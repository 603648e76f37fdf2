"""``llmengine conformance``: a plugin under its contracts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from llmengine_core.cli.console import Console, common_options, json_option

if TYPE_CHECKING:
    from llmengine_core.testing.conformance.report import Judged, Report
    from llmengine_core.testing.conformance.running import Asked
    from llmengine_core.testing.conformance.subjects import Subject

__all__ = ["conformance"]

KINDS = (
    "plugin", "backend", "lifecycle", "guided", "transform", "quantizer", "storage", "store", "runtime", "observer",
)  # fmt: skip
PROFILES = ("smoke", "default", "thorough")


@click.command(short_help="Try a plugin's contracts.")
@click.argument("plugin")
@click.option("--kind", "kinds", multiple=True, type=click.Choice(KINDS), help="Only contracts of this kind.")
@click.option(
    "--profile", type=click.Choice(PROFILES), default="default", show_default=True, help="How thorough it is."
)
@click.option("--model", help="The model to judge backends on.  [default: one that each can serve]")
@click.option("--checkpoint-path", metavar="PATH", help="A checkpoint to judge backends on.")
@click.option("--url", help="Below which, or with {} in which, storages and stores may keep things.")
@click.option(
    "--contracts", metavar="FILE|MODULE", help="The plugin's own test file: its contracts with their quirks."
)
@click.option("--law", "laws", metavar="NAME", multiple=True, help="Only laws of this name.")
@click.option("--markdown", is_flag=True, help="Print the result as a table for a page.")
@json_option
@common_options
@click.pass_context
def conformance(
    context: click.Context,
    plugin: str,
    kinds: tuple[str, ...],
    profile: str,
    model: str | None,
    checkpoint_path: str | None,
    url: str | None,
    contracts: str | None,
    laws: tuple[str, ...],
    markdown: bool,
) -> None:
    """Try the contracts of all that a plugin declares, and say which laws hold.

    PLUGIN is the name of an entry point, of a distribution, or of a module. Each contract is tried in a process of
    its own: whatever the plugin does, the run comes to an end. The exit code is 1 where a law fails; known quirks
    leave it 0.

    The profile smoke is for while you write: few examples, no restarts of engines, and of transforms with one factory
    the first alone.
    """
    import os

    try:
        from llmengine_core.testing.conformance.report import markdown as as_markdown
        from llmengine_core.testing.conformance.report import text
        from llmengine_core.testing.conformance.running import Asked, NothingAsked
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("llmengine"):
            raise
        message = (
            f"the contract kit needs {error.name}. Mend: python -m pip install 'llmengine-core[testing]'"
        )
        raise click.UsageError(message, context) from None
    if contracts is not None and contracts.endswith(".py") and not os.path.isfile(contracts):
        raise click.BadParameter(f"{contracts!r} is no file", context, param_hint="--contracts")
    console = context.ensure_object(Console)
    asked = Asked(
        plugin=plugin,
        kinds=kinds,
        profile=profile,
        model=model,
        checkpoint=checkpoint_path,
        url=url,
        contracts=contracts,
        laws=laws,
    )
    try:
        report = _judged(console, asked)
    except NothingAsked as error:
        raise click.UsageError(str(error), context) from None
    console.result(report.as_json(), as_markdown(report) if markdown else text(report))
    if not report.holds:
        context.exit(1)


def _judged(console: Console, asked: Asked) -> Report:
    """The report; how far it is, is shown on a terminal meanwhile."""
    import asyncio
    from pathlib import Path

    from llmengine_core.cli.progress import ProgressLine
    from llmengine_core.testing.conformance.running import folder, judge
    from llmengine_core.types.progress import Progress

    if console.shows_progress:
        console.progress = ProgressLine()

    def begun(subject: Subject, law: str, done: int, total: int) -> None:
        if console.progress is not None:
            title = f"{subject.kind} {subject.subject}"
            console.progress(Progress(title, law.removeprefix("test_"), done, total))

    def ended(judged: Judged) -> None:
        failed = sum(each.outcome == "failed" for each in judged.verdicts)
        if console.shows_progress and failed:
            console.note(f"{judged.kind} {judged.subject}: {failed} of {len(judged.verdicts)} laws failed")

    try:
        with folder() as work:
            return asyncio.run(judge(asked, Path(work), on_begin=begun, on_end=ended))
    finally:
        console.clear()
