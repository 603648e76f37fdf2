"""Files whose processes end anywhere: nothing acknowledged is lost, and a sweep leaves nothing else (L01)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Mapping
from contextlib import suppress
from itertools import count
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.services.mortal import Crash, End, Life, MortalStorage, MortalStore

from llmengine_core.errors import NotFoundError, ServerError
from llmengine_core.interfaces.storage import StorageError
from llmengine_core.records import from_json
from llmengine_core.services.arrivals import BEATS, LEASE, TABLE
from llmengine_core.services.files import Files
from llmengine_core.testing.memory_storage import MemoryStorage
from llmengine_core.testing.memory_store import MemoryStore
from llmengine_core.types.objects import FileRecord, FileStatus, ObjectMeta, Row

CONTENT = b"prompt,response\n" * 3
_numbers = count()


def later() -> float:
    """A time at which all that is dead now is known to be."""
    return time.time() + 2 * LEASE


class World:
    """A store and a storage that outlive the processes which use them."""

    def __init__(self) -> None:
        self.url = f"memory://crashes-{next(_numbers)}"
        self.store, self.storage = MemoryStore(self.url), MemoryStorage(self.url)

    def files(
        self, life: Life | None = None, *, clock: Callable[[], float] = time.time, lease: float = LEASE
    ) -> Files:
        """The files as one process sees them."""
        life = life or Life()
        return Files(
            MortalStore(self.store, life), MortalStorage(self.storage, life), clock=clock, lease=lease
        )

    async def rows(self) -> dict[str, FileStatus]:
        """Every file's state."""
        rows = await self.store.scan(TABLE)
        return {row.key: from_json(FileRecord, row.value).status for row in rows}

    async def objects(self) -> set[str]:
        """The ids of the files that have an object."""
        return {each.key.removeprefix("files/") async for each in self.storage.list()}

    async def seen(self) -> set[str]:
        """The files that there are, all of them whole; nothing else lies in store or storage."""
        rows = await self.rows()
        assert set(rows.values()) <= {FileStatus.READY}
        assert await self.objects() == set(rows)
        files = self.files()
        for file_id in rows:
            assert b"".join([piece async for piece in files.read(file_id)]) == CONTENT
        return set(rows)


class Landing(MemoryStorage):
    """Where something happens between an object and whoever put it."""

    async def landed(self, key: str) -> None:
        """What happens."""

    async def put(
        self,
        key: str,
        content: bytes | AsyncIterable[bytes],
        *,
        mode: Literal["overwrite", "create"] = "overwrite",
        if_match: str | None = None,
    ) -> ObjectMeta:
        meta = await super().put(key, content, mode=mode, if_match=if_match)
        await self.landed(key)
        return meta


async def upload(files: Files, life: Life | None = None) -> str:
    """The id of a new file; each piece of its content is a step."""

    async def content() -> AsyncIterator[bytes]:
        for start in range(0, len(CONTENT), 16):
            if life is not None:
                await life.step(OSError)
            yield CONTENT[start : start + 16]

    return (await files.upload(content(), filename="a.csv")).id


async def ended(
    world: World, last: int, end: End, work: Callable[[Files, Life], Coroutine[Any, Any, object]]
) -> Life:
    """Let a process do a piece of work that ends at its step ``last``, if it takes that many."""
    life = Life(last, end)
    with suppress(Crash, OSError, ServerError, asyncio.CancelledError):
        await asyncio.create_task(work(world.files(life), life))
    return life


async def leave_something(world: World) -> None:
    """What three processes left: an upload that landed, one without an object, a deletion."""
    await ended(world, 9, "crash", upload)
    await ended(world, 4, "crash", upload)
    file_id = await upload(world.files())
    life = Life(4, "crash")
    with pytest.raises(Crash):
        await world.files(life).delete(file_id)


@pytest.mark.parametrize("littered", [False, True])
async def test_l01_an_upload_that_crashes_at_any_step_is_swept_whole(littered: bool) -> None:
    for last in count(1):
        world = World()
        kept = await upload(world.files())
        if littered:
            await leave_something(world)
        life = await ended(world, last, "crash", upload)
        await world.files(clock=later).sweep()
        there = await world.seen()
        assert kept in there
        assert len(there) <= 2  # what was committed as the process ended may be there
        if not life.reached:
            assert last > 10
            return


