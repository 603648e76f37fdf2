"""The reference of the command line is what the command line says of itself.

``python tests/docs/test_cli_reference.py`` writes it anew.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from llmengine_core.cli.exits import EXIT_CODES
from llmengine_core.cli.root import COMMANDS, cli

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"
HEAD = """\
# The command line

`llmengine COMMAND [OPTIONS] [ARGUMENTS]`. Results go to standard output, messages and progress to standard error.
Every command takes `--help`, and besides its own options these:

| option | |
|---|---|
"""
EXITS = """
## Exit codes

| code | meaning |
|---|---|
"""
COMMON = ("quiet", "debug")


def page() -> str:
    """The whole page."""
    context = click.Context(cli, info_name="llmengine")
    common = [each for each in cli.params if each.name in COMMON]
    text = HEAD + "".join(rows(common, context))
    text += EXITS + "".join(f"| {each.code} | {each.meaning} |\n" for each in EXIT_CODES)
    for name in sorted(COMMANDS):
        command = cli.get_command(context, name)
        assert command is not None
        text += "".join(sections(command, context, name))
    return text


def sections(command: click.Command, parent: click.Context, name: str) -> Iterator[str]:
    """A command, and those below it."""
    context = click.Context(command, info_name=name, parent=parent)
    if isinstance(command, click.Group):
        yield f"\n## {context.command_path}\n\n{command.help}\n"
        for below in command.list_commands(context):
            yield from sections(command.commands[below], context, below)
        return
    arguments = [each.make_metavar(context) for each in command.params if isinstance(each, click.Argument)]
    level = "##" if parent.parent is None else "###"
    yield f"\n{level} {context.command_path}\n\n`{' '.join([context.command_path, *arguments])}`\n"
    yield f"\n{inspect.cleandoc(command.help or '')}\n"
    options = [each for each in command.params if each.name not in COMMON and isinstance(each, click.Option)]
    if options:
        yield "\n| option | |\n|---|---|\n"
        yield from rows(options, context)
    if command.epilog:
        yield "\n```text\n" + inspect.cleandoc(command.epilog.removeprefix("\b\n")) + "\n```\n"


def rows(options: Sequence[click.Parameter], context: click.Context) -> Iterator[str]:
    """A row for each option."""
    for option in options:
        record = option.get_help_record(context)
        assert record is not None
        names, explanation = (" ".join(each.split()).replace("|", "\\|") for each in record)
        yield f"| `{names}` | {explanation} |\n"


def test_the_reference_is_what_the_command_line_says() -> None:
    assert PAGE.read_text() == page(), "python tests/docs/test_cli_reference.py writes it anew"


if __name__ == "__main__":
    PAGE.write_text(page())
