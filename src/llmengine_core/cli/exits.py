"""What a script learns from the command line: exit codes, and one message for each error."""

from __future__ import annotations

import os
import sys
import traceback
from dataclasses import dataclass

import click

from llmengine_core.errors import (
    BadRequestError,
    LLMEngineError,
    NotFoundError,
    RateLimitExceededError,
    RequestTimeoutError,
    ResolutionError,
)

__all__ = ["EXIT_CODES", "NOTHING_FITS", "ExitCode", "exit_code", "report"]


@dataclass(frozen=True, slots=True)
class ExitCode:
    """One exit code, and the errors that end in it: the most special class decides."""

    code: int
    meaning: str
    errors: tuple[type[BaseException], ...] = ()


NOTHING_FITS = 4

EXIT_CODES = (
    ExitCode(0, "done"),
    ExitCode(
        1, "llmengine or an engine failed, or doctor or conformance found something broken", (BaseException,)
    ),
    ExitCode(2, "the command or the request must change", (BadRequestError, click.UsageError)),
    ExitCode(3, "there is no such model, file or environment", (NotFoundError,)),
    ExitCode(NOTHING_FITS, "nothing here can serve the model", (ResolutionError,)),
    ExitCode(5, "over a limit, or the queue is full; try again later", (RateLimitExceededError,)),
    ExitCode(6, "the timeout ran out", (RequestTimeoutError,)),
    ExitCode(130, "interrupted (Ctrl-C)", (KeyboardInterrupt, click.Abort)),
    ExitCode(141, "nobody reads the output any more", (BrokenPipeError,)),
)
_BY_CLASS = {kind: each.code for each in EXIT_CODES for kind in each.errors}


def exit_code(error: BaseException) -> int:
    """The exit code that an error ends in."""
    return next(_BY_CLASS[kind] for kind in type(error).__mro__ if kind in _BY_CLASS)


def report(error: BaseException, *, debug: bool) -> None:
    """Say on standard error what went wrong; with ``debug``, also where."""
    if isinstance(error, BrokenPipeError):
        # What is still buffered has nowhere to go; the interpreter must not fail on it as it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    elif isinstance(error, (KeyboardInterrupt, click.Abort)):
        if sys.stderr.isatty():  # behind its "^C"
            click.echo(err=True)
    elif debug:
        traceback.print_exception(error)
    elif isinstance(error, click.ClickException):
        error.show()
    elif isinstance(error, LLMEngineError):
        click.echo(f"Error: {error.message}", err=True)
    else:
        click.echo(f"Error: {type(error).__name__}: {error}\n{UNEXPECTED}", err=True)


UNEXPECTED = "This is a fault of llmengine's; the same command with --debug shows where it happened."