@pytest.mark.parametrize("end", ["error", "cancel"])
async def test_l01_an_upload_that_breaks_off_at_any_step_leaves_nothing_to_sweep(end: End) -> None:
    for last in count(1):
        world = World()
        kept = await upload(world.files())
        done: list[str] = []

        async def work(files: Files, life: Life, done: list[str] = done) -> None:
            done.append(await upload(files, life))

        tasks = asyncio.all_tasks()
        life = await ended(world, last, end, work)
        assert asyncio.all_tasks() == tasks
        assert await world.seen() == {kept, *done}
        assert await world.files(clock=later).sweep() == []
        if not life.reached:
            assert last > 10
            assert len(done) == 1
            return


@pytest.mark.parametrize("end", ["crash", "error", "cancel"])
async def test_l01_a_deletion_that_ends_at_any_step_is_carried_on_by_a_sweep(end: End) -> None:
    for last in count(1):
        world = World()
        kept, gone = await upload(world.files()), await upload(world.files())

        async def work(files: Files, _: Life, gone: str = gone) -> None:
            await files.delete(gone)

        life = await ended(world, last, end, work)
        unseen = [record.id for record in await world.files().list()] == [kept]
        await world.files().sweep()  # needs no lease to lapse
        assert await world.seen() == ({kept} if unseen else {kept, gone})
        if not life.reached:
            assert unseen
            assert last > 5
            return


async def test_l01_a_sweep_that_crashes_at_any_step_is_carried_on_by_the_next() -> None:
    for last in count(1):
        world = World()
        kept = await upload(world.files())
        await leave_something(world)
        life = Life(last)
        with suppress(Crash):
            await world.files(life, clock=later).sweep()
        await world.files(clock=later).sweep()
        assert await world.seen() == {kept}
        if not life.reached:
            assert last > 10
            return


class Stubborn(MemoryStorage):
    """Where some objects can't be removed."""

    kept: frozenset[str] = frozenset()

    async def delete(self, key: str) -> bool:
        if key.removeprefix("files/") in self.kept:
            raise StorageError("denied")
        return await super().delete(key)


@given(kept=st.sets(st.integers(0, 3)))
async def test_l01_what_cannot_be_removed_keeps_a_sweep_from_nothing_else(kept: set[int]) -> None:
    world = World()
    world.storage = stubborn = Stubborn(world.url)
    ids = [await upload(world.files()) for _ in range(4)]
    stubborn.kept = frozenset(ids)
    for file_id in ids:
        with pytest.raises(ServerError, match="files sweep"):
            await world.files().delete(file_id)
    stubborn.kept = frozenset(ids[number] for number in kept)
    if kept:
        with pytest.raises(
            ServerError, match=f"^{4 - len(kept)} files .* {len(kept)} could not be: .*denied"
        ):
            await world.files().sweep()
    else:
        assert {record.id for record in await world.files().sweep()} == set(ids)
    assert await world.objects() == stubborn.kept


WORKS = st.sampled_from(["upload", "delete", "sweep", "list"])
ENDS = st.sampled_from(["crash", "error", "cancel"])


@given(st.lists(st.tuples(WORKS, st.integers(1, 25), ENDS), max_size=8))
async def test_l01_after_any_history_a_sweep_leaves_what_was_acknowledged(
    history: list[tuple[str, int, End]],
) -> None:
    world = World()
    acknowledged: dict[str, None] = {}
    uncertain: set[str] = set()  # deletions that ended before they were answered
    for work, last, end in history:
        life = Life(last, end)
        files = world.files(life, clock=later)
        target = next(iter(acknowledged), None)

        async def act(
            files: Files = files, work: str = work, target: str | None = target, life: Life = life
        ) -> None:
            if work == "upload":
                acknowledged[await upload(files, life)] = None
            elif work == "delete" and target is not None:
                del acknowledged[target]
                uncertain.add(target)
                await files.delete(target)
                uncertain.discard(target)
            elif work == "list":
                await files.list()
            else:
                await files.sweep()

        with suppress(Crash, OSError, ServerError, asyncio.CancelledError, NotFoundError):
            await asyncio.create_task(act())
        listed = {record.id for record in await world.files().list()}
        assert acknowledged.keys() <= listed
        assert listed <= await world.objects()
    await world.files(clock=lambda: later() + 2 * LEASE).sweep()
    there = await world.seen()
    assert acknowledged.keys() <= there
    crashed = sum(work == "upload" and end == "crash" for work, _, end in history)
    assert len(there - acknowledged.keys() - uncertain) <= crashed


