"""A program of calls on one session, drawn step by step, and written down as code that can be run again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from llmengine_core.errors import LLMEngineError
from llmengine_core.interfaces.backend import Session
from llmengine_core.testing.answers import Answer, ask, request
from llmengine_core.testing.contracts.sessions.agreement import AgreementGround
from llmengine_core.testing.contracts.sessions.ground import NEAR_TIE
from llmengine_core.testing.contracts.sessions.streams import Stream, within
from llmengine_core.testing.laws import NotApplicable
from llmengine_core.testing.portal import Keeper
from llmengine_core.testing.strategies.requests import SENTENCES
from llmengine_core.types.generation import GenerationRequest, Text

__all__ = ["Failure", "SessionProgram"]

HEAD = """\
import asyncio
from llmengine_core.testing.answers import ask, request

async def program(session):  # and another() gives a new one
"""
LEAST = 8
"""Steps of a program that are carried out, however long they take."""
LOADS = 3
"""Most times that an adapter is loaded in one program."""
LIVE = 4
"""Most streams at once in one program."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A program that failed."""

    program: str
    said: str
    at: float = field(default_factory=time.monotonic)


class SessionProgram(RuleBasedStateMachine):
    """Streams by name on one session. The model: what each request is answered alone.

    Which steps there may be next depends on the steps so far alone, never on how they went or how long they took: a
    program that there is no time for any more goes through the same steps, and does nothing.
    """

    ground: ClassVar[AgreementGround]
    found: ClassVar[list[Failure]]
    known: ClassVar[dict[GenerationRequest, Answer]]
    """Answers alone, of the shared session."""
    own: ClassVar[bool]
    """Whether each program has a session of its own."""

    def wanted(self) -> bool:
        """Whether there is time for another program."""
        return True

    def __init__(self) -> None:
        super().__init__()
        self.idle = not self.wanted()
        self.lines: list[str] = []
        self.asked: list[GenerationRequest] = []
        self.open: list[str] = []
        """Streams that no step has ended; what they have come to isn't known to the model."""
        self.streams: dict[str, Stream] = {}
        self.adapter_of: dict[str, str | None] = {}
        self.strayed: set[str] = set()
        """Streams that took another way at a near tie."""
        self.loaded: set[str] = set()
        self.begun = 0
        self.loads = 0
        self.closings = 0
        self.closed = False
        self.keeper: Keeper[Session] | None = None
        self.session: Session = self.ground.session

    # -- what every step does

    def step(self, line: str, work: Coroutine[Any, Any, None]) -> None:
        """Carry out a step, and write it down."""
        if len(self.lines) >= LEAST and not self.wanted():
            self.idle = True
        if self.idle:
            work.close()
            return
        self.lines.append(line)
        try:
            self.ground.portal().run(work, seconds=self.ground.patience, what=f"`{line}`")
        except NotApplicable:
            raise
        except Exception as error:
            said = str(error) if isinstance(error, AssertionError) else f"`{line}` raised {error!r}"
            self.found.append(Failure(HEAD + "".join(f"    {each}\n" for each in self.lines), said))
            raise AssertionError(said) from error

    def gone(self, name: str) -> None:
        """Forget a stream that this step ends."""
        self.open.remove(name)

    # -- the steps

    @initialize(
        prompts=st.lists(st.sampled_from(SENTENCES), min_size=2, max_size=3, unique=True),
        tokens=st.integers(2, 8),
    )
    def think_of_requests(self, prompts: list[str], tokens: int) -> None:
        """Draw the requests of this program; what each is answered alone is asked before it begins."""
        self.asked = [request(each, max_tokens=tokens) for each in prompts]
        if not self.idle:
            thinking = self._think(prompts, tokens)
            self.ground.portal().run(thinking, seconds=self.ground.patience, what="asking alone")

    async def _think(self, prompts: list[str], tokens: int) -> None:
        most = self.ground.modest(tokens, 2 * len(prompts))
        plain = [request(each, max_tokens=most, **self.ground.comparable) for each in prompts]
        self.asked = [await self.ground.fitted(each) for each in plain]
        shared = self.ground.session
        for each in self.asked:
            if each not in self.known:
                self.known[each] = await ask(shared, each)
        if self.ground.capabilities.adapters == "dynamic":
            for name, path in self.ground.adapters.items():
                await self._know(name, path)
        await self._open()

    async def _know(self, name: str, path: str) -> None:
        """Ask the shared session what each request is answered on an adapter."""
        shared = self.ground.session
        missing = [each for asked in self.asked if (each := replace(asked, adapter=name)) not in self.known]
        if missing:
            await shared.load_adapter(name, path)
            for each in missing:
                self.known[each] = await ask(shared, each)
            await shared.unload_adapter(name)

    @precondition(
        lambda self: self.asked and len(self.open) < min(LIVE, self.ground.slots) and not self.closed
    )
    @rule(which=st.integers(0, 2), adapter=st.integers(0, 2), chunks=st.integers(0, 2))
    def start(self, which: int, adapter: int, chunks: int) -> None:
        """Begin a stream, and read some chunks."""
        asked = self.asked[which % len(self.asked)]
        if self.loaded and adapter:
            asked = replace(asked, adapter=sorted(self.loaded)[adapter % len(self.loaded)])
        self.begun += 1
        name = f"s{self.begun}"
        self.open.append(name)
        self.adapter_of[name] = asked.adapter
        text = asked.prompt.text if isinstance(asked.prompt, Text) else ""
        given = "".join(f", {key}={value!r}" for key, value in self.ground.comparable.items())
        if asked.adapter is not None:
            given += f", adapter={asked.adapter!r}"
        self.step(
            f"{name} = session.generate(request({text!r}, max_tokens={asked.sampling.max_tokens}{given}))",
            self._start(name, asked),
        )
        self._pull_some(name, chunks)

    async def _start(self, name: str, asked: GenerationRequest) -> None:
        self.streams[name] = Stream(self.session, asked)

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, LIVE - 1), chunks=st.integers(1, 3))
    def pull(self, which: int, chunks: int) -> None:
        """Read some chunks."""
        self._pull_some(self._one(which), chunks)

    def _pull_some(self, name: str, chunks: int) -> None:
        for _ in range(chunks):
            self.step(f"await anext({name}, None)", self._pull(name))

    async def _pull(self, name: str) -> None:
        stream = self.streams[name]
        if stream.over:
            return
        await stream.pull(self.ground.allowed(stream.asked.sampling.max_tokens, LIVE))
        self._judge(name)

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, LIVE - 1))
    def finish(self, which: int) -> None:
        """Read a stream to its end."""
        name = self._one(which)
        self.gone(name)
        self.step(f"async for _ in {name}: pass", self._finish(name))

    async def _finish(self, name: str) -> None:
        stream = self.streams[name]
        await stream.rest(self.ground.allowed(stream.asked.sampling.max_tokens, LIVE))
        self._judge(name)

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, LIVE - 1))
    def close(self, which: int) -> None:
        """Close a stream, however far it was read."""
        name = self._one(which)
        self.gone(name)
        self.step(f"await {name}.aclose()", self._give_up(name))

    async def _give_up(self, name: str) -> None:
        await self.streams[name].close(self.ground.control)

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, LIVE - 1))
    def cancel(self, which: int) -> None:
        """Cancel the task that waits for a chunk; the chunk may be there already."""
        name = self._one(which)
        self.gone(name)
        self.step(
            f"t = asyncio.ensure_future(anext({name})); await asyncio.sleep(0); t.cancel(); await asyncio.wait([t]); "
            f"await {name}.aclose()",
            self._cancel(name),
        )

    async def _cancel(self, name: str) -> None:
        stream = self.streams[name]
        if not stream.over:
            came = await stream.interrupt(self.ground.control)
            if isinstance(came, Exception):
                raise came
            self._judge(name, given_up=not stream.finished)
        await stream.close(self.ground.control)

    @precondition(lambda self: self.open and not self.closed)
    @rule(which=st.integers(0, 2))
    def count(self, which: int) -> None:
        """Count a prompt's tokens."""
        asked = self.asked[which % len(self.asked)]
        self.step(f"await session.count_tokens({asked.prompt!r})", self._count(asked))

    async def _count(self, asked: GenerationRequest) -> None:
        counting = self.session.count_tokens(asked.prompt)
        count = await within(self.ground.allowed(8, LIVE), counting, "counting tokens")
        usual = self.known[asked].usage.prompt_tokens
        assert count == usual, (
            f"{asked.prompt} has {usual} tokens by its usage alone, and count_tokens says {count}"
        )

    @precondition(lambda self: self._unloaded())
    @rule(which=st.integers(0, 1))
    def load_adapter(self, which: int) -> None:
        """Load an adapter."""
        unloaded = self._unloaded()
        name = unloaded[which % len(unloaded)]
        path = self.ground.adapters[name]
        self.loaded.add(name)
        self.loads += 1
        self.step(f"await session.load_adapter({name!r}, {path!r})", self._load(name, path))

    async def _load(self, name: str, path: str) -> None:
        await self.session.load_adapter(name, path)

    @precondition(lambda self: self._unused())
    @rule(which=st.integers(0, 1))
    def unload_adapter(self, which: int) -> None:
        """Unload an adapter that no live stream is on."""
        unused = self._unused()
        name = unused[which % len(unused)]
        self.loaded.discard(name)
        self.step(f"await session.unload_adapter({name!r})", self._unload(name))

    async def _unload(self, name: str) -> None:
        await self.session.unload_adapter(name)

    @precondition(lambda self: self.own and self.open and not self.closings)
    @rule()
    def close_the_session(self) -> None:
        """Close a session of the program's own, under its streams."""
        self.closed = True
        self.closings += 1
        self.open.clear()
        self.loaded.clear()
        self.step("await session.aclose()", self._close())

    async def _close(self) -> None:
        await within(self.ground.settles_within, self.session.aclose(), "closing the session")
        for name, stream in self.streams.items():
            if stream.over:
                continue
            begun = bool(stream.read)
            try:
                await stream.rest(self.ground.settles_within)
            except LLMEngineError:
                assert not begun, f"{name} was alive when its session was closed, and raised an error"
                continue
            if stream.answer.finish_reason != "cancelled":
                self._judge(name)

    @precondition(lambda self: self.closed)
    @rule()
    def open_another(self) -> None:
        """Go on with a new session."""
        self.closed = False
        self.step("session = await another()", self._reopen())

    async def _reopen(self) -> None:
        await self._end()
        await self._open()

    async def _open(self) -> None:
        """Open a session of this program's own."""
        if self.own:
            self.keeper = Keeper(self.ground.portal(), self.ground.another)
            self.session = await asyncio.to_thread(self.keeper.enter, self.ground.patience)

    def teardown(self) -> None:
        """Be rid of what is left."""
        if not self.streams and self.keeper is None and not self.loaded:
            return
        with suppress(Exception):
            self.ground.portal().run(self._end(), seconds=self.ground.patience, what="ending a program")

    async def _end(self) -> None:
        ends = [asyncio.ensure_future(each.abandon()) for each in self.streams.values()]
        if ends:
            await asyncio.wait(ends, timeout=self.ground.control)
        self.streams.clear()
        if self.keeper is None:
            for name in self.loaded:
                await self.session.unload_adapter(name)
        else:
            keeper, self.keeper = self.keeper, None
            await asyncio.to_thread(keeper.leave, self.ground.patience)

    def _unloaded(self) -> list[str]:
        """Adapters that can be loaded."""
        if (
            self.closed
            or not self.asked
            or self.loads == LOADS
            or self.ground.capabilities.adapters != "dynamic"
        ):
            return []
        return sorted(self.ground.adapters.keys() - self.loaded)

    def _unused(self) -> list[str]:
        """Adapters that can be unloaded."""
        used = {self.adapter_of[name] for name in self.open}
        return [] if self.closed else sorted(self.loaded - used)

    def _one(self, which: int) -> str:
        return self.open[which % len(self.open)]

    # -- the model

    def _judge(self, name: str, *, given_up: bool = False) -> None:
        """Compare what a stream has said with what its request is answered alone."""
        stream = self.streams[name]
        alone = self.known[stream.asked]
        answer = stream.answer
        ended = [number for number, chunk in enumerate(answer.chunks) if chunk.finish_reason is not None]
        assert ended in ([], [len(answer.chunks) - 1]), f"{name} has ended and goes on: {answer.chunks}"
        assert not stream.over or ended or given_up, f"{name} ended without a last chunk: {answer.chunks}"
        if ended:
            self.ground.as_alone([alone], [answer], f"{name} is answered otherwise than alone")
        elif not alone.text.startswith(answer.text) and name not in self.strayed:
            assert self._may_stray(alone, answer), (
                f"{name} has said {answer.text!r}; alone its request is answered {alone.text!r}"
            )
            self.strayed.add(name)

    def _may_stray(self, alone: Answer, answer: Answer) -> bool:
        """Whether the first tokens that differ are about as likely; True where log probs don't tell."""
        if self.ground.capabilities.batch_invariant:
            return False
        for one, other in zip(alone.tokens, answer.tokens, strict=False):
            if (one.id, one.text) != (other.id, other.text):
                if one.logprob is None or other.logprob is None:
                    return True
                return abs(one.logprob - other.logprob) <= NEAR_TIE
        return not self.ground.capabilities.logprobs
