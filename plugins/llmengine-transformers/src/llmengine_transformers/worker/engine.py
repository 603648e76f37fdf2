"""A causal language model of the library, generating for many requests at once, one step at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
import transformers

from llmengine_core.worker.contract import (
    Emitted,
    Engine,
    EngineFacts,
    Masker,
    OnLoad,
    Order,
    Prompt,
    Refused,
)
from llmengine_transformers.worker.adapters import Adapters
from llmengine_transformers.worker.attention import Layout
from llmengine_transformers.worker.batch import Batch, Row
from llmengine_transformers.worker.forward import Forward
from llmengine_transformers.worker.loading import Loaded, load
from llmengine_transformers.worker.masks import hide_forbidden
from llmengine_transformers.worker.pace import Pace
from llmengine_transformers.worker.sampling import Choice, choose

__all__ = ["TransformersEngine", "affordable_context"]

LEAST_CONTEXT = 512
"""Tokens for each request where the checkpoint doesn't say how many it was trained for; no fewer are served unasked."""


def affordable_context(trained: int | None, asked: int | None, room: int) -> int:
    """Tokens for each request: what was asked for, or what the model was trained for as far as there is room.

    ``room`` is how many tokens the cache may hold for each. Raises ``Refused`` where more was asked for, or where
    there is room for next to none.
    """
    if asked is None:
        wanted = trained or LEAST_CONTEXT
        if room < min(wanted, LEAST_CONTEXT):
            raise Refused(
                f"half of the memory here has room for {room} tokens in each request's cache, and fewer than"
                f" {min(wanted, LEAST_CONTEXT)} aren't served; lower per_worker"
            )
        return min(wanted, room)
    if trained is not None and asked > trained:
        raise Refused(
            f"context_length is {asked}; this model was trained for {trained} tokens, so it must be at most that"
        )
    if asked > room:
        raise Refused(
            f"context_length is {asked}, and half of the memory here has room for {room} tokens in each"
            " request's cache; lower context_length or per_worker"
        )
    return asked


class TransformersEngine(Engine):
    """A model, its rows, and a step that moves all of them on."""

    @classmethod
    def load(
        cls, document: Mapping[str, Any], masker: type[Masker] | None, on_load: OnLoad
    ) -> TransformersEngine:
        torch.set_num_threads(document["threads"])
        loaded = load(
            document["weights"],
            on_load,
            dtype=document["dtype"],
            device=document["accelerator"],
            load_options=document["load_options"],
            memory=document["memory"],
            allow_remote_code=document["allow_remote_code"],
        )
        made = None
        if masker is not None:
            made = masker(document["weights"], loaded.vocabulary, loaded.end_tokens)
        with torch.inference_mode():
            forward = Forward(loaded.model)
        rows: int = document["per_worker"]
        room = document["memory"] // 2 // (forward.cache.bytes_per_token * rows)
        context = affordable_context(loaded.context_length, document["context_length"], room)
        return cls(loaded, forward, made, rows, context, Pace.of(loaded.model))

    def __init__(
        self,
        loaded: Loaded,
        forward: Forward,
        masker: Masker | None,
        rows: int,
        context_length: int,
        pace: Pace,
    ) -> None:
        """For at most ``rows`` requests of ``context_length`` tokens, whose prompts are read at a ``pace``."""
        self._loaded, self.forward, self._masker = loaded, forward, masker
        self.end_tokens = frozenset(loaded.end_tokens)
        """Those that end a text."""
        self._batch = Batch(forward.cache, rows, context_length)
        self._adapters = Adapters(loaded.model)
        self._pace = pace
        lacks = {"messages": loaded.text.has_template, "structured": masker is not None}
        self._facts = EngineFacts(
            context_length=context_length,
            max_concurrent=rows,
            versions={"transformers": transformers.__version__, "torch": str(torch.__version__)},
            prompt_token_overhead=loaded.text.overhead,
            longest_token=loaded.text.longest,
            lacks=frozenset(name for name, there in lacks.items() if not there),
        )

    @property
    def facts(self) -> EngineFacts:
        return self._facts

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        return self._loaded.text.encode(prompt)

    def join(self, order: Order) -> None:
        if order.adapter is not None and order.adapter not in self._adapters:
            raise Refused(f"no adapter {order.adapter!r} is loaded")
        constraint = None
        if order.grammar is not None:
            if self._masker is None:
                raise Refused("this worker has no masker, so it can't hold text to a grammar")
            constraint = self._masker.constraint(order.grammar)
        row = Row(order, Choice.of(order, self._loaded.vocabulary), self._loaded.text.decoding(), constraint)
        if row.capacity > self._facts.context_length:
            raise Refused(
                f"{len(order.tokens)} tokens of prompt and {order.max_tokens} more don't fit into the context of"
                f" {self._facts.context_length}"
            )
        try:
            with torch.inference_mode():
                self._batch.join(row)
        except MemoryError as error:
            raise Refused(f"this machine has no memory left for another request: {error}") from error

    def leave(self, order: int) -> None:
        with torch.inference_mode():
            self._batch.leave(order)

    def step(self) -> Sequence[Emitted]:
        with torch.inference_mode():
            return self._step()

    def _step(self) -> list[Emitted]:
        generating, pieces = self._batch.generating, self._batch.pieces(self._pace)
        tokens: list[int] = []
        names: list[str | None] = []
        kept: list[int] = []
        for row in generating:
            kept.append(len(tokens))
            tokens.append(row.token)
            names.append(row.order.adapter)
        for row, piece in pieces:
            tokens += row.order.tokens[piece.start : piece.start + piece.count]
            names += [row.order.adapter] * piece.count
            if piece.count == row.unread:
                kept.append(len(tokens) - 1)
        layout = Layout([row.length for row in generating], [piece for _, piece in pieces])
        with self._adapters.rows(names):
            logits = self.forward(tokens, layout, kept)
        return self._choose([*generating, *self._batch.moved(pieces)], logits)

    def _choose(self, rows: Sequence[Row], logits: torch.Tensor) -> list[Emitted]:
        """The next token of each row, and what it means; rows that end leave."""
        if not rows:
            return []
        constrained = [at for at, row in enumerate(rows) if row.constraint]
        hide = None
        if constrained:
            assert self._masker is not None
            constraints = [row.constraint for row in rows if row.constraint]
            hide = partial(hide_forbidden, self._masker, constrained, constraints)
        chosen = choose(logits, [row.choice for row in rows], hide)
        return [self._emit(row, *each) for row, each in zip(rows, chosen, strict=True)]

    def _emit(self, row: Row, token: int, logprob: float | None) -> Emitted:
        row.token, row.generated = token, row.generated + 1
        finish: Literal["stop", "length"] | None = None
        text, data = "", b""
        if token in self.end_tokens:
            finish = "stop"
        else:
            text, data = row.decoding.add(token)
            if row.generated == row.order.max_tokens:
                finish = "length"
            elif row.constraint:
                row.constraint.accept(token)
        if finish:
            self._batch.leave(row.order.id)
        return Emitted(order=row.order.id, token=token, text=text, data=data, logprob=logprob, finish=finish)

    def load_adapter(self, name: str, path: str) -> None:
        self._adapters.load(name, path)

    def unload_adapter(self, name: str) -> None:
        self._adapters.unload(name)
