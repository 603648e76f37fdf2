"""An engine that our worker drives, as a session."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import Any

from llmengine_core.deadlines import Watch
from llmengine_core.errors import BadRequestError, ServerError
from llmengine_core.gate import check_context, refuse_undeclared
from llmengine_core.interfaces.backend import Session, SessionLost
from llmengine_core.stops import StopMatcher
from llmengine_core.types.capabilities import Capabilities
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
from llmengine_core.worker_link import Answer, Entry, LinkLost, WorkerLink

__all__ = ["WorkerSession", "narrowed"]


class WorkerSession(Session):
    """Streams what the engine generates, and finds stop sequences itself.

    Tokens that came while nobody was reading come together, in one chunk.
    """

    def __init__(self, link: WorkerLink, facts: SessionFacts) -> None:
        """``link`` is the session's own, to close."""
        self._link = link
        self._facts = facts
        self._closed = False

    @property
    def facts(self) -> SessionFacts:
        """As the worker reported them when it was ready."""
        return self._facts

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        """Stream the answer to one request; see ``Session.generate``."""
        refuse_undeclared(request, self._facts.capabilities, who="the engine")
        if self._closed:
            raise SessionLost("the session with the engine's worker was closed")
        sampling = request.sampling
        stops = StopMatcher(sampling.stop, sampling.include_stop) if sampling.stop else None
        prompt_tokens = completion_tokens = 0
        reason: FinishReason | None = None
        text = ""
        tokens: tuple[Token, ...] = ()
        answer: Answer | None = None
        watch = Watch(request.deadline, None)
        try:
            with watch:
                answer = self._link.generate(_prompt(request.prompt), self._values(request))
                prompt_tokens = await answer.prompt_tokens()
            check_context(prompt_tokens, sampling.max_tokens, context_length=self._facts.context_length)
            while True:
                with watch:
                    entries = await answer.entries()
                if stops is None:
                    tokens = tuple([_token(entry) for entry in entries])
                    text = tokens[0].text if len(tokens) == 1 else "".join([token.text for token in tokens])
                    reason = _finish(entries[-1])
                else:
                    text, tokens, reason = _up_to_stop(entries, stops)
                completion_tokens += len(tokens)
                if reason is not None:
                    break
                yield GenerationChunk(text, tokens)
        except LinkLost as error:
            if not self._closed:
                after = f", after {completion_tokens} tokens" if prompt_tokens else ""
                raise SessionLost(f"the engine's worker is gone{after}: {error}") from error
            text, tokens, reason = "" if stops is None else stops.flush(), (), "cancelled"
        finally:
            watch.close()
            if answer is not None:
                answer.cancel()
        yield GenerationChunk(text, tokens, reason, Usage(prompt_tokens, completion_tokens))

    async def count_tokens(self, prompt: Prompt) -> int:
        """By the model's own tokenizer."""
        count: int = await self._ask("count", _prompt(prompt))
        return count

    async def load_adapter(self, name: str, path: str) -> None:
        """See ``Session.load_adapter``; between two steps of what is running."""
        await self._ask("load_adapter", name, path)

    async def unload_adapter(self, name: str) -> None:
        """See ``Session.unload_adapter``. Requests that come after this call are refused."""
        await self._ask("unload_adapter", name)

    async def aclose(self) -> None:
        """Drop the connection; the worker is its owner's to end."""
        self._closed = True
        await self._link.aclose()

    async def _ask(self, command: str, *arguments: object) -> Any:
        try:
            return await self._link.ask(command, *arguments)
        except LinkLost as error:
            raise SessionLost(f"the engine's worker is gone: {error}") from error

    def _values(self, request: GenerationRequest) -> Mapping[str, object]:
        """What ``Order`` holds besides the prompt."""
        sampling = request.sampling
        return {
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "presence_penalty": sampling.presence_penalty,
            "frequency_penalty": sampling.frequency_penalty,
            "logprobs": sampling.logprobs,
            "seed": sampling.seed,
            "grammar": self._grammar(request),
            "adapter": request.adapter,
        }

    def _grammar(self, request: GenerationRequest) -> str | None:
        structured, dialect = request.structured, self._facts.capabilities.structured_dialect
        if structured is None:
            return None
        if structured.translation is None or structured.translation.dialect != dialect:
            raise ServerError(
                f"a guided_{structured.kind} reached the engine that was not translated into {dialect!r}"
            )
        return structured.translation.text


def narrowed(declared: Capabilities, lacks: frozenset[str]) -> Capabilities:
    """What is left of what a backend declares where its engine lacks some (``EngineFacts.lacks``)."""
    if "messages" in lacks:
        declared = replace(declared, messages=False)
    if "structured" in lacks:
        declared = replace(declared, structured=frozenset(), structured_dialect=None)
    if "adapters" in lacks:
        declared = replace(declared, adapters="none")
    return declared


def _prompt(prompt: Prompt) -> object:
    """As the worker takes it. Raises ``BadRequestError`` for what it would take for a broken caller."""
    match prompt:
        case Text(text):
            return text
        case TokenIds(ids):
            if wrong := [each for each in ids if each < 0]:
                raise BadRequestError(f"the prompt has the token id {wrong[0]}; token ids are 0 or more")
            if not ids:
                raise BadRequestError("the prompt has no token ids; it takes one at least")
            return {"ids": ids}
        case Messages(messages):
            if not messages:
                raise BadRequestError("the prompt is a conversation without a message; it takes one at least")
            return {"messages": [(message.role, message.content) for message in messages]}


def _token(entry: Entry) -> Token:
    if len(entry) == 3:
        _, token, text = entry
        return Token(token, text, text.encode())
    _, token, text, data, logprob, _ = entry
    return Token(token, text, text.encode() if data is None else data.encode("latin-1"), logprob)


def _finish(entry: Entry) -> FinishReason | None:
    finish: FinishReason | None = entry[5] if len(entry) > 3 else None
    return finish


def _up_to_stop(
    entries: list[Entry], stops: StopMatcher
) -> tuple[str, tuple[Token, ...], FinishReason | None]:
    """The text that may be shown, the tokens up to one that completes a stop sequence, and whether it ends."""
    texts, tokens = [], []
    for entry in entries:
        token = _token(entry)
        tokens.append(token)
        texts.append(stops.feed(token.text))
        if stops.stopped:
            return "".join(texts), tuple(tokens), "stop"
    finish = _finish(entries[-1])
    if finish is not None:
        texts.append(stops.flush())
    return "".join(texts), tuple(tokens), finish
