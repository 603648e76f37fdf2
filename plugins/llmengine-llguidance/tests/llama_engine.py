"""A real llama.cpp in a child process, given constraints exactly as a backend would give them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

CHILD = Path(__file__).with_name("llama_child.py")


@dataclass(frozen=True)
class Answer:
    text: str
    ended: bool
    """It ended by itself; else it was cut."""


class LlamaEngine:
    def __init__(self, weights: Path) -> None:
        self._child = subprocess.Popen(
            [sys.executable, str(CHILD), str(weights)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "GOMP_SPINCOUNT": "100"},
        )

    def complete(
        self, grammar: str, *, prompt: str = "Answer:", max_tokens: int = 60, seed: int = 1
    ) -> Answer:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        request = {"prompt": prompt, "grammar": grammar, "max_tokens": max_tokens, "seed": seed}
        print(json.dumps(request), file=self._child.stdin, flush=True)
        answer = json.loads(self._child.stdout.readline())
        assert answer["reason"] in ("stop", "length"), answer
        return Answer(answer["text"], answer["reason"] == "stop")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.communicate(timeout=30)
