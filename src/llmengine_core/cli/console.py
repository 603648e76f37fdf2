"""Where a command's words go, and the options that every command has for it."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from llmengine_core.cli.output import as_json

if TYPE_CHECKING:
    from llmengine_core.cli.progress import ProgressLine

__all__ = ["Console", "common_options", "json_option", "pass_console"]

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(slots=True)
class Console:
    """Results go to standard output, everything else to standard error."""

    quiet: bool = False
    debug: bool = False
    json: bool = False
    progress: ProgressLine | None = None
    """What is shown of work that goes on."""

    @property
    def shows_progress(self) -> bool:
        """Whether somebody watches who wants to see how far work has come."""
        return not self.quiet and sys.stderr.isatty()

    def result(self, value: object, text: str | Iterable[str]) -> None:
        """Print a result: ``value`` where JSON was asked for, else ``text``, a line or several."""
        if self.json:
            self.line(as_json(value, indent=2))
        else:
            for line in [text] if isinstance(text, str) else text:
                self.line(line)

    def line(self, text: str) -> None:
        """Print a line of a result."""
        self.clear()
        sys.stdout.buffer.write(_encoded(f"{text}\n"))
        sys.stdout.buffer.flush()

    async def write(self, piece: str | bytes) -> None:
        """Print a piece of a result as it is, at once.

        A reader that falls behind holds up neither the event loop nor Ctrl-C.
        """
        from llmengine_core.cli.descriptors import writable

        self.clear()
        rest = memoryview(piece if isinstance(piece, bytes) else _encoded(piece))
        try:
            output = sys.stdout.fileno()
        except OSError:  # it was replaced by something in memory
            sys.stdout.buffer.write(rest)
            return
        while rest:
            await writable(output)
            rest = rest[os.write(output, rest[: select.PIPE_BUF]) :]

    def note(self, text: str) -> None:
        """Tell a person something that is no result."""
        self.clear()
        if not self.quiet:
            click.echo(text, err=True)

    def clear(self) -> None:
        """Take away what is shown of work that goes on."""
        if self.progress is not None:
            self.progress.clear()


def _encoded(text: str) -> bytes:
    """A text as standard output wants it; what it can't write is shown as "?"."""
    return text.encode(sys.stdout.encoding, "replace")


pass_console = click.make_pass_decorator(Console, ensure=True)
"""Hands a command the program's console as its first argument."""


def _switch(field: str, explanation: str, *names: str) -> Callable[[F], F]:
    def turn_on(context: click.Context, _: click.Parameter, on: bool) -> None:
        if on:
            setattr(context.ensure_object(Console), field, True)

    return click.option(
        *names, is_flag=True, expose_value=False, is_eager=True, callback=turn_on, help=explanation
    )


def common_options(function: F) -> F:
    """``--quiet`` and ``--debug``."""
    quiet = _switch("quiet", "Nothing on standard error but errors.", "-q", "--quiet")
    debug = _switch("debug", "Show where an error happened, and what is logged.", "--debug")
    return quiet(debug(function))


json_option = _switch("json", "Print the result as JSON.", "--json")
