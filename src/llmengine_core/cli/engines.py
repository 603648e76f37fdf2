"""``llmengine engines``: the environments that engines run in."""

from __future__ import annotations

import click

from llmengine_core.cli.console import Console, common_options, json_option, pass_console
from llmengine_core.cli.output import table
from llmengine_core.errors import BadRequestError

__all__ = ["engines"]


@click.group(short_help="Install, check and remove engine environments.")
def engines() -> None:
    """Install, list, check and remove the environments that engines run in."""


@engines.command(short_help="Build the environment of NAME.")
@click.argument("name")
@click.option(
    "--version",
    metavar="VERSION",
    help="The engine's version; the default is the one that its plugin prefers.",
)
@click.option(
    "--accelerator",
    type=click.Choice(["cpu", "cuda"]),
    help="What it is to compute on; the default is cpu, where the engine can.",
)
@click.option(
    "--quantize",
    "methods",
    multiple=True,
    metavar="METHOD",
    help="Also what quantizes by this method while a model is loaded; may be given several times.",
)
@json_option
@common_options
@pass_console
def install(
    console: Console, name: str, version: str | None, accelerator: str | None, methods: tuple[str, ...]
) -> None:
    """Build the environment of the backend or transform NAME, unless it is there.

    With uv where that is installed, else with venv and pip. The variables of pip's that name indexes and mirrors
    are honoured by both. One that is broken off leaves nothing but what was downloaded.
    """
    from llmengine_core.cli.environments import described, recipe_for, run_with_progress, state_folder
    from llmengine_core.installing import build, built_already

    if version == "":
        raise BadRequestError("--version is empty; give a version, or leave it out for the preferred one")
    home, recipe = state_folder(), recipe_for(name, version, accelerator, methods)
    there = built_already(home, recipe)
    found = there or run_with_progress(console, lambda news: build(home, recipe, on_progress=news))
    done = "is there already" if there else "is installed"
    title = f"{recipe.engine} {recipe.version} ({recipe.accelerator})"
    console.result({"built": there is None, **described(found)}, f"{title} {done}: {found.folder}")


@engines.command("list")
@json_option
@common_options
@pass_console
def list_(console: Console) -> None:
    """List the environments that were built here."""
    from llmengine_core.cli.environments import HEADER, described, row, state_folder
    from llmengine_core.environments import listed

    found = listed(state_folder())
    value = {"environments": [described(each) for each in found]}
    console.result(value, table(HEADER, [row(each) for each in found]))


@engines.command(short_help="Try environments out.")
@click.argument("name", required=False)
@json_option
@common_options
@click.pass_context
def check(context: click.Context, name: str | None) -> None:
    """Try the environments of NAME, or all, by importing what they are for.

    NAME is an engine, or an environment as they are listed. Versions are compared with those that were
    installed. The exit code is 1 where one is broken.
    """
    from llmengine_core.cli import environments

    console = context.ensure_object(Console)
    found = environments.named(environments.state_folder(), name)
    faults = environments.run_with_progress(console, lambda news: environments.check_all(found, news))
    value, lines = [], []
    for each, wrong in zip(found, faults, strict=True):
        mend = environments.mend(each) if wrong else None
        value.append({**environments.described(each), "faults": wrong, "mend": mend})
        lines.append(f"{'broken' if wrong else 'ok':6}  {each.folder.name}")
        lines += [f"{'':8}{fault}" for fault in wrong]
        lines += [f"{'':8}mend: {mend}"] if mend else []
    console.result({"environments": value}, lines)
    if any(faults):
        context.exit(1)


@engines.command(short_help="Remove the environments of NAME.")
@click.argument("name")
@click.option("--force", is_flag=True, help="Also while a process runs in it.")
@json_option
@common_options
@pass_console
def remove(console: Console, name: str, force: bool) -> None:
    """Remove the environments of NAME, an engine, or the one environment NAME, as they are listed.

    One that a process runs in stays, unless that is forced.
    """
    from llmengine_core.cli.environments import named, remove_all, run_with_progress, state_folder

    home = state_folder()
    found = named(home, name)
    run_with_progress(console, lambda news: remove_all(home, found, news, force=force))
    names = [each.folder.name for each in found]
    console.result({"removed": names}, [f"removed {each}" for each in names])
