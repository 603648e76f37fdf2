"""The routes of llama.cpp's server that are used, with its errors as ours."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from llmengine_core.errors import ServerError
from llmengine_core.http import HttpClient, HttpStatusError, InvalidAnswer
from llmengine_core.types.generation import Message
from llmengine_llamacpp.wire import Frame, refuse

__all__ = ["Client"]


class Client:
    """Raises ``HttpError`` where the server can't be spoken to, our errors where it refuses."""

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    async def stream(self, body: Frame) -> AsyncGenerator[Frame, None]:
        """The events of a completion, the final one last. Closing it cancels."""
        events = self._http.events("/completion", body)
        try:
            async for event in events:
                try:
                    frame: Frame = json.loads(event)
                except ValueError as error:
                    raise InvalidAnswer(f"an event is no JSON: {event[:200]!r}") from error
                if "error" in frame:
                    refuse(500, event)
                yield frame
                if frame["stop"]:
                    return
        except HttpStatusError as error:
            refuse(error.status, error.body, max_tokens=body["n_predict"])
        finally:
            await events.aclose()
        raise ServerError("llama.cpp's answer broke off: it ended without saying why")

    async def complete(self, body: Frame) -> Frame:
        """A completion as a whole. It can't be cancelled: for single tokens only."""
        frame: Frame = await self._ask("/completion", {**body, "stream": False})
        return frame

    async def tokenize(self, text: str) -> list[int]:
        """The tokens of a prompt: with the model's start token, special tokens by their names."""
        body = {"content": text, "add_special": True, "parse_special": True}
        tokens: list[int] = (await self._ask("/tokenize", body))["tokens"]
        return tokens

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """Their text, with U+FFFD for bytes that are no character."""
        return str((await self._ask("/detokenize", {"tokens": list(tokens)}))["content"])

    async def apply_template(self, messages: Sequence[Message]) -> str:
        """A conversation as the prompt for its next turn, by the model's own template."""
        turns = [{"role": message.role, "content": message.content} for message in messages]
        return str((await self._ask("/apply-template", {"messages": turns}))["prompt"])

    async def aclose(self) -> None:
        """Drop every connection. Idempotent."""
        await self._http.aclose()

    async def _ask(self, path: str, body: Frame) -> Any:
        response = await self._http.request("POST", path, body)
        if response.status != 200:
            refuse(response.status, response.body)
        return response.json()
