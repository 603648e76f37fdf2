"""Generates pieces of text, each from a checksum of all that came before; fails, where the prompt says so."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

from llmengine_core.worker.contract import (
    Constraint,
    Emitted,
    Engine,
    EngineFacts,
    Masker,
    OnLoad,
    Order,
    Prompt,
    Refused,
)

PIECES = [b"a", b"b", b"ab", b"ba", b" ", b"\n", b"c", b"abc", b"\xc3", b"\xa9", b"\xe2\x82\xac", b"d"]
"""What the tokens stand for, by their numbers; one more token is the end."""
END = len(PIECES)

log = logging.getLogger(__name__)


@dataclass
class Row:
    """One request in the batch."""

    order: Order
    state: int
    constraint: Constraint | None
    left: int
    unfinished: bytes = b""
    """The start of a character."""
    generated: list[int] = field(default_factory=list)


class ToyEngine(Engine):
    """See ``ToyBackend.document`` for what it is told."""

    def __init__(self, document: Mapping[str, Any], masker: Masker | None) -> None:
        self._masker = masker
        self._rows: dict[int, Row] = {}
        self._adapters: dict[str, int] = {}
        self._end_every = document.get("end_every", 0)
        self._gate = open(document["gate"], "rb", buffering=0) if document.get("gate") else None
        self._journal = open(document["journal"], "a", buffering=1) if document.get("journal") else None
        self._facts = EngineFacts(
            context_length=document.get("context_length", 1000),
            max_concurrent=document.get("max_concurrent", 4),
            versions={"toy": "1", "threads": os.environ["OMP_NUM_THREADS"]},
            prompt_token_overhead=1,
            lacks=frozenset(document.get("lacks", ())),
        )

    @classmethod
    def load(cls, document: Mapping[str, Any], masker: type[Masker] | None, on_load: OnLoad) -> ToyEngine:
        on_load("load", 0.0)
        misbehave(document.get("fault", ""))
        for step in range(1, 5):
            on_load("load", step / 4)
        return cls(document, masker(document["weights"], END + 1, [END]) if masker else None)

    @property
    def facts(self) -> EngineFacts:
        return self._facts

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        if isinstance(prompt, str):
            fault(prompt, "encode")
            return (256, *prompt.encode())
        if isinstance(prompt[0], int):
            if any(token > 256 for token in prompt):  # type: ignore[operator]
                raise Refused("a token is above 256")
            return prompt  # type: ignore[return-value]
        return (256, *"".join(f"<{role}>{content}" for role, content in prompt).encode())  # type: ignore[misc]

    def join(self, order: Order) -> None:
        fault(bytes(order.tokens[1:]).decode(errors="replace"), "join")
        if order.adapter is not None and order.adapter not in self._adapters:
            raise Refused(f"there is no adapter {order.adapter!r}")
        if order.grammar is not None and self._masker is None:
            raise AssertionError("a grammar came to an engine without a masker")
        constraint = self._masker.constraint(order.grammar) if order.grammar and self._masker else None
        assert len(self._rows) < self._facts.max_concurrent
        about = (order.tokens, order.temperature and order.seed, self._adapters.get(order.adapter or "", 0))
        self._rows[order.id] = Row(order, crc32(repr(about).encode()), constraint, order.max_tokens)
        self._note("join", order.id)

    def leave(self, order: int) -> None:
        self._note("leave", order)
        self._rows.pop(order, None)

    def step(self) -> Sequence[Emitted]:
        assert self._rows, "stepped for nobody"
        if self._gate is not None:
            self._gate.read(1)
        self._note("step", *self._rows)
        for row in self._rows.values():
            fault(bytes(row.order.tokens[1:]).decode(errors="replace"), "step", len(row.generated))
        emitted = [self._advance(row) for row in self._rows.values()]
        for each in emitted:
            if each.finish is not None:
                del self._rows[each.order]
        return emitted

    def load_adapter(self, name: str, path: str) -> None:
        try:
            self._adapters[name] = crc32(Path(path, "adapter").read_bytes())
        except OSError as error:
            raise Refused(f"no adapter in {path}: {error.strerror}") from error
        self._note("load", name)

    def unload_adapter(self, name: str) -> None:
        if name not in self._adapters:
            raise Refused(f"there is no adapter {name!r}")
        assert all(row.order.adapter != name for row in self._rows.values())
        del self._adapters[name]
        self._note("unload", name)

    def _advance(self, row: Row) -> Emitted:
        token = self._choose(row)
        row.generated.append(token)
        row.left -= 1
        if token == END:
            return Emitted(order=row.order.id, token=END, logprob=self._logprob(row), finish="stop")
        whole = row.unfinished + PIECES[token]
        text = whole.decode(errors="ignore") if whole[-1:] not in (b"\xc3",) else whole[:-1].decode(errors="ignore")
        row.unfinished = whole[-1:] if whole[-1:] == b"\xc3" else b""
        return Emitted(
            order=row.order.id,
            token=token,
            text=text,
            data=PIECES[token],
            logprob=self._logprob(row),
            finish=None if row.left else "length",
        )

    def _choose(self, row: Row) -> int:
        row.state = crc32(b"%d" % len(row.generated), row.state)
        allowed = list(range(END))
        if row.constraint is not None and self._masker is not None:
            mask = memoryview(bytearray(4)).cast("I", (1, 1))
            self._masker.fill([row.constraint], mask)
            allowed = [token for token in range(END + 1) if mask[0, 0] >> token & 1]
        elif self._end_every and row.state % self._end_every == 0:
            allowed = [END]
        token = allowed[row.state % len(allowed)]
        if row.constraint is not None:
            row.constraint.accept(token)
        return token

    def _logprob(self, row: Row) -> float | None:
        return -(row.state % 1000) / 100 if row.order.logprobs else None

    def _note(self, *what: object) -> None:
        if self._journal is not None:
            print(*what, file=self._journal)


def fault(text: str, where: str, generated: int = 0) -> None:
    """A prompt "fault:step:raise" does it at the first step, "fault:step:raise:3" after three tokens."""
    _, _, rest = text.partition("fault:")
    place, _, rest = rest.partition(":")
    what, _, after = rest.partition(":")
    if place == where and generated == int(after or 0):
        misbehave(what)


def misbehave(what: str) -> None:
    match what:
        case "raise":
            raise RuntimeError("the toy is broken")
        case "refuse":
            raise Refused("the toy won't")
        case "exit":
            sys.exit(3)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "crash":
            ctypes.string_at(0)
        case "memory":
            held = []
            while True:
                held.append(bytearray(1 << 22))
        case "hang":
            time.sleep(10_000)
        case "hang_and_hold":  # the interpreter's lock
            ctypes.PyDLL(None).sleep(10_000)
        case "spin":
            while True:
                pass
        case "print":
            print('{"ready": true, "printed": 1}')
            libc = ctypes.CDLL(None)
            libc.puts(b'{"ready": true, "put": 1}')
            libc.fflush(None)
            os.write(1, b'{"ready": true, "written": 1}\n')
        case "read":
            assert sys.stdin.read() == ""
        case "log":
            log.warning("the toy speaks\nin two lines")
        case "look":
            leaked = [name for name in sys.modules if name.split(".")[0] in ("pydantic", "pluggy", "pytest")]
            ours = [name for name in sys.modules if name.startswith("llmengine")]
            print(json.dumps({"leaked": leaked, "ours": ours, "path": sys.path}), file=sys.stderr)
