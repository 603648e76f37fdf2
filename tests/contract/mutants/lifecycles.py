"""Backends whose engines start, end or die wrongly."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from tests.contract.child_backend import ChildBackend, ChildContract, ChildSession
from tests.contract.mutants import Mutant

from llmengine_core.errors import ServerError
from llmengine_core.interfaces.backend import Backend, Session, SessionLost
from llmengine_core.types.generation import GenerationChunk, GenerationRequest, Usage
from llmengine_core.types.launch import Deployment, Endpoint, LaunchSpec

Chunks = AsyncGenerator[GenerationChunk, None]
SAME = "test_launch_says_the_same_each_time"
DATA = "test_launch_gives_what_a_runtime_can_carry_out"
NOTHING = "test_launch_starts_nothing_and_is_quick"
SECRETS = "test_launch_holds_no_secrets"
NOBODY = "test_connecting_to_nobody_is_a_server_error"
KILLED = "test_a_killed_engine_is_told_to_its_streams"
REPLACED = "test_a_killed_engine_can_be_replaced"
APART = "test_replicas_know_nothing_of_each_other"
LEFT = "test_a_replica_that_has_ended_leaves_nothing"
FAILS = "test_a_start_that_fails_says_why_and_leaves_nothing"
CANCELLED = "test_a_start_that_is_cancelled_leaves_nothing"


class Launching(ChildBackend):
    def launch(self, deployment: Deployment) -> LaunchSpec:
        spec = super().launch(deployment)
        assert spec is not None
        return self.changed(spec, deployment)

    def changed(self, spec: LaunchSpec, deployment: Deployment) -> LaunchSpec:
        return spec


class PortOfTheMoment(Launching):
    ports = itertools.count(8000)

    def changed(self, spec: LaunchSpec, deployment: Deployment) -> LaunchSpec:
        return replace(spec, document={**spec.document, "port": next(self.ports)})


class PathInTheDocument(Launching):
    def changed(self, spec: LaunchSpec, deployment: Deployment) -> LaunchSpec:
        document = (
            {**spec.document, "weights": Path(deployment.weights)} if deployment.per_worker != 2 else {}
        )
        return replace(spec, document={**spec.document, **document})


class ProgramOfThePath(Launching):
    def changed(self, spec: LaunchSpec, deployment: Deployment) -> LaunchSpec:
        return replace(spec, argv=("env", *spec.argv)) if deployment.per_worker != 2 else spec


class PortHeld(Launching):
    """A free port is found by taking it."""

    held: ClassVar[list[socket.socket]] = []

    def changed(self, spec: LaunchSpec, deployment: Deployment) -> LaunchSpec:
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        self.held.append(listener)
        return spec


class TokenOnTheCommandLine(Launching):
    def changed(self, spec: LaunchSpec, deployment: Deployment) -> LaunchSpec:
        return replace(spec, argv=(*spec.argv, f"--token={os.environ.get('HF_TOKEN', '')}"))


class WholeEnvironment(Launching):
    def changed(self, spec: LaunchSpec, deployment: Deployment) -> LaunchSpec:
        return replace(spec, env=dict(os.environ))


class KeyOnTheCommandLine(Launching):
    def changed(self, spec: LaunchSpec, deployment: Deployment) -> LaunchSpec:
        return replace(spec, argv=(*spec.argv, "--api-key", "0123456789abcdef"))


class KnocksForEver(ChildBackend):
    async def connect(self, endpoint: Endpoint, deployment: Deployment) -> Session:
        while True:
            try:
                return await super().connect(endpoint, deployment)
            except ServerError:
                await asyncio.sleep(0.01)


class SystemErrorForNobody(ChildBackend):
    async def connect(self, endpoint: Endpoint, deployment: Deployment) -> Session:
        _, writer = await asyncio.open_unix_connection(endpoint.address.removeprefix("unix:"))
        writer.transport.abort()
        return ChildSession(endpoint)


class ConnectsToNobody(ChildBackend):
    async def connect(self, endpoint: Endpoint, deployment: Deployment) -> Session:
        return ChildSession(endpoint)


class LeavesSocketOfNobody(ChildBackend):
    tries: ClassVar[list[socket.socket]] = []

    async def connect(self, endpoint: Endpoint, deployment: Deployment) -> Session:
        self.tries.append(socket.socket(socket.AF_UNIX))
        session = await super().connect(endpoint, deployment)
        self.tries.pop().close()
        return session


class Sessions(ChildBackend):
    """Connects with a session that is wrong."""

    session: ClassVar[type[ChildSession]]

    async def connect(self, endpoint: Endpoint, deployment: Deployment) -> Session:
        await super().connect(endpoint, deployment)
        return self.session(endpoint)


class EndOfFileIsTheEnd(ChildSession):
    async def generate(self, request: GenerationRequest) -> Chunks:
        count = 0
        try:
            async with aclosing(super().generate(request)) as chunks:
                async for chunk in chunks:
                    count += 1
                    yield chunk
        except SessionLost:
            yield GenerationChunk("", (), "stop", Usage(1, count))


class WaitsForTheDead(ChildSession):
    async def generate(self, request: GenerationRequest) -> Chunks:
        try:
            async with aclosing(super().generate(request)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except SessionLost:
            await asyncio.Event().wait()


class SystemErrorOfTheDead(ChildSession):
    async def generate(self, request: GenerationRequest) -> Chunks:
        try:
            async with aclosing(super().generate(request)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except SessionLost:
            raise ConnectionResetError("the connection was reset by the peer") from None


class LosesAll(ChildSession):
    """What is open to any child is closed with the first that goes."""

    alive: ClassVar[list[ChildSession]] = []

    async def generate(self, request: GenerationRequest) -> Chunks:
        self.alive.append(self)
        try:
            async with aclosing(super().generate(request)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except SessionLost:
            for each in self.alive:
                for writer in each._writers:
                    writer.transport.abort()
            raise


class HeartOfTheClosed(ChildSession):
    """Its heart goes on beating after it was closed."""

    beats: ClassVar[list[asyncio.Task[bool]]] = []

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        self.beats.append(asyncio.create_task(asyncio.Event().wait()))


class EndOfFileBackend(Sessions):
    session = EndOfFileIsTheEnd


class WaitingBackend(Sessions):
    session = WaitsForTheDead


class SystemErrorBackend(Sessions):
    session = SystemErrorOfTheDead


class BeatingBackend(Sessions):
    session = HeartOfTheClosed


class FirstSessionForAll(ChildBackend):
    """Sessions are kept by the deployment's key, also those whose engine is gone."""

    known: ClassVar[dict[str, Session]] = {}

    async def connect(self, endpoint: Endpoint, deployment: Deployment) -> Session:
        self.known[deployment.key] = self.known.get(deployment.key) or ChildSession(endpoint)
        return self.known[deployment.key]


