"""A backend whose engine is a real child process, small and quick to start: what lifecycles are judged on."""

from __future__ import annotations

import asyncio
import atexit
import json
import shutil
import sys
import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import ClassVar

from llmengine_core.deadlines import Watch
from llmengine_core.errors import ServerError
from llmengine_core.gate import refuse_undeclared
from llmengine_core.interfaces.backend import Backend, Session, SessionLost
from llmengine_core.interfaces.runtime import Runtime
from llmengine_core.runtime_local import LocalRuntime
from llmengine_core.testing.contracts.backends.lifecycle import BackendLifecycleContract
from llmengine_core.testing.contracts.backends.lifecycle_ground import Startable
from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.generation import (
    GenerationChunk,
    GenerationRequest,
    Prompt,
    SessionFacts,
    Text,
    Token,
    Usage,
)
from llmengine_core.types.launch import Deployment, Endpoint, LaunchSpec

SERVER = Path(__file__).with_name("child_server.py")
_folder = Path(tempfile.mkdtemp(prefix="child-"))
atexit.register(shutil.rmtree, _folder, ignore_errors=True)
WEIGHTS = _folder / "weights.toy"
WEIGHTS.write_bytes(b"toy!")


class ChildSession(Session):
    """A connection for each request."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._writers: set[asyncio.StreamWriter] = set()
        self._closed = False

    @property
    def facts(self) -> SessionFacts:
        return SessionFacts(256, Capabilities(batch_invariant=True))

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        refuse_undeclared(request, self.facts.capabilities, who="the child")
        if self._closed:
            raise SessionLost("the session was closed")
        assert isinstance(request.prompt, Text)
        watch = Watch(request.deadline, None)
        writer: asyncio.StreamWriter | None = None
        count = 0
        try:
            with watch:
                reader, writer = await self.connected()
                self._writers.add(writer)
                asked = {"text": request.prompt.text, "max_tokens": request.sampling.max_tokens}
                writer.write(f"{self._endpoint.key}\n{json.dumps(asked)}\n".encode())
            usage = Usage(len(request.prompt.text), request.sampling.max_tokens)
            while count < request.sampling.max_tokens:
                with watch:
                    line = await reader.readline()
                if not line:
                    if not self._closed:
                        raise self.lost(count)
                    yield GenerationChunk("", (), "cancelled", Usage(usage.prompt_tokens, count))
                    return
                count, character = json.loads(line)
                token = Token(ord(character), character)
                if count == request.sampling.max_tokens:
                    yield GenerationChunk(character, (token,), "length", usage)
                else:
                    yield GenerationChunk(character, (token,))
        except OSError as error:
            if self._closed:
                yield GenerationChunk("", (), "cancelled", Usage(len(request.prompt.text), count))
                return
            raise SessionLost(f"the child is gone: {error}") from error
        finally:
            watch.close()
            if writer is not None:
                self._writers.discard(writer)
                writer.transport.abort()

    async def connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A new connection."""
        return await asyncio.open_unix_connection(self._endpoint.address.removeprefix("unix:"))

    def lost(self, count: int) -> Exception:
        """What is raised where the child goes in the middle."""
        return SessionLost(f"the child is gone, after {count} tokens")

    async def count_tokens(self, prompt: Prompt) -> int:
        assert isinstance(prompt, Text)
        return len(prompt.text)

    async def aclose(self) -> None:
        self._closed = True
        for each in self._writers:
            each.transport.abort()


class ChildBackend(Backend):
    """Starts ``child_server``."""

    def launch(self, deployment: Deployment) -> LaunchSpec | None:
        return LaunchSpec(
            argv=(sys.executable, "-I", "-S", str(SERVER)),
            document={"weights": deployment.weights, "context_length": deployment.context_length},
            subject="the child",
        )

    async def connect(self, endpoint: Endpoint, deployment: Deployment) -> Session:
        try:
            _, writer = await asyncio.open_unix_connection(endpoint.address.removeprefix("unix:"))
        except OSError as error:
            raise ServerError(f"the child can't be spoken to: {error}") from error
        writer.transport.abort()
        return ChildSession(endpoint)


class ChildContract(BackendLifecycleContract):
    """Of ``backend_type``, on real processes."""

    subject = "a child"
    backend_type: ClassVar[type[Backend]] = ChildBackend
    runtime_type: ClassVar[type[LocalRuntime]] = LocalRuntime
    ends_within = 2.0
    settles_within = 2.0

    @classmethod
    def declared(cls) -> Capabilities:
        return Capabilities(batch_invariant=True)

    @classmethod
    async def startable(cls) -> Startable:
        deployment = Deployment(
            backend="child", version="1", weights=str(WEIGHTS), weights_digest="0" * 64, per_worker=2
        )

        def runtime() -> Runtime:
            return cls.runtime_type(_folder)

        return Startable(cls.backend_type(), deployment, runtime)
