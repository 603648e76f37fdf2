"""A worker from its document to its end: loads the engine, then serves it over a socket."""

from __future__ import annotations

import faulthandler
import importlib
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from llmengine_core.worker.asked import Asked
from llmengine_core.worker.connections import Connection, Connections
from llmengine_core.worker.contract import Engine, EngineFacts, Refused
from llmengine_core.worker.drive import Drive
from llmengine_core.worker.encoder import Encoder
from llmengine_core.worker.ending import LOG_MARK, die, end
from llmengine_core.worker.watchdog import Pulse, Watchdog
from llmengine_core.worker.wire import Broken, command_of

__all__ = ["serve"]

PROGRESS_SECONDS = 0.05
"""Between two messages of how far a phase of loading has come, at the least."""


def serve(document: Mapping[str, Any], stdin: int, messages: int) -> NoReturn:
    """Load what the document says, report to ``messages``, and answer until ``stdin`` ends."""
    faulthandler.enable(all_threads=False)  # what crashes in C says where
    keep_logs()
    loading, encoding = Pulse(), Pulse()
    reception = Reception(stdin, Watchdog(document["hang_seconds"], (loading, encoding)))
    start("reception", reception.run)
    try:
        loading.begin("loading")
        engine = load(document, Progress(messages, loading))
        drive = Drive(engine, loading)
        encoder = Encoder(engine, drive, encoding)
        encoding.thread = start("encoder", encoder.run)
        reception.open(document["address"], document["key"], encoder, drive)
        report(messages, ready=True, pid=os.getpid(), **facts_of(engine.facts))
        loading.end()
    except Refused as error:
        end(str(error))
    except BaseException as error:
        die("loading failed", error)
    try:
        drive.run()
    except BaseException as error:
        die(f"{loading.doing or 'the worker'} failed", error)


def load(document: Mapping[str, Any], on_load: Progress) -> Engine:
    """The engine that the document names, with the masker that it names."""
    engine: type[Engine] = imported(document["engine"])
    masker = imported(document["masker"]) if document["masker"] else None
    return engine.load(document, masker, on_load)


def imported(name: str) -> Any:
    """What "package.module:Class" names."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def facts_of(facts: EngineFacts) -> dict[str, Any]:
    """As they are reported."""
    return {
        "context_length": facts.context_length,
        "max_concurrent": facts.max_concurrent,
        "versions": dict(facts.versions),
        "prompt_token_overhead": facts.prompt_token_overhead,
        "longest_token": facts.longest_token,
        "lacks": sorted(facts.lacks),
    }


def report(messages: int, **facts: Any) -> None:
    """Say one thing to whoever started us."""
    os.write(messages, json.dumps(facts).encode() + b"\n")


class Progress:
    """Told how far loading has come, tells whoever started us, and the watchdog that it hasn't hung."""

    def __init__(self, messages: int, pulse: Pulse) -> None:
        self._messages = messages
        self._pulse = pulse
        self._told = ("", 0.0)

    def __call__(self, phase: str, done: float) -> None:
        """See ``OnLoad``."""
        now = time.monotonic()
        self._pulse.begin(f"loading ({phase}, {done:.0%})")
        if phase != self._told[0] or now - self._told[1] >= PROGRESS_SECONDS or done >= 1:
            self._told = (phase, now)
            report(self._messages, progress=done, phase=phase)


class Reception:
    """The thread that takes what comes from the core, and looks whether the others still move."""

    def __init__(self, stdin: int, watchdog: Watchdog) -> None:
        self._watchdog = watchdog
        self._connections = Connections(self._on_line, self._on_gone)
        self._connections.watch(stdin, lambda: os.read(stdin, 1 << 16) or os._exit(0))
        self._loading = True
        self._live: dict[Connection, dict[int, Asked]] = {}
        """What is to be answered, by whom it is to be told and its id."""

    def open(self, address: str, key: str, encoder: Encoder, drive: Drive) -> None:
        """Loading is over: accept connections from here on."""
        self._encoder, self._drive = encoder, drive
        self._loading = False
        self._connections.listen(address.removeprefix("unix:"), key)

    def run(self) -> NoReturn:
        """For ever; looks at the others for as long as anything is to be answered."""
        while True:
            if self._loading or any(self._live.values()):
                self._watchdog.look()
                self._connections.wait(self._watchdog.interval)
            else:
                self._watchdog.rest()
                self._connections.wait(None)

    def _on_line(self, caller: Connection, line: bytes) -> None:
        command = command_of(line)
        live = self._live.setdefault(caller, {})
        if command.name == "cancel":
            # Whoever answers it may be just now taking it out.
            if (asked := live.pop(command.id, None)) is not None:
                self._drop(asked)
        elif command.id in live:
            raise Broken(f"the id {command.id} stands for another request")
        else:
            self._encoder.put(Asked(command, caller, live))

    def _on_gone(self, caller: Connection) -> None:
        for asked in list(self._live.pop(caller, {}).values()):
            self._drop(asked)

    def _drop(self, asked: Asked) -> None:
        asked.unwanted = True
        if asked.command.name == "generate":
            self._drive.put(asked)


def start(name: str, run: Callable[[], NoReturn]) -> int:
    """Run something for ever in a thread of its own, whose failure is the worker's; gives the thread's id."""

    def guarded() -> None:
        try:
            run()
        except BaseException as error:
            die(f"the {name} failed", error)

    thread = threading.Thread(target=guarded, name=name, daemon=True)
    thread.start()
    assert thread.ident is not None
    return thread.ident


class MarkedLines(logging.Formatter):
    """Every line begins so that it can be told from a reason to end."""

    def format(self, record: logging.LogRecord) -> str:
        """One or more lines."""
        return "\n".join(LOG_MARK + line for line in super().format(record).splitlines())


def keep_logs() -> None:
    """What Python code logs, and its warnings, go to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(MarkedLines("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.captureWarnings(True)
