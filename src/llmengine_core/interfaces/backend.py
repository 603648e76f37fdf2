"""Engines: how they are started and how they are spoken to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from typing import Self

from llmengine_core.errors import ServerError
from llmengine_core.types.generation import GenerationChunk, GenerationRequest, Prompt, SessionFacts
from llmengine_core.types.launch import Deployment, Endpoint, LaunchSpec

__all__ = ["Backend", "Session", "SessionLost"]


class SessionLost(ServerError):
    """The engine is gone, or the connection to it broke, and nothing more is known of the request.

    Raised by ``Session.generate``. Where it comes before the first chunk, a pool tries again elsewhere.
    """


class Session(ABC):
    """Something that generates: a raw engine, a pool of replicas, a remote server.

    It is an async context manager; leaving it calls ``aclose``. All calls come from one event loop, any
    number of them at once; they don't disturb each other.
    """

    @property
    @abstractmethod
    def facts(self) -> SessionFacts:
        """What it knows of itself. Known once ``Backend.connect`` has returned; does not change after."""

    @abstractmethod
    def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        """Stream the answer to one request.

        The caller promises: values in range, a prompt that with ``max_tokens`` fits the context (an engine may
        still refuse: ``BadRequestError``), and that the generator is iterated to its end or closed.

        The session promises:

        * nothing happens before the first ``__anext__``;
        * what ``facts.capabilities`` doesn't declare is an ``UnsupportedFeatureError`` then, never dropped
          (``llmengine_core.gate.refuse_undeclared`` sees to it);
        * exactly one chunk has ``finish_reason`` and ``usage``; it is the last;
        * the texts joined are the answer; no text is taken back; no part of a stop sequence is shown
          that is not part of the answer;
        * ``finish_reason`` is "stop" where the model or a stop sequence ended it, "length" where
          ``max_tokens`` or the context did, "cancelled" where the session was closed under it;
        * a ``structured`` request obeys its ``translation`` token by token;
        * ``aclose()`` of the generator, or cancelling the task that awaits it, returns at once and stops
          the engine's work within 2 s (while a prompt is being read: where ``cancels_prefill``);
        * past ``deadline`` it stops and raises ``RequestTimeoutError``;
        * it raises only errors of ``llmengine_core.errors``: ``BadRequestError`` for what the caller must
          change, ``SessionLost`` where the engine is gone, ``ServerError`` with its own reason for the rest.
        """

    @abstractmethod
    async def count_tokens(self, prompt: Prompt) -> int:
        """How many tokens the prompt takes in this model, a start token included."""

    async def load_adapter(self, name: str, path: str) -> None:
        """Make the adapter in the folder ``path`` usable as ``GenerationRequest.adapter == name``.

        Only called where ``facts.capabilities.adapters`` is "dynamic".
        """
        raise NotImplementedError(f"{type(self).__name__} declares no dynamic adapters")

    async def unload_adapter(self, name: str) -> None:
        """Forget an adapter. Requests that use it finish first."""
        raise NotImplementedError(f"{type(self).__name__} declares no dynamic adapters")

    @abstractmethod
    async def aclose(self) -> None:
        """End live streams (finish reason "cancelled"), let go of everything. Idempotent, never raises."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class Backend(ABC):
    """An engine's plugin: says how to start it, and how to speak to it. Starts nothing itself."""

    @abstractmethod
    def launch(self, deployment: Deployment) -> LaunchSpec | None:
        """How to start one replica; None where somebody else runs the server. Pure and quick."""

    @abstractmethod
    async def connect(self, endpoint: Endpoint, deployment: Deployment) -> Session:
        """A session on a replica that is ready. Raises ``ServerError`` where it can't be had."""
