"""``llmengine transforms``: offline work on checkpoints."""

from __future__ import annotations

from pathlib import Path

import click

from llmengine_core.cli.console import Console, common_options, json_option, pass_console
from llmengine_core.cli.output import size_text, table

__all__ = ["transforms"]


@click.group()
def transforms() -> None:
    """List what converts or quantizes checkpoints, and run it."""


@transforms.command("list")
@json_option
@common_options
@pass_console
def list_(console: Console) -> None:
    """List the transforms that plugins register, and where each can run."""
    from llmengine_core.cli.transforming import HEADER, known_transforms, row

    found = known_transforms()
    console.result({"transforms": found}, table(HEADER, [row(each) for each in found]))


@transforms.command()
@click.argument("name")
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option(
    "--method", metavar="METHOD", help="How to quantize; only where the transform has several ways."
)
@click.option("--force", is_flag=True, help="Put the result in the place of the file or flat folder TARGET.")
@json_option
@common_options
@pass_console
def run(console: Console, name: str, source: Path, target: Path, method: str | None, force: bool) -> None:
    """Make the checkpoint TARGET of SOURCE by the transform NAME, and print where it is.

    Both are files or folders, as their formats have it. TARGET appears once it is whole; what is broken off leaves
    nothing behind, and SOURCE is never changed.
    """
    from llmengine_core.cli.environments import run_with_progress
    from llmengine_core.cli.transforming import transform

    made = run_with_progress(
        console, lambda news: transform(name, source, target, method=method, force=force, on_progress=news)
    )
    console.note(f"{size_text(made['size'])} were written")
    console.result(made, str(made["target"]))
