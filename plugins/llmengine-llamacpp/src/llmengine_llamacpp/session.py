"""One llama.cpp server, as a session."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Self

from llmengine_core.deadlines import Watch
from llmengine_core.errors import ServerError
from llmengine_core.gate import check_context
from llmengine_core.http import HttpClient, HttpError, HttpStatusError
from llmengine_core.interfaces.backend import Session, SessionLost
from llmengine_core.stops import StopMatcher
from llmengine_core.types.generation import (
    GenerationChunk,
    GenerationRequest,
    Messages,
    Prompt,
    SessionFacts,
    Text,
    TokenIds,
    Usage,
)
from llmengine_llamacpp.plugin import CAPABILITIES
from llmengine_llamacpp.wire import body_of, error_of, finish_reason_of, token_of

__all__ = ["LlamaCppSession"]

DIALECT = CAPABILITIES.structured_dialect


class LlamaCppSession(Session):
    """Speaks to ``/completion``, always streaming, and finds stop sequences itself."""

    def __init__(self, http: HttpClient, facts: SessionFacts, slots: int) -> None:
        self._http = http
        self._facts = facts
        self._slots = asyncio.Semaphore(slots)
        self._closed = False

    @classmethod
    async def open(cls, http: HttpClient, child: Mapping[str, Any], *, weights_digest: str) -> Self:
        """A session on a child that reported these facts of itself."""
        overhead = None
        if child["tokenizer"] == "gpt2":  # works on bytes: no token stands for less than one of them
            overhead = len(await _tokens(http, ""))
        facts = SessionFacts(
            context_length=child["context_length"],
            capabilities=CAPABILITIES,
            versions={"xllamacpp": child["xllamacpp"], "weights": weights_digest},
            prompt_token_overhead=overhead,
            max_concurrent=child["slots"],
        )
        return cls(http, facts, child["slots"])

    @property
    def facts(self) -> SessionFacts:
        """As the child reported them when it was ready."""
        return self._facts

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        """Stream the answer to one request; see ``Session.generate``."""
        watch = Watch(request.deadline, None)
        try:
            with watch:
                await self._slots.acquire()
            try:
                async with aclosing(self._answer(request, watch)) as chunks:
                    async for chunk in chunks:
                        yield chunk
            finally:
                self._slots.release()
        finally:
            watch.close()

    async def _answer(
        self, request: GenerationRequest, watch: Watch
    ) -> AsyncGenerator[GenerationChunk, None]:
        sampling = request.sampling
        limit = self._facts.context_length
        stops = StopMatcher(sampling.stop, sampling.include_stop) if sampling.stop else None
        with watch:
            prompt = await self._prompt(request.prompt)
        body = body_of(prompt, sampling, grammar=_grammar(request), context_length=limit)
        prompt_tokens = completion_tokens = 0
        events = self._http.events("/completion", body)
        try:
            while True:
                with watch:
                    frame = json.loads(await anext(events))
                if "error" in frame:
                    raise error_of(500, json.dumps(frame).encode())
                if not prompt_tokens:
                    prompt_tokens = frame["tokens_evaluated"]
                    check_context(prompt_tokens, sampling.max_tokens, context_length=limit)
                if "prompt_progress" in frame:
                    continue
                completion_tokens = frame["tokens_predicted"]
                if frame["stop"]:
                    break
                token = token_of(frame)
                text = token.text if stops is None else stops.feed(token.text)
                if stops is not None and stops.stopped:
                    usage = Usage(prompt_tokens, completion_tokens)
                    yield GenerationChunk(text, (token,), "stop", usage)
                    return
                yield GenerationChunk(text, (token,))
        except HttpStatusError as error:
            raise error_of(error.status, error.body) from None
        except StopAsyncIteration:
            raise ServerError("llama.cpp's answer broke off: it ended without a reason") from None
        except HttpError as error:
            if not self._closed:
                raise SessionLost(f"llama.cpp is gone: {error}") from error
            rest = "" if stops is None else stops.flush()
            yield GenerationChunk(rest, (), "cancelled", Usage(prompt_tokens, completion_tokens))
            return
        finally:
            await events.aclose()
        rest = "" if stops is None else stops.flush()
        yield GenerationChunk(rest, (), finish_reason_of(frame), Usage(prompt_tokens, completion_tokens))

    async def count_tokens(self, prompt: Prompt) -> int:
        """By the engine's own tokenizer."""
        if isinstance(prompt, TokenIds):
            return len(prompt.ids)
        try:
            return len(await _tokens(self._http, str(await self._prompt(prompt))))
        except HttpError as error:
            raise SessionLost(f"llama.cpp is gone: {error}") from error

    async def aclose(self) -> None:
        """Drop every connection; the child is its owner's to end."""
        self._closed = True
        await self._http.aclose()

    async def _prompt(self, prompt: Prompt) -> str | list[int]:
        match prompt:
            case Text(text):
                return text
            case TokenIds(ids):
                return list(ids)
            case Messages(messages):
                turns = [{"role": each.role, "content": each.content} for each in messages]
                response = await self._http.request("POST", "/apply-template", {"messages": turns})
                if response.status != 200:
                    raise error_of(response.status, response.body)
                return str(response.json()["prompt"])


async def _tokens(http: HttpClient, text: str) -> list[int]:
    body = {"content": text, "add_special": True, "parse_special": True}
    response = await http.request("POST", "/tokenize", body)
    if response.status != 200:
        raise error_of(response.status, response.body)
    tokens: list[int] = response.json()["tokens"]
    return tokens


def _grammar(request: GenerationRequest) -> str | None:
    """The checked constraint; llama.cpp would quietly ignore one that it can't read."""
    if request.structured is None:
        return None
    translation = request.structured.translation
    if translation is None or translation.dialect != DIALECT:
        raise ServerError(f"a constraint reached llama.cpp that was not translated into {DIALECT}")
    return translation.text
