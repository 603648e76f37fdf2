"""Shows a completion: as it comes or whole, as text or as JSON."""

from __future__ import annotations

import sys
from contextlib import aclosing

from llmengine_core.arguments.completion import CompletionArguments
from llmengine_core.cli.console import Console
from llmengine_core.cli.output import as_json
from llmengine_core.cli.running import caller
from llmengine_core.engine import Engine
from llmengine_core.errors import LLMEngineError
from llmengine_core.responses import StreamResponses, completion_response
from llmengine_core.services.completions import CompletionStream

__all__ = ["print_stream", "print_whole"]


async def print_whole(engine: Engine, arguments: CompletionArguments, console: Console) -> None:
    """Print the answer when it is complete."""
    done = await engine.completions.create(arguments, caller=caller())
    if console.json:
        console.line(as_json(completion_response(done, log_probs=arguments.sampling.logprobs), indent=2))
    else:
        await console.write(done.text)
        await _end_line(console, done.text)


async def print_stream(engine: Engine, arguments: CompletionArguments, console: Console) -> None:
    """Print each piece as it comes; in JSON one response a line."""
    stream = await engine.completions.stream(arguments, caller=caller())
    async with aclosing(stream):
        if console.json:
            await _print_lines(stream, console, log_probs=arguments.sampling.logprobs)
        else:
            await _print_text(stream, console)


async def _print_text(stream: CompletionStream, console: Console) -> None:
    shown = ""
    try:
        async for chunk in stream:
            if chunk.text:
                await console.write(chunk.text)
                shown = chunk.text
    finally:
        await _end_line(console, shown)


async def _print_lines(stream: CompletionStream, console: Console, *, log_probs: bool) -> None:
    responses = StreamResponses(stream.request_id, log_probs=log_probs)
    began = False
    try:
        async for chunk in stream:
            for response in responses.chunk(chunk):
                await console.write(f"{as_json(response)}\n")
            began = True
    except LLMEngineError as error:
        if began:
            await console.write(f"{as_json(responses.error(error))}\n")
        raise


async def _end_line(console: Console, shown: str) -> None:
    """So that a terminal's prompt, or an error, begins a line of its own."""
    if shown and not shown.endswith("\n") and sys.stdout.isatty():
        await console.write("\n")
