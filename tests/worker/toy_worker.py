"""An engine and a masker of the standard library alone.

It generates pieces of text, each from a checksum of all that came before; it fails, where the prompt says so.
"""

from __future__ import annotations

import codecs
import ctypes
import json
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
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

UTF8 = codecs.getincrementaldecoder("utf-8")

log = logging.getLogger(__name__)


@dataclass
class Row:
    """One request in the batch."""

    order: Order
    state: int
    constraint: Constraint | None
    left: int
    decoder: codecs.IncrementalDecoder = field(default_factory=lambda: UTF8("ignore"))
    generated: list[int] = field(default_factory=list)


class ToyEngine(Engine):
    """See ``ToyBackend.document`` for what it is told."""

    def __init__(self, document: Mapping[str, Any], masker: Masker | None) -> None:
        self._masker = masker
        self._rows: dict[int, Row] = {}
        self._adapters: dict[str, int] = {}
        self._end_every = document.get("end_every", 0)
        self._gate = os.open(document["gate"], os.O_RDONLY) if "gate" in document else None
        self._journal = Path(document["journal"]) if "journal" in document else None
        self._facts = EngineFacts(
            context_length=document.get("context_length", 1000),
            max_concurrent=document.get("max_concurrent", 4),
            versions={
                "toy": "1",
                "threads": os.environ["OMP_NUM_THREADS"],
                "memory": str(document["memory"]),
            },
            prompt_token_overhead=1,
            longest_token=document.get("longest_token"),
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
            if any(token > 256 for token in prompt):
                raise Refused("a token is above 256")
            return prompt
        return (256, *"".join(f"<{role}>{content}" for role, content in prompt).encode())

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
        self._note("prompt", bytes(order.tokens[1:]).decode(errors="replace"))

    def leave(self, order: int) -> None:
        self._note("leave", order)
        self._rows.pop(order, None)

    def step(self) -> Sequence[Emitted]:
        assert self._rows, "stepped for nobody"
        if self._gate is not None:
            self._note("waits")
            os.read(self._gate, 1)
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
            weights = Path(path, "adapter").read_text()
        except OSError as error:
            raise Refused(f"no adapter in {path}: {error.strerror}") from error
        fault(weights, "adapter")
        self._adapters[name] = crc32(weights.encode())
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
        text = row.decoder.decode(PIECES[token])
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
            with self._journal.open("a") as file:
                print(*what, file=file)


def fault(text: str, where: str, generated: int = 0) -> None:
    """A prompt "fault:step:raise" does it at the first step, "fault:step:raise:3" after three tokens."""
    _, _, rest = text.partition("fault:")
    place, _, rest = rest.partition(":")
    what, _, after = rest.partition(":")
    if place == where and generated == int(after or 0):
        misbehave(what)


def misbehave(what: str) -> None:
    if what:
        FAULTS[what]()


def broken() -> None:
    raise RuntimeError("the toy is broken")


def unwilling() -> None:
    raise Refused("the toy won't")


def out_of_memory() -> None:
    """Until nothing is left, not even for an error message."""
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    held, size = [], 1 << 26
    while size > 16:
        try:
            held.append(bytes(size))
        except MemoryError:
            size //= 2
    held.append(bytes(1 << 26))


def spinning() -> None:
    while True:
        pass


def printing() -> None:
    print('{"ready": true, "printed": 1}')
    libc = ctypes.CDLL(None)
    libc.puts(b'{"ready": true, "put": 1}')
    libc.fflush(None)
    os.write(1, b'{"ready": true, "written": 1}\n')


def telling() -> None:
    """What of the core's environment can be seen, and whether there is anything to read."""
    seen = [name for name in ("pydantic", "pluggy", "pytest", "click") if find_spec(name)]
    ours = sorted(name for name in sys.modules if name.startswith(("llmengine", "toy")))
    print(json.dumps({"seen": seen, "ours": ours, "read": sys.stdin.read()}, indent=0), file=sys.stderr)


def told_of_no_memory() -> None:
    raise MemoryError


FAULTS: dict[str, Callable[[], object]] = {
    "raise": broken,
    "refuse": unwilling,
    "exit": lambda: sys.exit(3),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "crash": lambda: ctypes.string_at(0),
    "memory": out_of_memory,
    "memory_error": told_of_no_memory,
    "hang": lambda: time.sleep(10_000),
    "hang_and_hold": lambda: ctypes.PyDLL(None).sleep(10_000),  # with the interpreter's lock
    "spin": spinning,
    "print": printing,
    "log": lambda: log.warning("the toy speaks\nin two lines"),
    "tell": telling,
}


class Spelling(Constraint):
    def __init__(self, texts: list[bytes]) -> None:
        self.texts = texts

    def accept(self, token: int) -> None:
        if token < len(PIECES):
            piece = PIECES[token]
            self.texts = [text[len(piece) :] for text in self.texts if text.startswith(piece)]


class ToyMasker(Masker):
    def __init__(self, folder: str, vocabulary: int, end_tokens: Sequence[int]) -> None:
        assert vocabulary == len(PIECES) + 1
        (self._end,) = end_tokens

    def constraint(self, grammar: str) -> Constraint:
        texts = grammar.encode().split(b"\n")
        known = set(b"".join(PIECES[:8]))
        if not set(b"".join(texts)) <= known:
            raise Refused("the grammar has characters that no token stands for")
        return Spelling(texts)

    def fill(self, constraints: Sequence[Constraint], masks: memoryview) -> None:
        for row, constraint in enumerate(constraints):
            assert isinstance(constraint, Spelling)
            word = (b"" in constraint.texts) << self._end
            for token, piece in enumerate(PIECES):
                word |= any(text.startswith(piece) for text in constraint.texts) << token
            masks[row, 0] = word