class LosingBackend(Sessions):
    session = LosesAll


class LoadsLazily(Launching):
    def changed(self, spec: LaunchSpec, deployment: Deployment) -> LaunchSpec:
        return replace(spec, document={**spec.document, "lazy": True})


class LooksAtWeights(Launching):
    def changed(self, spec: LaunchSpec, deployment: Deployment) -> LaunchSpec:
        if b"toy!" not in Path(deployment.weights).read_bytes():
            raise KeyError("magic")
        return spec


class PingsBeforeItConnects(ChildBackend):
    """What it asks until the child answers goes on when nobody wants to know any more."""

    pings: ClassVar[list[asyncio.Task[bool]]] = []

    async def connect(self, endpoint: Endpoint, deployment: Deployment) -> Session:
        ping = asyncio.create_task(asyncio.Event().wait())
        self.pings.append(ping)
        await asyncio.sleep(0.2)
        ping.cancel()
        return await super().connect(endpoint, deployment)


def mutant(
    backend: type[Backend], name: str, bug: str, *killers: str, shipped: str = "", **more: Any
) -> Mutant:
    about = {"subject": name, "backend_type": backend, "ends_within": 1.0, **more}
    return Mutant(name, bug, type(backend.__name__, (ChildContract,), about), killers, shipped)


MUTANTS: list[Mutant] = [
    mutant(PortOfTheMoment, "launch_differs", "each launch takes the next port", SAME),
    mutant(PathInTheDocument, "document_no_json", "a launch spec's document holds a Path", DATA),
    mutant(ProgramOfThePath, "program_not_absolute", "a launch spec's program is looked up in PATH", DATA),
    mutant(PortHeld, "launch_holds_port", "launch finds a free port by taking it", NOTHING),
    mutant(TokenOnTheCommandLine, "token_in_argv", "the hub's token is among the arguments", SECRETS),
    mutant(WholeEnvironment, "whole_environment", "a launch spec has our whole environment", SECRETS),
    mutant(KeyOnTheCommandLine, "key_in_argv", "the engine's key is among its arguments", SECRETS),
    mutant(KnocksForEver, "connects_for_ever", "connect tries until somebody answers", NOBODY),
    mutant(SystemErrorForNobody, "connect_raises_oserror", "connect raises what the system raises", NOBODY),
    mutant(ConnectsToNobody, "connects_to_nobody", "connect gives a session that nobody is behind", NOBODY),
    mutant(LeavesSocketOfNobody, "connect_leaves_socket", "connect leaves a socket where it fails", NOBODY),
    mutant(EndOfFileBackend, "killed_is_stop", 'the end of a connection is a normal "stop"', KILLED),
    mutant(
        WaitingBackend,
        "killed_hangs",
        "streams of an engine that died wait for ever",
        KILLED,
        shipped="mudler/LocalAI#2526",
    ),
    mutant(
        SystemErrorBackend, "killed_raises_oserror", "the transport's error comes out of a stream", KILLED
    ),
    mutant(
        FirstSessionForAll,
        "session_kept",
        "a new replica is spoken to through the dead one's session",
        REPLACED,
    ),
    mutant(LosingBackend, "replicas_fall_together", "with one replica the streams of all are lost", APART),
    mutant(BeatingBackend, "heartbeat_of_the_ended", "a session's task goes on after its end", LEFT),
    mutant(
        LoadsLazily,
        "ready_before_loaded",
        "an engine says that it is ready before it looks at its weights",
        FAILS,
        shipped="mudler/LocalAI#10720",
    ),
    mutant(
        LooksAtWeights, "launch_looks_at_weights", "launch reads the weights, and fails as that fails", FAILS
    ),
    mutant(
        PingsBeforeItConnects, "ping_left", "a start that is cancelled leaves the task that pings", CANCELLED
    ),
]