async def test_l01_a_slow_upload_is_not_swept_while_it_lives() -> None:
    world, lease = World(), 0.5
    began = time.time()

    def lapsed_but_for_beats() -> float:
        return began + lease * (1 + 1.5 / BEATS)

    beaten = asyncio.Event()

    class Beaten(MemoryStore):
        async def replace(self, table: str, key: str, value: Mapping[str, Any], *, version: int) -> Row:
            row = await super().replace(table, key, value, version=version)
            if row.version == 3:
                beaten.set()
            return row

    async def slow() -> AsyncIterator[bytes]:
        yield CONTENT[:1]
        async with asyncio.timeout(30):
            await beaten.wait()
        assert await world.files(clock=lapsed_but_for_beats).sweep() == []
        assert [record.id for record in await world.files(clock=later).sweep(dry_run=True)]
        yield CONTENT[1:]

    world.store = Beaten(world.url)
    record = await world.files(lease=lease).upload(slow(), filename="a.csv")
    assert await world.seen() == {record.id}


async def test_l01_a_lease_that_is_about_to_lapse_is_renewed_before_the_object_stands() -> None:
    world, now = World(), 0.0

    async def standing_still() -> AsyncIterator[bytes]:
        nonlocal now
        yield CONTENT
        now = 0.9 * LEASE

    class Slow(Landing):
        async def landed(self, key: str) -> None:
            assert await world.files(clock=lambda: 1.8 * LEASE).sweep() == []

    files = Files(world.store, Slow(world.url), clock=lambda: now)
    record = await files.upload(standing_still(), filename="a.csv")
    assert await world.seen() == {record.id}


@pytest.mark.parametrize("when", ["during", "at the end", "as it lands"])
@pytest.mark.parametrize("half", [False, True])
async def test_l01_an_upload_that_was_taken_for_dead_keeps_nothing(when: str, half: bool) -> None:
    world = World()

    async def sweep() -> None:
        with suppress(Crash):
            await world.files(Life(3 if half else None), clock=later).sweep()
        assert list((await world.rows()).values()) == [FileStatus.LEAVING] * half

    async def content() -> AsyncIterator[bytes]:
        yield CONTENT[:5]
        if when != "as it lands":
            await sweep()
        if when == "during":
            yield CONTENT[5:]

    class Swept(Landing):
        async def landed(self, key: str) -> None:
            if when == "as it lands":
                await sweep()
                await MemoryStorage(world.url).put(key, b"it landed after the sweep")

    files = Files(world.store, Swept(world.url))
    with pytest.raises(ServerError, match="taken for dead"):
        await files.upload(content(), filename="a.csv")
    assert await world.seen() == set()


async def test_l01_a_sweep_by_the_way_removes_what_was_left() -> None:
    for act in ("upload", "list"):
        world = World()
        await leave_something(world)
        files = world.files(clock=later)
        kept = {await upload(files)} if act == "upload" else {record.id for record in await files.list()}
        assert await world.seen() == kept


async def test_l01_a_dry_sweep_changes_nothing() -> None:
    world = World()
    await leave_something(world)
    before = await world.rows(), await world.objects()
    found = await world.files(clock=later).sweep(dry_run=True)
    assert {record.id for record in found} == set(before[0])
    assert (await world.rows(), await world.objects()) == before


async def test_l01_what_is_not_there_yet_is_nobodys_to_see() -> None:
    world = World()
    await leave_something(world)
    files = world.files()
    assert len(await world.rows()) == 3
    for file_id in await world.rows():
        for refused in (files.get(file_id), files.delete(file_id)):
            with pytest.raises(NotFoundError):
                await refused
        with pytest.raises(NotFoundError):
            await anext(files.read(file_id))
    assert await files.list() == []
