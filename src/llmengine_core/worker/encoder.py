"""The thread that reads prompts, in order, so that a long one keeps nobody else waiting for a token."""

from __future__ import annotations

from collections.abc import Iterator
from queue import SimpleQueue
from typing import NoReturn

from llmengine_core.worker.asked import Asked
from llmengine_core.worker.contract import Engine, Prompt, Refused
from llmengine_core.worker.drive import Drive
from llmengine_core.worker.ending import essence
from llmengine_core.worker.watchdog import Pulse

__all__ = ["Encoder"]

LONG_TOKEN = 64
"""Bytes that the tokens of a prompt have at most on average, where the engine doesn't know its longest."""
SHORT_TEXT = 1 << 20
"""Bytes of text that are read in any case: they take about a second."""


class Encoder:
    """Turns prompts into tokens, and hands on what is the engine's to do. ``put`` may be called by any thread."""

    def __init__(self, engine: Engine, drive: Drive, pulse: Pulse) -> None:
        self._engine = engine
        self._context = engine.facts.context_length
        self._most = max(SHORT_TEXT, self._context * max(LONG_TOKEN, engine.facts.longest_token or 0))
        """Bytes of text in one prompt: nothing that fits the context has more."""
        self._drive = drive
        self._pulse = pulse
        self._mail: SimpleQueue[Asked] = SimpleQueue()

    def put(self, asked: Asked) -> None:
        """See to it after all that came before."""
        self._mail.put(asked)

    def run(self) -> NoReturn:
        """For ever. Being out of memory, or asked to exit, is raised, and is the worker's end."""
        while True:
            asked = self._mail.get()
            if not asked.unwanted:
                self._see_to(asked)

    def _see_to(self, asked: Asked) -> None:
        command = asked.command
        if command.name not in ("generate", "count"):
            self._drive.put(asked)
            return
        tokens = self._encode(asked)
        if tokens is None:
            return
        if command.name == "count":
            asked.answer("done", len(tokens))
        elif len(tokens) + command.values["max_tokens"] > self._context:
            asked.answer("begun", len(tokens))  # the core sees that it doesn't fit, and says so
        else:
            asked.tell("begun", len(tokens))
            self._drive.put(asked, tokens)

    def _encode(self, asked: Asked) -> tuple[int, ...] | None:
        """The tokens; None where the caller was told why there are none.

        Nothing of a batch can be broken by it, so a prompt that can't be read is only its own end.
        """
        self._pulse.begin("the reading of a prompt")
        try:
            self._check_length(asked.command.prompt)
            return self._engine.encode(asked.command.prompt)
        except Refused as error:
            asked.answer("refused", str(error))
        except (MemoryError, SystemExit):
            raise
        except BaseException as error:  # native libraries raise what isn't an `Exception`
            asked.answer("failed", f"the prompt can't be turned into tokens: {essence(error)}")
        finally:
            self._pulse.end()
        return None

    def _check_length(self, prompt: Prompt) -> None:
        """Tokens cost two hundred times the memory of their text, and turning it into them can't be broken off."""
        size = sum(len(text.encode(errors="surrogatepass")) for text in _texts(prompt))
        if size > self._most:
            raise Refused(
                f"the prompt has {size} bytes of text; no more than {self._most} are read for this model's context of"
                f" {self._context} tokens, so shorten it"
            )


def _texts(prompt: Prompt) -> Iterator[str]:
    """What of a prompt is text."""
    if isinstance(prompt, str):
        yield prompt
        return
    for part in prompt:
        if not isinstance(part, int):
            yield from part
