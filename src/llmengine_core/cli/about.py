"""``llmengine version`` and ``llmengine completion``."""

from __future__ import annotations

from importlib import metadata

import click

from llmengine_core.cli.console import Console, common_options, json_option, pass_console

__all__ = ["completion", "version"]

SHELLS = ("bash", "zsh", "fish")


@click.command(short_help="Print what is installed of llmengine, with versions.")
@json_option
@common_options
@pass_console
def version(console: Console) -> None:
    """Print the versions of what is installed of llmengine."""
    found = {"llmengine-core": metadata.version("llmengine-core")}
    for entry in metadata.entry_points(group="llmengine"):
        if entry.dist is not None:
            found[entry.dist.name] = entry.dist.version
    console.result(found, [f"{name} {number}" for name, number in sorted(found.items())])


@click.command(
    short_help="Print the script for a shell's completion.",
    epilog='\b\nbash, in ~/.bashrc:                    eval "$(llmengine completion bash)"\n'
    'zsh, in ~/.zshrc:                      eval "$(llmengine completion zsh)"\n'
    "fish, in ~/.config/fish/config.fish:   llmengine completion fish | source",
)
@click.argument("shell", type=click.Choice(SHELLS))
@common_options
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes llmengine's commands in a shell."""
    from click.shell_completion import get_completion_class

    from llmengine_core.cli.root import ASKED_BY_SHELL, PROGRAM

    kind = get_completion_class(shell)
    assert kind is not None
    root = context.find_root().command
    source = kind(root, {}, PROGRAM, ASKED_BY_SHELL).source()
    context.ensure_object(Console).line(source)
