"""The command ``llmengine`` itself: where its commands come from, and how it ends."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

import click

from llmengine_core.cli.console import Console, common_options
from llmengine_core.cli.exits import EXIT_CODES, exit_code, report
from llmengine_core.errors import LLMEngineError

if TYPE_CHECKING:
    from llmengine_core.types.plan import PluginFault

__all__ = ["cli"]

COMMANDS = {
    "cache": "llmengine_core.cli.cache:cache",
    "complete": "llmengine_core.cli.complete:complete",
    "completion": "llmengine_core.cli.about:completion",
    "conformance": "llmengine_core.cli.conformance:conformance",
    "doctor": "llmengine_core.cli.doctor:doctor",
    "engines": "llmengine_core.cli.engines:engines",
    "explain": "llmengine_core.cli.explain:explain",
    "files": "llmengine_core.cli.files:files",
    "models": "llmengine_core.cli.models:models",
    "plugins": "llmengine_core.cli.plugins:plugins",
    "transforms": "llmengine_core.cli.transforms:transforms",
    "version": "llmengine_core.cli.about:version",
}
"""The core's own commands; each is imported when it is asked for."""
PROGRAM = "llmengine"
ASKED_BY_SHELL = "_LLMENGINE_COMPLETE"
"""Set by a shell that wants to know how a command goes on."""


class CommandLine(click.Group):
    """The core's commands, and those of plugins; neither is imported before it is needed."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self._plugins_asked = False
        self._plugin_faults: tuple[PluginFault, ...] = ()

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> NoReturn:
        """Run a command, say what went wrong, and exit with the code for it."""
        if ASKED_BY_SHELL in os.environ:
            super().main(args, *rest, **extra | {"complete_var": ASKED_BY_SHELL})
        program = extra.pop("prog_name", PROGRAM)
        console = Console()
        code = 0
        try:
            arguments = sys.argv[1:] if args is None else list(args)
            with self.make_context(program, arguments, obj=console, **extra) as context:
                self.invoke(context)
            sys.stdout.flush()
        except click.exceptions.Exit as end:
            code = end.exit_code
        except BaseException as error:
            console.clear()
            report(error, debug=console.debug)
            code = exit_code(error)
        sys.exit(code)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command's name."""
        self._ask_plugins(ctx)
        return sorted({*COMMANDS, *self.commands})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The core's command of that name, or a plugin's."""
        if cmd_name in COMMANDS:
            if cmd_name not in self.commands:
                module, _, name = COMMANDS[cmd_name].partition(":")
                self.add_command(getattr(import_module(module), name))
        else:
            self._ask_plugins(ctx)
        return self.commands.get(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the arguments begin with; where there is none, why not, or what was meant."""
        name = args[0]
        if self.get_command(ctx, name) is None and not ctx.resilient_parsing:
            for fault in self._plugin_faults:
                if fault.plugin == name:
                    raise click.UsageError(described(fault), ctx)
            close = difflib.get_close_matches(name, self.list_commands(ctx), n=3)
            hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
            raise click.UsageError(f"No such command {name!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def _ask_plugins(self, ctx: click.Context) -> None:
        """Let every plugin add its command, once. One that can't harms nobody else."""
        if self._plugins_asked:
            return
        self._plugins_asked = True
        from llmengine_core.registry import Registry
        from llmengine_core.settings import load_settings

        console = ctx.ensure_object(Console)
        try:
            registry = Registry.build(load_settings())
        except LLMEngineError as error:
            warnings = [f"the commands of plugins are left out: {error.message}"]
        else:
            faults = registry.add_commands(self)
            self._plugin_faults = (*registry.faults, *registry.left_out, *faults)
            warnings = [described(fault) for fault in faults]
        if not ctx.resilient_parsing:
            for warning in warnings:
                console.note(f"Warning: {warning}")


def described(fault: PluginFault) -> str:
    """What is wrong with a plugin, and what mends it."""
    mend = f". Mend: {fault.mend}" if fault.mend else ""
    return f"the plugin {fault.plugin!r} {fault.message}{mend}"


@click.group(
    cls=CommandLine,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExit codes:\n" + "\n".join(f"  {each.code:3}  {each.meaning}" for each in EXIT_CODES),
)
@click.version_option(package_name="llmengine-core")
@common_options
def cli() -> None:
    """One interface to many LLM engines.

    Results go to standard output, messages and progress to standard error.
    """
