"""``llmengine complete``: text from a model."""

from __future__ import annotations

from typing import Any

import click

from llmengine_core.cli.console import Console, common_options, json_option, pass_console
from llmengine_core.cli.given import json_object, read_input, text_or_file

__all__ = ["complete"]

DEFAULT_MODEL = "smollm2-135m-instruct"


@click.command(short_help="Let a model go on with a text.")
@click.argument("prompt")
@click.option("--model", default=DEFAULT_MODEL, show_default=True, help="What answers.")
@click.option("--max-new-tokens", type=int, default=20, show_default=True, help="Most tokens to generate.")
@click.option("--temperature", type=float, default=0.2, show_default=True, help="0 to 1; 0 is greedy.")
@click.option("--top-k", type=int, help="Sample among this many likeliest tokens; -1 is all.")
@click.option("--top-p", type=float, help="Sample among the likeliest tokens that reach this sum; up to 1.")
@click.option("--presence-penalty", type=float, help="0 to 2; against tokens that came before.")
@click.option("--frequency-penalty", type=float, help="0 to 2; against tokens for each time they came.")
@click.option("--stop", multiple=True, metavar="TEXT", help="End before this text; may be given again.")
@click.option("--include-stop-str-in-output", is_flag=True, help="Keep the text that ended it.")
@click.option("--log-probs", is_flag=True, help="Give each token's log probability; only with --json.")
@click.option(
    "--guided-json", metavar="TEXT|@FILE", callback=text_or_file, help="Answer in JSON by this schema."
)
@click.option("--guided-regex", metavar="PATTERN", help="Answer with a text that matches this pattern whole.")
@click.option("--guided-choice", multiple=True, metavar="TEXT", help="Answer with this; may be given again.")
@click.option(
    "--guided-grammar",
    metavar="TEXT|@FILE",
    callback=text_or_file,
    help="Answer by this grammar, in Lark or GBNF.",
)
@click.option("--timeout", type=float, default=300, show_default=True, help="Seconds for everything.")
@click.option(
    "--stream/--no-stream",
    default=None,
    help="Print text as it comes, or at the end. Default: as it comes, but with --json at the end.",
)
@json_option
@common_options
@pass_console
def complete(console: Console, /, prompt: str, **options: Any) -> None:
    """Let a model go on with PROMPT, as it is; "-" reads it from standard input.

    The text is printed as the model gives it; on a terminal a line break is added at the end.
    """
    if options["log_probs"] and not console.json:
        raise click.UsageError("--log-probs has nowhere to show; give --json too")
    if prompt == "-":
        prompt = read_input()

    from llmengine_core.arguments.completion import parse_completion
    from llmengine_core.cli.completing import print_stream, print_whole
    from llmengine_core.cli.running import run

    stream = options.pop("stream")
    arguments = parse_completion(
        prompt=prompt,
        guided_json=json_object("--guided-json", options.pop("guided_json")),
        guided_choice=list(options.pop("guided_choice")) or None,
        stop_sequences=list(options.pop("stop")),
        return_token_log_probs=options.pop("log_probs"),
        **options,
    )
    streaming = not console.json if stream is None else stream
    show = print_stream if streaming else print_whole
    run(console, lambda engine: show(engine, arguments, console))
