"""Files between this terminal or disk and the storage, streamed."""

from __future__ import annotations

import asyncio
import base64
import os
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

from llmengine_core.cli.console import Console
from llmengine_core.cli.descriptors import readable
from llmengine_core.cli.running import caller
from llmengine_core.engine import Engine
from llmengine_core.errors import BadRequestError, ServerError
from llmengine_core.types.objects import FileRecord

__all__ = ["content_response", "print_content", "upload_from", "write_content"]

PIECE = 1 << 20
"""Bytes read at a time."""


async def upload_from(engine: Engine, path: str, filename: str) -> FileRecord:
    """Upload a file of this machine, or with "-" the standard input."""
    if path == "-":
        return await engine.files.upload(_pieces(sys.stdin.fileno()), filename=filename, caller=caller())
    with await asyncio.to_thread(open, path, "rb", 0) as file:
        size = os.fstat(file.fileno()).st_size
        return await engine.files.upload(
            _pieces(file.fileno()), filename=filename, size=size, caller=caller()
        )


async def _pieces(descriptor: int) -> AsyncIterator[bytes]:
    """What can be read there, to its end. Waiting for a pipe holds up neither the loop nor Ctrl-C."""
    while True:
        await readable(descriptor)
        piece = await asyncio.to_thread(os.read, descriptor, PIECE)
        if not piece:
            return
        yield piece


async def print_content(engine: Engine, file_id: str, console: Console) -> None:
    """Print a file's content, byte for byte."""
    async with aclosing(engine.files.read(file_id, caller=caller())) as pieces:
        async for piece in pieces:
            await console.write(piece)


async def write_content(engine: Engine, file_id: str, target: Path) -> None:
    """Write a file's content to ``target``: whole, or not at all."""
    target = await asyncio.to_thread(target.resolve)
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    try:
        if await asyncio.to_thread(target.exists) and not await asyncio.to_thread(target.is_file):
            raise BadRequestError(f"{target} is no regular file; leave --output away and redirect the output")
        file = await asyncio.to_thread(partial.open, "xb")
        try:
            with file:
                async with aclosing(engine.files.read(file_id, caller=caller())) as pieces:
                    async for piece in pieces:
                        await asyncio.to_thread(file.write, piece)
            await asyncio.to_thread(partial.replace, target)
        finally:
            await asyncio.to_thread(partial.unlink, missing_ok=True)
    except OSError as error:
        raise ServerError(f"{target} can't be written: {error.strerror or error}") from error


async def content_response(engine: Engine, file_id: str) -> dict[str, object]:
    """A file with its content as a text."""
    record = await engine.files.get(file_id, caller=caller())
    content = b"".join([piece async for piece in engine.files.read(file_id, caller=caller())])
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = base64.b64encode(content).decode()
    return {"id": record.id, "content": text}
