"""A server that doesn't keep to llama.cpp's protocol, on a real socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from llmengine_core.errors import BadRequestError, LLMEngineError, ServerError
from llmengine_core.http import HttpClient
from llmengine_core.interfaces.backend import SessionLost
from llmengine_core.testing.answers import request
from llmengine_core.types.generation import GenerationChunk
from llmengine_llamacpp.client import Client
from llmengine_llamacpp.session import LlamaCppSession

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
CHILD = {"tokenizer": "llama", "context_length": 64, "slots": 1, "xllamacpp": "1"}


def event(**frame: object) -> bytes:
    return b"data: " + json.dumps(frame).encode() + b"\n\n"


TOKEN = event(content="Hi", tokens=[1], stop=False, tokens_predicted=1, tokens_evaluated=5)


@asynccontextmanager
async def answering(folder: Path, answer: bytes) -> AsyncIterator[LlamaCppSession]:
    """A session on a server that gives every request the same answer."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    path = folder / "s"
    server = await asyncio.start_unix_server(serve, path)
    try:
        client = Client(HttpClient(f"unix:{path}", "key"))
        async with await LlamaCppSession.open(client, CHILD, weights_digest="") as session:
            yield session
    finally:
        server.close()
        await server.wait_closed()


async def failure(folder: Path, answer: bytes) -> tuple[list[GenerationChunk], LLMEngineError]:
    """What came of a request, and how it ended."""
    chunks: list[GenerationChunk] = []

    async def drain(session: LlamaCppSession) -> None:
        async for chunk in session.generate(request("Hi", max_tokens=4)):
            chunks.append(chunk)  # noqa: PERF401 - what came is wanted also where it fails

    async with answering(folder, answer) as session:
        with pytest.raises(LLMEngineError) as caught:
            await drain(session)
    return chunks, caught.value


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (STREAM + TOKEN + b"data: {oops\n\n", ServerError, "no JSON"),
        (STREAM + TOKEN, ServerError, "without saying why"),
        (STREAM + TOKEN + event(error={"code": 500, "message": "out of luck"}), ServerError, "out of luck"),
        (STREAM + TOKEN + event(error={"code": 400, "message": "bad"}), BadRequestError, "bad"),
        (STREAM.replace(b"close", b"close\r\nContent-Length: 999") + TOKEN, SessionLost, "after 1 tokens"),
    ],
)
async def test_an_answer_that_breaks_off_is_an_error_after_what_came(
    tmp_path: Path, answer: bytes, kind: type[LLMEngineError], words: str
) -> None:
    chunks, error = await failure(tmp_path, answer)
    assert [chunk.text for chunk in chunks] == ["Hi"]
    assert type(error) is kind
    assert words in error.message


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"", SessionLost),
        (b"SMTP ready\r\n\r\n", ServerError),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nHi", ServerError),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\nHi", ServerError),
    ],
)
async def test_what_is_no_answer_is_an_error(
    tmp_path: Path, answer: bytes, kind: type[LLMEngineError]
) -> None:
    chunks, error = await failure(tmp_path, answer)
    assert chunks == []
    assert type(error) is kind
