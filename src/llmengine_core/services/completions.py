"""Completions: one validated request in, chunks straight through, a fold for those who want it whole."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Self

from llmengine_core.arguments.completion import CompletionArguments
from llmengine_core.deadlines import Watch
from llmengine_core.errors import LLMEngineError, ServerError, UnsupportedFeatureError
from llmengine_core.gate import check_capabilities, check_context, check_length, surely_fits
from llmengine_core.interfaces.guided import GuidedDecoder
from llmengine_core.interfaces.observer import Observer, RequestFinished, RequestStarted
from llmengine_core.pool import Pool
from llmengine_core.registry import Registry
from llmengine_core.services.serving import Served, Serving
from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.generation import (
    FinishReason,
    GenerationChunk,
    GenerationRequest,
    Text,
    Token,
    Usage,
)
from llmengine_core.types.sampling import StructuredOutput

__all__ = ["Completed", "CompletionStream", "Completions"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Completed:
    """A whole answer."""

    request_id: str
    text: str
    tokens: tuple[Token, ...]
    finish_reason: FinishReason
    usage: Usage


class CompletionStream:
    """The chunks of one answer, on the engine's loop; an async iterator and context manager.

    The last chunk, and only it, has ``finish_reason`` and ``usage``; the work is over when it is given.
    """

    __slots__ = (
        "_adapter", "_chunks", "_finish", "_loop", "_over", "_pool", "_seen", "_verify", "_watch", "request_id",
    )  # fmt: skip

    def __init__(
        self,
        request_id: str,
        pool: Pool,
        request: GenerationRequest,
        watch: Watch,
        *,
        verify: Callable[[Sequence[GenerationChunk]], None] | None = None,
        finish: Callable[[GenerationChunk | None, BaseException | None], None] | None = None,
    ) -> None:
        """Take over the hold on ``pool``, and on the request's adapter there."""
        self.request_id = request_id
        self._pool = pool
        self._adapter = request.adapter
        self._chunks = pool.generate(request)
        self._watch = watch
        self._verify = verify
        self._finish = finish
        self._seen: list[GenerationChunk] = []
        self._loop = asyncio.get_running_loop()
        self._over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> GenerationChunk:
        if self._over:
            raise StopAsyncIteration
        try:
            with self._watch:
                chunk = await self._chunks.__anext__()
            if self._verify is not None:
                self._seen.append(chunk)
            if chunk.finish_reason is None:
                return chunk
            if chunk.finish_reason == "cancelled":  # not by the reader, who would have closed the stream
                raise ServerError("the engine was closed while it answered")
            if self._verify is not None:
                with self._watch:
                    await asyncio.to_thread(self._verify, self._seen)
        except StopAsyncIteration:
            error = ServerError("the engine's answer broke off: it ended without a finish reason")
            await self._close(None, error)
            raise error from None
        except BaseException as error:
            ours = error if isinstance(error, LLMEngineError) or not isinstance(error, Exception) else None
            if ours is None:
                log.exception("a backend raised an error that is not of llmengine's")
                ours = ServerError(f"the engine failed: {type(error).__name__}: {error}")
            await self._close(None, ours)
            if ours is error:
                raise
            raise ours from error
        await self._close(chunk, None)
        return chunk

    async def _close(self, last: GenerationChunk | None, error: BaseException | None) -> None:
        if self._over:
            return
        self._over = True
        self._watch.close()
        try:
            await self._chunks.aclose()
        finally:
            self._pool.let_go(self._adapter)
            if self._finish is not None:
                self._finish(last, error)

    def __del__(self) -> None:
        if not self._over:  # dropped: the generator's own end is seen to by the loop
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._pool.let_go, self._adapter)
                self._loop.call_soon_threadsafe(self._watch.close)
                if self._finish is not None:
                    self._loop.call_soon_threadsafe(self._finish, None, None)

    async def aclose(self) -> None:
        """End the work. Idempotent."""
        await self._close(None, None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class Completions:
    """``engine.completions``."""

    def __init__(self, serving: Serving, registry: Registry, observers: Sequence[Observer]) -> None:
        self._serving = serving
        self._registry = registry
        self._observers = observers

    async def create(self, arguments: CompletionArguments, *, caller: str = "root") -> Completed:
        """The whole answer: a fold over ``stream``."""
        stream = await self.stream(arguments, caller=caller)
        parts: list[str] = []
        tokens: list[Token] = []
        async with stream:
            async for chunk in stream:
                parts.append(chunk.text)
                tokens.extend(chunk.tokens)
                if chunk.finish_reason is not None and chunk.usage is not None:
                    return Completed(
                        stream.request_id, "".join(parts), tuple(tokens), chunk.finish_reason, chunk.usage
                    )
        raise ServerError("the engine's answer broke off: its last chunk has no usage")

    async def stream(self, arguments: CompletionArguments, *, caller: str = "root") -> CompletionStream:
        """Begin an answer.

        Raises what is wrong with the request (C02 to C04, C13, no such model) before anything is generated;
        starts the model where it is cold. Everything later is raised by the stream.
        """
        seconds = arguments.timeout
        watch = Watch(time.monotonic() + seconds, seconds)
        try:
            with watch:
                served = await self._serving.serve(arguments.model, caller)
        except BaseException:
            watch.close()
            raise
        # At once, so that the pool isn't closed between here and the answer, nor the adapter unloaded.
        served.pool.hold(served.adapter_name)
        try:
            with watch:
                return await self._begin(arguments, served, watch, caller)
        except BaseException:
            served.pool.let_go(served.adapter_name)
            watch.close()
            raise

    async def _begin(
        self, arguments: CompletionArguments, served: Served, watch: Watch, caller: str
    ) -> CompletionStream:
        """Check the request against the model, started if need be."""
        pool, structured, sampling = served.pool, arguments.structured, arguments.sampling
        prompt = Text(arguments.prompt)
        self._gate(arguments, served)
        verify = None
        if structured is not None:
            decoder, checked = await asyncio.to_thread(self._checked, structured, served.capabilities)
            verify, structured = _verifier(decoder, checked, sampling.stop), checked
        facts = pool.known_facts or await pool.ready(watch.deadline)
        if facts.capabilities is not served.capabilities:
            self._gate(arguments, replace(served, capabilities=facts.capabilities))
        check_length(
            prompt,
            sampling.max_tokens,
            longest_token=facts.longest_token,
            context_length=facts.context_length,
        )
        if served.adapter is not None:
            await pool.have_adapter(served.adapter)
        if not surely_fits(
            prompt,
            sampling.max_tokens,
            overhead=facts.prompt_token_overhead,
            context_length=facts.context_length,
        ):
            check_context(
                await pool.count_tokens(prompt), sampling.max_tokens, context_length=facts.context_length
            )
        request_id = str(uuid.uuid4())
        return CompletionStream(
            request_id,
            pool,
            GenerationRequest(prompt, sampling, structured, served.adapter_name, watch.deadline),
            watch,
            verify=verify,
            finish=self._observed(request_id, arguments, caller) if self._observers else None,
        )

    # -- the gate --------------------------------------------------------------------------------------------

    def _gate(self, arguments: CompletionArguments, served: Served) -> None:
        if served.unguided and arguments.structured is not None:
            raise UnsupportedFeatureError(
                f"the backend {served.backend!r} enforces guided_{arguments.structured.kind} by a masker beside it, "
                f"and none is in its environment. {served.unguided}"
            )
        check_capabilities(
            Text(arguments.prompt),
            arguments.sampling,
            arguments.structured,
            served.adapter_name,
            declared=served.capabilities,
            backend=served.backend,
            others=lambda: ((b.name, b.capabilities) for b in self._registry.backends.values()),
        )

    def _checked(
        self, structured: StructuredOutput, capabilities: Capabilities
    ) -> tuple[GuidedDecoder, StructuredOutput]:
        """The checker, and the constraint in the engine's words. Imports and compiles: runs in a thread."""
        dialect = capabilities.structured_dialect
        info = self._registry.guided_decoder(structured.kind, dialect)
        if info is None or dialect is None:
            raise UnsupportedFeatureError(
                f"guided_{structured.kind} needs a checker of constraints that speaks {dialect!r}, and none is "
                "installed; python -m pip install llmengine-llguidance"
            )
        decoder: GuidedDecoder = self._registry.load_once(info)
        decoder.check(structured)
        return decoder, replace(structured, translation=decoder.translate(structured, dialect))

    # -- observers -------------------------------------------------------------------------------------------

    def _observed(
        self, request_id: str, arguments: CompletionArguments, caller: str
    ) -> Callable[[GenerationChunk | None, BaseException | None], None]:
        began = time.monotonic()
        self._tell(
            lambda o: o.request_started(
                RequestStarted(
                    request_id=request_id, model=arguments.model, caller=caller, headers=arguments.headers
                )
            )
        )

        def finish(last: GenerationChunk | None, error: BaseException | None) -> None:
            event = RequestFinished(
                request_id=request_id,
                model=arguments.model,
                finish_reason=last.finish_reason if last else ("cancelled" if error is None else None),
                usage=last.usage if last else None,
                error=error,
                seconds=time.monotonic() - began,
            )
            self._tell(lambda o: o.request_finished(event))

        return finish

    def _tell(self, news: Callable[[Observer], None]) -> None:
        for observer in self._observers:
            try:
                news(observer)
            except Exception:
                log.exception("the observer %s raised", type(observer).__name__)


def _verifier(
    decoder: GuidedDecoder, structured: StructuredOutput, stops: Sequence[str]
) -> Callable[[Sequence[GenerationChunk]], None]:
    """C03: what ended by itself obeys in full; what was cut is accepted so far."""

    def verify(chunks: Sequence[GenerationChunk]) -> None:
        text = "".join(chunk.text for chunk in chunks)
        complete = chunks[-1].finish_reason == "stop" and not _stopped(chunks, stops)
        if not decoder.verify(structured, text, complete=complete):
            raise ServerError(
                f"the engine's output does not obey guided_{structured.kind}; it was withheld from the end on. "
                f"It began {text[:80]!r}"
            )

    return verify


def _stopped(chunks: Sequence[GenerationChunk], stops: Sequence[str]) -> bool:
    """Whether a stop sequence is among what was generated, which the tokens tell also where it was left out."""
    generated = "".join(token.text for chunk in chunks for token in chunk.tokens)
    return any(stop in generated for stop in stops)
