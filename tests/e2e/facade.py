"""The calls that most of these tests make, from this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from llmengine import Completion, CompletionStreamResponse, CompletionSyncResponse
from llmengine.streams import CompletionStream

__all__ = ["MODEL", "SLOTS", "answer", "endless", "engine_answers_on_every_slot", "rest"]

MODEL = "smollm2-135m-instruct"
SLOTS = 4
"""Requests at once on one replica of a base model."""
LONG = "Once upon a time"
"""A prompt whose answer goes on and on."""


def answer(prompt: str = "The capital of France is", model: str = MODEL, **options: Any) -> str:
    """The greedy answer, a few tokens."""
    response = Completion.create(model, prompt, **{"max_new_tokens": 3, "temperature": 0.0, **options})
    assert isinstance(response, CompletionSyncResponse)
    return response.output.text


def endless(prompt: str = LONG, model: str = MODEL, **options: Any) -> CompletionStream:
    """A stream that takes far longer than any test."""
    stream = Completion.create(
        model, prompt, **{"max_new_tokens": 4000, "temperature": 0.0, "stream": True, **options}
    )
    assert isinstance(stream, CompletionStream)
    return stream


def rest(stream: Iterator[CompletionStreamResponse]) -> CompletionStreamResponse:
    """The last response of a stream; all before it are plain ones."""
    *plain, last = stream
    assert all(each.error is None and each.output and not each.output.finished for each in plain)
    return last


def engine_answers_on_every_slot(model: str = MODEL, slots: int = SLOTS) -> None:
    """Have as many streams run at once as there are slots: each must begin while the others go on."""
    with ExitStack() as opened:
        for _ in range(slots):
            next(opened.enter_context(endless(model=model, timeout=20)))
