"""What ``stream=True`` gives: an engine's chunks as response objects."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Self

from llmengine.data_types.completion import CompletionStreamResponse
from llmengine_core.errors import LLMEngineError
from llmengine_core.responses import StreamResponses
from llmengine_core.sync import AsyncStream, SyncStream

if TYPE_CHECKING:
    from llmengine_core.arguments.completion import CompletionArguments
    from llmengine_core.engine import Engine
    from llmengine_core.services.completions import CompletionStream as Source
    from llmengine_core.types.generation import GenerationChunk

__all__ = ["AsyncCompletionStream", "CompletionStream"]

validated = CompletionStreamResponse.model_validate


class _Conversion:
    """Makes responses of one stream's chunks, and of its failure once it has begun."""

    def __init__(self, engine: Engine, arguments: CompletionArguments, caller: str) -> None:
        self._engine = engine
        self._arguments = arguments
        self._caller = caller
        self._responses: StreamResponses
        self._begun = False
        self.waiting: deque[CompletionStreamResponse] = deque()
        """Responses that come before the next chunk."""

    async def open(self) -> Source:
        """Begin the answer; runs on the engine's loop."""
        source = await self._engine.completions.stream(self._arguments, caller=self._caller)
        self._responses = StreamResponses(source.request_id, log_probs=self._arguments.sampling.logprobs)
        return source

    def chunk(self, chunk: GenerationChunk) -> CompletionStreamResponse:
        """The chunk's first response; further ones wait."""
        self._begun = True
        responses = self._responses.chunk(chunk)
        if len(responses) > 1:
            self.waiting.extend(map(validated, responses[1:]))
        return validated(responses[0])

    def error(self, error: LLMEngineError) -> CompletionStreamResponse:
        """The failure as the last response; raises it where there was none before it."""
        if not self._begun:
            raise error
        return validated(self._responses.error(error))


class CompletionStream(Iterator[CompletionStreamResponse]):
    """The responses of one completion, and a context manager.

    ``close()``, leaving its ``with``, Ctrl-C while it waits, or its last reference going ends the work
    (C10). What fails before the first response is raised; what fails later is the last response's ``error``.
    """

    def __init__(self, engine: Engine, arguments: CompletionArguments, *, caller: str) -> None:
        self._conversion = _Conversion(engine, arguments, caller)
        self._chunks = SyncStream(
            engine, self._conversion.open, instead="Completion.acreate(..., stream=True)"
        )

    def __next__(self) -> CompletionStreamResponse:
        if self._conversion.waiting:
            return self._conversion.waiting.popleft()
        try:
            return self._conversion.chunk(next(self._chunks))
        except LLMEngineError as error:
            self._chunks.close()
            return self._conversion.error(error)

    def close(self) -> None:
        """End the work; returns at once. Idempotent."""
        self._conversion.waiting.clear()
        self._chunks.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncCompletionStream(AsyncIterator[CompletionStreamResponse]):
    """The same for ``async for`` and ``async with``; made by ``open``.

    ``aclose()``, leaving its ``async with``, a cancelled reader, or its last reference going ends the work.
    """

    def __init__(self, conversion: _Conversion, chunks: AsyncStream[GenerationChunk]) -> None:
        self._conversion = conversion
        self._chunks = chunks

    @classmethod
    async def open(
        cls, engine: Engine, arguments: CompletionArguments, *, caller: str
    ) -> AsyncCompletionStream:
        """Begin the answer; raises what is wrong with the request."""
        conversion = _Conversion(engine, arguments, caller)
        return cls(conversion, await AsyncStream.open(engine, conversion.open))

    async def __anext__(self) -> CompletionStreamResponse:
        if self._conversion.waiting:
            return self._conversion.waiting.popleft()
        try:
            return self._conversion.chunk(await anext(self._chunks))
        except LLMEngineError as error:
            await self._chunks.aclose()
            return self._conversion.error(error)

    async def aclose(self) -> None:
        """End the work; returns at once. Idempotent."""
        self._conversion.waiting.clear()
        await self._chunks.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
