"""One llama.cpp server, as a session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Self

from llmengine_core.deadlines import Watch
from llmengine_core.errors import BadRequestError, ServerError
from llmengine_core.gate import check_context, refuse_undeclared
from llmengine_core.http import ConnectionLost, HttpError
from llmengine_core.interfaces.backend import Session, SessionLost
from llmengine_core.stops import StopMatcher
from llmengine_core.types.generation import (
    FinishReason,
    GenerationChunk,
    GenerationRequest,
    Messages,
    Prompt,
    SessionFacts,
    Text,
    Token,
    TokenIds,
    Usage,
)
from llmengine_llamacpp.client import Client
from llmengine_llamacpp.penalties import step_by_step, with_frequency_penalty
from llmengine_llamacpp.plugin import CAPABILITIES
from llmengine_llamacpp.wire import Frame, body_of, finish_reason_of, is_progress, token_of

__all__ = ["LlamaCppSession"]

LAST_ID = 2**31 - 1
"""Greater ones would wrap round in the engine, which refuses all other ids that the model doesn't have."""


class LlamaCppSession(Session):
    """Streams from ``/completion`` and finds stop sequences itself.

    Every request names the slot that it runs on, so that none takes another's. The slot that was given
    back first is taken first: the engine may need a moment to notice that a request was cancelled.

    Tokens that share a character come as one, once it is complete: with the id and the log probability of the
    last of them, and the text of all. Of the others the engine tells how many they were, which is in the
    usage, and nothing else. Those of a character that the limit cuts off are counted and told of nowhere.
    """

    def __init__(self, client: Client, facts: SessionFacts, slots: int) -> None:
        self._client = client
        self._facts = facts
        self._slots: asyncio.Queue[int] = asyncio.Queue()
        for slot in range(slots):
            self._slots.put_nowait(slot)
        self._closed = False

    @classmethod
    async def open(cls, client: Client, child: Mapping[str, Any], *, weights_digest: str) -> Self:
        """A session on a child that reported these facts of itself."""
        overhead = None
        if child["tokenizer"] == "gpt2":  # it works on bytes: no token stands for less than one
            overhead = len(await client.tokenize(""))
        facts = SessionFacts(
            context_length=child["context_length"],
            capabilities=CAPABILITIES,
            versions={"xllamacpp": child["xllamacpp"], "weights": weights_digest},
            prompt_token_overhead=overhead,
            max_concurrent=child["slots"],
        )
        return cls(client, facts, child["slots"])

    @property
    def facts(self) -> SessionFacts:
        """As the child reported them when it was ready."""
        return self._facts

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        """Stream the answer to one request; see ``Session.generate``."""
        refuse_undeclared(request, self._facts.capabilities, who="llama.cpp")
        if self._closed:
            raise SessionLost("the session with llama.cpp was closed")
        sampling = request.sampling
        stops = StopMatcher(sampling.stop, sampling.include_stop) if sampling.stop else None
        prompt_tokens = completion_tokens = 0
        tokens: tuple[Token, ...]
        reason: FinishReason
        frames: AsyncGenerator[Frame, None] | None = None
        slot: int | None = None
        watch = Watch(request.deadline, None)
        try:
            with watch:
                slot = await self._slots.get()
                frames = await self._frames(request, slot)
            while True:
                with watch:
                    frame = await anext(frames)
                if not prompt_tokens:
                    prompt_tokens = frame["tokens_evaluated"]
                    check_context(
                        prompt_tokens, sampling.max_tokens, context_length=self._facts.context_length
                    )
                if is_progress(frame):
                    continue
                completion_tokens = frame["tokens_predicted"]
                if frame["stop"]:
                    text, tokens, reason = _rest(stops), (), finish_reason_of(frame)
                    break
                tokens = (token_of(frame, logprob=sampling.logprobs),)
                text = tokens[0].text if stops is None else stops.feed(tokens[0].text)
                if stops is not None and stops.stopped:
                    reason = "stop"
                    break
                yield GenerationChunk(text, tokens)
        except HttpError as error:
            if not self._closed:
                raise _lost(error, f", after {completion_tokens} tokens") from error
            text, tokens, reason = _rest(stops), (), "cancelled"
        finally:
            watch.close()
            if frames is not None:
                await frames.aclose()
            if slot is not None:
                self._slots.put_nowait(slot)
        yield GenerationChunk(text, tokens, reason, Usage(prompt_tokens, completion_tokens))

    async def _frames(self, request: GenerationRequest, slot: int) -> AsyncGenerator[Frame, None]:
        """The events of one answer, which has not begun yet."""
        sampling, grammar = request.sampling, _grammar(request)
        prompt = await self._verbatim(request.prompt)
        body = body_of(prompt, sampling, slot=slot, grammar=grammar)
        if not (sampling.presence_penalty or sampling.frequency_penalty):
            return self._client.stream(body)
        ids = await self._client.tokenize(prompt) if isinstance(prompt, str) else prompt
        if not sampling.presence_penalty:
            limit = self._facts.context_length
            return self._client.stream(with_frequency_penalty(body, sampling.frequency_penalty, ids, limit))
        return step_by_step(self._client, body, sampling, ids)

    async def count_tokens(self, prompt: Prompt) -> int:
        """By the model's own tokenizer."""
        try:
            verbatim = await self._verbatim(prompt)
            return len(await self._client.tokenize(verbatim) if isinstance(verbatim, str) else verbatim)
        except HttpError as error:
            raise _lost(error) from error

    async def _verbatim(self, prompt: Prompt) -> str | tuple[int, ...]:
        match prompt:
            case Text(text):
                return text
            case TokenIds(ids):
                if beyond := [each for each in ids if not 0 <= each <= LAST_ID]:
                    raise BadRequestError(f"the model has no token {beyond[0]}")
                return ids
            case Messages(messages):
                return await self._client.apply_template(messages)

    async def aclose(self) -> None:
        """Drop every connection; the child is its owner's to end."""
        self._closed = True
        await self._client.aclose()


def _rest(stops: StopMatcher | None) -> str:
    return "" if stops is None else stops.flush()


def _lost(error: HttpError, when: str = "") -> ServerError:
    if isinstance(error, ConnectionLost):
        return SessionLost(f"llama.cpp is gone{when}: {error}")
    return ServerError(f"llama.cpp's answer can't be read{when}: {error}")


def _grammar(request: GenerationRequest) -> str | None:
    """The checked constraint; llama.cpp would quietly ignore one that it can't read."""
    if request.structured is None:
        return None
    translation = request.structured.translation
    if translation is None or translation.dialect != CAPABILITIES.structured_dialect:
        raise ServerError(
            f"a guided_{request.structured.kind} reached llama.cpp that was not translated into "
            f"{CAPABILITIES.structured_dialect!r}"
        )
    return translation.text
