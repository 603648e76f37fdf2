"""Adapters of a pool: every replica has the same ones, whatever happens in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmengine_core.adapters import Adapters
from llmengine_core.errors import BadRequestError
from llmengine_core.interfaces.backend import Session, SessionLost
from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.generation import GenerationChunk, GenerationRequest, Prompt, SessionFacts


@dataclass(eq=False)
class Replica(Session):
    """Takes note of its adapters; breaks laws loudly."""

    refuses: str | None = None
    gone: bool = False
    gate: asyncio.Event | None = None
    """Changes wait for it."""
    adapters: dict[str, str] = field(default_factory=dict)

    @property
    def facts(self) -> SessionFacts:
        return SessionFacts(100, Capabilities(adapters="dynamic"))

    def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        raise NotImplementedError

    async def count_tokens(self, prompt: Prompt) -> int:
        raise NotImplementedError

    async def load_adapter(self, name: str, path: str) -> None:
        await self._ready()
        assert name not in self.adapters, "loaded twice"
        if name == self.refuses:
            raise BadRequestError(f"{name} is for another base")
        self.adapters[name] = path

    async def unload_adapter(self, name: str) -> None:
        await self._ready()
        if name not in self.adapters:
            raise BadRequestError(f"there is no {name}")
        del self.adapters[name]

    async def _ready(self) -> None:
        await asyncio.sleep(0)
        if self.gate is not None:
            await self.gate.wait()
        if self.gone:
            raise SessionLost("gone")

    async def aclose(self) -> None:
        """Nothing is held."""


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


NAMES = st.sampled_from("abc")
OPERATIONS = st.one_of(
    st.tuples(st.just("load"), NAMES, st.sampled_from(["/1", "/2"])),
    st.tuples(st.just("unload"), NAMES),
    st.tuples(st.just("use"), NAMES),
    st.tuples(st.just("finish"), st.integers(0, 3)),
    st.tuples(st.just("start")),
    st.tuples(st.just("lose"), st.integers(0, 3)),
    st.tuples(st.just("wait")),
)


@given(operations=st.lists(OPERATIONS, max_size=30))
async def test_all_replicas_have_the_same_adapters(operations: list[tuple[str, object]]) -> None:
    replicas = [Replica()]
    adapters = Adapters(lambda: replicas)
    tasks: list[asyncio.Task[None]] = []
    uses: list[tuple[asyncio.Event, asyncio.Task[None]]] = []

    async def start() -> None:
        replica = Replica()
        await adapters.put_on(replica)
        replicas.append(replica)

    async def use(name: str, over: asyncio.Event) -> None:
        with adapters.used(name):
            having = [replica for replica in replicas if name in replica.adapters]
            await over.wait()
            assert all(name in replica.adapters for replica in having if not replica.gone)

    for what, *rest in operations:
        match what, rest:
            case "load", [str(name), str(path)]:
                tasks.append(asyncio.create_task(adapters.load(name, path)))
            case "unload", [str(name)]:
                tasks.append(asyncio.create_task(adapters.unload(name)))
            case "use", [str(name)] if any(name in replica.adapters for replica in replicas):
                over = asyncio.Event()
                uses.append((over, asyncio.create_task(use(name, over))))
            case "finish", [int(at)] if at < len(uses):
                uses[at][0].set()
            case "start", []:
                tasks.append(asyncio.create_task(start()))
            case "lose", [int(at)] if at < len(replicas) > 1:
                replicas.pop(at).gone = True
            case _:
                await settled()
    for over, _ in uses:
        over.set()
    results = await asyncio.gather(*tasks, *(task for _, task in uses), return_exceptions=True)
    assert all(result is None or isinstance(result, BadRequestError) for result in results), results
    assert all(replica.adapters == replicas[0].adapters for replica in replicas)
    fresh = Replica()
    await adapters.put_on(fresh)
    assert fresh.adapters == replicas[0].adapters


async def test_what_one_replica_refuses_none_keeps() -> None:
    replicas = [Replica(), Replica(refuses="a"), Replica()]
    adapters = Adapters(lambda: replicas)
    with pytest.raises(BadRequestError, match="a is for another base"):
        await adapters.load("a", "/a")
    assert [replica.adapters for replica in replicas] == [{}, {}, {}]
    await adapters.load("b", "/b")
    assert [replica.adapters for replica in replicas] == [{"b": "/b"}] * 3


async def test_a_lost_replica_does_not_count_unless_it_was_the_last() -> None:
    replicas = [Replica(), Replica(gone=True)]
    adapters = Adapters(lambda: replicas)
    await adapters.load("a", "/a")
    replicas[0].gone = True
    with pytest.raises(SessionLost):
        await adapters.load("b", "/b")
    await adapters.unload("a")


async def test_unloading_waits_for_who_uses_it_and_refuses_others() -> None:
    replica = Replica()
    adapters = Adapters(lambda: [replica])
    await adapters.load("a", "/a")
    with adapters.used("a"):
        unloading = asyncio.create_task(adapters.unload("a"))
        await settled()
        assert "a" in replica.adapters
        with (
            pytest.raises(BadRequestError, match="'a' is not loaded, or is being unloaded"),
            adapters.used("a"),
        ):
            pass
        with pytest.raises(BadRequestError, match="already"):
            await adapters.load("a", "/a")
        with pytest.raises(BadRequestError, match="no adapter 'a'"):
            await adapters.unload("a")
    await unloading
    assert replica.adapters == {}


async def test_a_wait_that_is_given_up_leaves_the_adapter() -> None:
    replica = Replica()
    adapters = Adapters(lambda: [replica])
    await adapters.load("a", "/a")
    with adapters.used("a"):
        unloading = asyncio.create_task(adapters.unload("a"))
        await settled()
        unloading.cancel()
        await asyncio.wait([unloading])
        with adapters.used("a"):
            pass
    fresh = Replica()
    await adapters.put_on(fresh)
    assert replica.adapters == fresh.adapters == {"a": "/a"}


async def test_a_load_that_is_cancelled_leaves_nothing() -> None:
    slow, quick = Replica(gate=asyncio.Event()), Replica()
    adapters = Adapters(lambda: [slow, quick])
    loading = asyncio.create_task(adapters.load("a", "/a"))
    await settled()
    loading.cancel()
    await settled()
    assert slow.gate is not None
    slow.gate.set()
    await asyncio.wait([loading])
    assert (slow.adapters, quick.adapters) == ({}, {})


async def test_what_changes_while_a_replica_starts_reaches_it() -> None:
    old, new = Replica(), Replica(gate=asyncio.Event())
    adapters = Adapters(lambda: [old])
    await adapters.load("a", "/1")
    await adapters.load("b", "/b")
    starting = asyncio.create_task(adapters.put_on(new))
    await settled()
    await adapters.unload("b")
    await adapters.unload("a")
    await adapters.load("a", "/2")
    await adapters.load("c", "/c")
    assert new.gate is not None
    new.gate.set()
    await starting
    assert new.adapters == old.adapters == {"a": "/2", "c": "/c"}


HOLDS = st.one_of(
    st.tuples(st.just("hold"), NAMES),
    st.tuples(st.just("let go"), st.integers(0, 5)),
    st.tuples(st.just("start"), st.one_of(st.none(), NAMES)),
    st.tuples(st.just("lose"), st.integers(0, 3)),
    st.tuples(st.just("wait")),
)


@given(operations=st.lists(HOLDS, max_size=30))
async def test_what_is_held_can_be_had_and_nothing_else_stays(operations: list[tuple[str, object]]) -> None:
    replicas = [Replica()]
    adapters = Adapters(lambda: replicas)
    tasks: list[asyncio.Task[None]] = []
    held: list[tuple[str, asyncio.Task[None]]] = []

    async def have(name: str) -> None:
        await adapters.have(name, f"/{name}")
        having = [replica for replica in replicas if name in replica.adapters]
        assert len(having) == len(replicas)

    async def start(refused: str | None) -> None:
        """Launch a replica that refuses one of those that are there, since its files are gone meanwhile."""
        replica = Replica(refuses=refused)
        await adapters.put_on(replica)
        replica.refuses = None
        replicas.append(replica)

    for what, *rest in operations:
        match what, rest:
            case "hold", [str(name)]:
                adapters.hold(name)
                held.append((name, asyncio.create_task(have(name))))
            case "let go", [int(at)] if at < len(held):
                name, having = held.pop(at)
                await having
                adapters.let_go(name)
            case "start", [refused]:
                tasks.append(asyncio.create_task(start(refused if isinstance(refused, str) else None)))
            case "lose", [int(at)] if at < len(replicas) > 1:
                replicas.pop(at).gone = True
            case _:
                await settled()
    await asyncio.gather(*tasks, *(having for _, having in held))
    await settled()
    for name, _ in held:
        await have(name)
    assert all(replica.adapters.keys() == {name for name, _ in held} for replica in replicas)
    for name, _ in held:
        adapters.let_go(name)
    await settled()
    assert not any(replica.adapters for replica in replicas)


async def test_one_that_a_new_replica_refuses_goes_from_all_and_comes_back_when_it_can() -> None:
    old, new = Replica(), Replica(refuses="a")
    replicas = [old]
    adapters = Adapters(lambda: replicas)
    for name in "ab":
        adapters.hold(name)
        await adapters.have(name, f"/{name}")
    with adapters.used("a"):  # its replica may be waited for by just this request
        await adapters.put_on(new)
    replicas.append(new)
    await settled()
    assert [replica.adapters for replica in replicas] == [{"b": "/b"}] * 2
    with pytest.raises(BadRequestError, match="another base"):
        await adapters.have("a", "/a")
    assert [replica.adapters for replica in replicas] == [{"b": "/b"}] * 2
    new.refuses = None
    await adapters.have("a", "/a")
    assert [replica.adapters for replica in replicas] == [{"a": "/a", "b": "/b"}] * 2


async def test_who_holds_one_again_while_it_is_unloaded_gets_it_loaded_again() -> None:
    replica = Replica()
    adapters = Adapters(lambda: [replica])
    adapters.hold("a")
    await adapters.have("a", "/a")
    replica.gate = asyncio.Event()
    adapters.let_go("a")
    await settled()
    adapters.hold("a")
    having = asyncio.create_task(adapters.have("a", "/a"))
    await settled()
    assert not having.done()
    replica.gate.set()
    await having
    assert replica.adapters == {"a": "/a"}
