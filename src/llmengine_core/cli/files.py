"""``llmengine files``: content that is kept for later use."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from llmengine_core.cli.console import Console, common_options, json_option, pass_console
from llmengine_core.cli.output import fields_of, size_text, table

__all__ = ["files"]


@click.group()
def files() -> None:
    """Upload, look at, download and delete files."""


@files.command("list")
@json_option
@common_options
@pass_console
def list_(console: Console) -> None:
    """List your files."""
    from llmengine_core.cli.running import caller, run
    from llmengine_core.responses import file_response

    records = run(console, lambda engine: engine.files.list(caller=caller()))
    rows = [(r.id, size_text(r.size), _when(r.created_at), r.filename) for r in records]
    console.result(
        {"files": [file_response(record) for record in records]},
        table(("ID", "SIZE", "UPLOADED", "NAME"), rows),
    )


@files.command()
@click.argument("path", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("--filename", help="The name to show; by default the name of the file.")
@json_option
@common_options
@pass_console
def upload(console: Console, path: str, filename: str | None) -> None:
    """Upload the file PATH and print its id; "-" reads standard input."""
    from llmengine_core.cli.running import run
    from llmengine_core.cli.transfer import upload_from

    name = filename or ("file" if path == "-" else Path(path).name)
    record = run(console, lambda engine: upload_from(engine, path, name))
    console.result({"id": record.id}, record.id)


@files.command()
@click.argument("file_id")
@json_option
@common_options
@pass_console
def show(console: Console, file_id: str) -> None:
    """Show what is known of a file."""
    from llmengine_core.cli.running import caller, run
    from llmengine_core.responses import file_response

    record = run(console, lambda engine: engine.files.get(file_id, caller=caller()))
    text = {
        "id": record.id,
        "name": record.filename,
        "size": f"{record.size} bytes",
        "uploaded": _when(record.created_at),
    }
    console.result(file_response(record), fields_of(text))


@files.command()
@click.argument("file_id")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to write it, all or nothing; by default it goes to standard output.",
)
@json_option
@common_options
@pass_console
def download(console: Console, file_id: str, output: Path | None) -> None:
    """Print a file's content, or write it to a file.

    With --json the content is a text: as it is where it is UTF-8, else in base64.
    """
    from llmengine_core.cli.running import run
    from llmengine_core.cli.transfer import content_response, print_content, write_content

    if console.json and output is not None:
        raise click.UsageError("--json prints the content; it can't go to --output as well")
    if console.json:
        console.result(run(console, lambda engine: content_response(engine, file_id)), "")
    elif output is not None:
        run(console, lambda engine: write_content(engine, file_id, output))
    else:
        run(console, lambda engine: print_content(engine, file_id, console), silent=sys.stdout.isatty())


@files.command()
@click.argument("file_id")
@json_option
@common_options
@pass_console
def delete(console: Console, file_id: str) -> None:
    """Delete a file."""
    from llmengine_core.cli.running import caller, run

    deleted = run(console, lambda engine: engine.files.delete(file_id, caller=caller()))
    console.result({"deleted": deleted}, f"deleted {file_id}")


@files.command()
@click.option("--dry-run", is_flag=True, help="Only show what would be removed.")
@json_option
@common_options
@pass_console
def sweep(console: Console, dry_run: bool) -> None:
    """Remove what uploads and deletions left that broke off, of all callers.

    Uploads that are under way stay: one is taken for dead when it gave no sign of life for 15 minutes. New uploads
    and `files list` sweep by the way; this sweeps everything.
    """
    from llmengine_core.cli.running import run

    swept = run(console, lambda engine: engine.files.sweep(dry_run=dry_run))
    rows = [(r.id, LEFT[r.status], _when(r.created_at)) for r in swept]
    verb = "to remove" if dry_run else "removed"
    console.result(
        {"swept": [{"id": r.id, "status": r.status, "created_at": r.created_at} for r in swept]},
        [*table(("ID", "LEFT BY", "UPLOADED"), rows), f"{verb}: {len(swept)}"],
    )


LEFT = {"ARRIVING": "an upload", "LEAVING": "a deletion"}
"""Who left a file in which state."""


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).astimezone().isoformat(" ", "minutes")
