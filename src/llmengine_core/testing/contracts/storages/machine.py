"""Any storage beside a dict: whatever is called, they agree.

A program is a list of steps, drawn by Hypothesis, that prints as the code that runs it again::

    asyncio.run(replay(lambda: SampleStorage("sample://fresh"), [Put("a", b"x"), Delete("a")]))
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from llmengine_core.interfaces.storage import (
    ObjectExists,
    ObjectMissing,
    PreconditionFailed,
    Storage,
    StorageError,
)
from llmengine_core.testing.profiles import current
from llmengine_core.types.objects import ObjectMeta

__all__ = [
    "Broken",
    "BrokenPut",
    "Copy",
    "Delete",
    "Get",
    "Head",
    "List",
    "Piece",
    "Put",
    "PutIf",
    "Reopen",
    "Step",
    "alike",
    "joined",
    "listed",
    "programs",
    "replay",
    "stream",
]

Refusal = type[StorageError] | None


class Broken(Exception):
    """What a source raises that breaks off."""


Piece: TypeAlias = bytes | int
"""Bytes, or how many of them, which prints shorter."""


def joined(pieces: Sequence[Piece]) -> bytes:
    """The content that pieces make."""
    return b"".join(_bytes(each) for each in pieces)


def _bytes(piece: Piece) -> bytes:
    return b"x" * piece if isinstance(piece, int) else piece


async def stream(pieces: Sequence[Piece], *, broken: bool = False) -> AsyncIterator[bytes]:
    """Pieces one by one; in the end ``Broken`` where it is."""
    for piece in pieces:
        yield _bytes(piece)
    if broken:
        raise Broken("the source broke off")


async def listed(storage: Storage, prefix: str = "", after: str | None = None) -> list[ObjectMeta]:
    """A whole listing."""
    return [each async for each in storage.list(prefix, after=after)]


def alike(one: ObjectMeta, other: ObjectMeta) -> bool:
    """Whether two descriptions are of one object. Times may be rounded to seconds by some calls."""
    times = [each.modified_at for each in (one, other) if each.modified_at is not None]
    near = len(times) < 2 or abs(times[0] - times[1]) <= 1
    return (one.key, one.size, one.etag) == (other.key, other.size, other.etag) and near


@dataclass
class Model:
    """What the storage must hold."""

    storage: Storage
    opened: Callable[[], Storage]
    objects: dict[str, bytes] = field(default_factory=dict)
    metas: dict[str, ObjectMeta] = field(default_factory=dict)
    etags: dict[tuple[str, str], bytes] = field(default_factory=dict)
    seen: dict[str, list[str]] = field(default_factory=dict)
    """Etags of each key, oldest first."""

    def nested(self, key: str) -> bool:
        """Whether a key lies under another, or over one: not every storage can have both."""
        return any(each.startswith(key + "/") or key.startswith(each + "/") for each in self.objects)

    def accept(self, key: str, whole: bytes, meta: ObjectMeta) -> None:
        """Take an object that was put; its description must be right."""
        assert meta.key == key, f"put under {key!r}, described as {meta.key!r}"
        assert meta.size == len(whole), f"{key!r} has {len(whole)} bytes, described as {meta.size}"
        if meta.etag is not None:
            same = self.etags.setdefault((key, meta.etag), whole)
            assert same == whole, f"{key!r} has the etag {meta.etag} of another content"
            self.seen.setdefault(key, []).append(meta.etag)
        self.objects[key], self.metas[key] = whole, meta

    def refused(self, key: str, error: StorageError, expected: Refusal) -> None:
        """Take a refusal, which may be due to a key under another."""
        if isinstance(error, expected or ()) or (self.nested(key) and _plain(error)):
            return
        wanted = f"{expected.__name__} was due" if expected else "nothing is wrong with it"
        raise AssertionError(f"{key!r} was refused by {type(error).__name__}({error}); {wanted}") from error

    def missing(self, key: str, error: ObjectMissing) -> None:
        """Take an ``ObjectMissing``."""
        if key in self.objects:
            raise AssertionError(f"there is a {key!r}, and it is told as missing: {error}") from error

    def check(self, found: ObjectMeta, key: str, call: str) -> None:
        """Raise ``AssertionError`` unless an object is described as it was when it was put."""
        known = self.metas[key]
        assert alike(found, known), f"{call} describes {key!r} as {found}, put said {known}"


def _plain(error: StorageError) -> bool:
    return not isinstance(error, ObjectExists)


class Step(Protocol):
    """One call."""

    async def run(self, model: Model) -> None:
        """Make it; raises ``AssertionError`` where storage and dict don't agree."""


@dataclass
class Put:
    """``put``: bytes at once, or a list's as a stream."""

    key: str
    content: bytes | list[Piece]
    mode: Literal["overwrite", "create"] = "overwrite"

    async def run(self, model: Model) -> None:
        streamed = isinstance(self.content, list)
        whole = joined(self.content) if isinstance(self.content, list) else self.content
        source = stream(self.content) if isinstance(self.content, list) else self.content
        expected: Refusal = ObjectExists if self.mode == "create" and self.key in model.objects else None
        try:
            meta = await model.storage.put(self.key, source, mode=self.mode)
        except StorageError as error:
            model.refused(self.key, error, expected)
            return
        how = "streamed" if streamed else "put at once"
        assert expected is None, f"a create-only put ({how}) replaced the object {self.key!r}"
        model.accept(self.key, whole, meta)


@dataclass
class PutIf:
    """``put`` with ``if_match``: the last etag of the key, or, ``back``, one before it."""

    key: str
    content: bytes
    back: int = 0

    async def run(self, model: Model) -> None:
        known = model.metas.get(self.key)
        if not model.etags:
            return  # a storage without etags has nothing to match
        etag = ["another", *model.seen.get(self.key, [])][-1 - self.back :][0]
        fits = known is not None and known.etag == etag
        try:
            meta = await model.storage.put(self.key, self.content, if_match=etag)
        except StorageError as error:
            model.refused(self.key, error, None if fits else PreconditionFailed)
            return
        assert fits, f"put {self.key!r} with if_match={etag!r}, but the object was {known}"
        model.accept(self.key, self.content, meta)


@dataclass
class BrokenPut:
    """``put`` of a source that raises."""

    key: str
    pieces: list[Piece]
    mode: Literal["overwrite", "create"] = "overwrite"

    async def run(self, model: Model) -> None:
        try:
            meta = await model.storage.put(self.key, stream(self.pieces, broken=True), mode=self.mode)
        except (Broken, StorageError):
            return
        raise AssertionError(f"the source of {self.key!r} broke off, and put gave {meta}")


@dataclass
class Copy:
    """``copy``."""

    source: str
    target: str

    async def run(self, model: Model) -> None:
        expected: Refusal = None if self.source in model.objects else ObjectMissing
        try:
            meta = await model.storage.copy(self.source, self.target)
        except StorageError as error:
            model.refused(self.target, error, expected)
            return
        assert expected is None, f"there is no {self.source!r}, and copying it gave {meta}"
        model.accept(self.target, model.objects[self.source], meta)


@dataclass
class Delete:
    """``delete``."""

    key: str

    async def run(self, model: Model) -> None:
        found = await model.storage.delete(self.key)
        there = self.key in model.objects
        assert found == there, (
            f"delete of {self.key!r} gave {found!r}; there was {'one' if there else 'none'}"
        )
        model.objects.pop(self.key, None)
        model.metas.pop(self.key, None)


@dataclass
class Get:
    """``get``."""

    key: str
    start: int = 0
    stop: int | None = None

    async def run(self, model: Model) -> None:
        try:
            pieces = [each async for each in model.storage.get(self.key, start=self.start, stop=self.stop)]
        except ObjectMissing as error:
            model.missing(self.key, error)
            return
        assert self.key in model.objects, f"there is no {self.key!r}, and get gave {pieces!r:.200}"
        expected = model.objects[self.key][self.start :]
        if self.stop is not None:
            expected = expected[: max(self.stop - self.start, 0)]
        found = b"".join(pieces)
        where = f"{self.key!r} from {self.start} to {self.stop}"
        assert found == expected, f"get of {where} gave {found!r:.200}, not {expected!r:.200}"


@dataclass
class Head:
    """``head``."""

    key: str

    async def run(self, model: Model) -> None:
        try:
            found = await model.storage.head(self.key)
        except ObjectMissing as error:
            model.missing(self.key, error)
            return
        assert self.key in model.objects, f"there is no {self.key!r}, and head gave {found}"
        model.check(found, self.key, "head")


@dataclass
class List:
    """``list``."""

    prefix: str = ""
    after: str | None = None

    async def run(self, model: Model) -> None:
        found = await listed(model.storage, self.prefix, self.after)
        behind = b"" if self.after is None else self.after.encode()
        keys = sorted(
            (key for key in model.objects if key.startswith(self.prefix) and key.encode() > behind),
            key=str.encode,
        )
        names = [each.key for each in found]
        assert names == keys, f"list({self.prefix!r}, after={self.after!r}) gave {names}, not {keys}"
        for each in found:
            model.check(each, each.key, "list")


@dataclass
class Reopen:
    """``aclose``, twice, and another storage of the same URL."""

    async def run(self, model: Model) -> None:
        await model.storage.aclose()
        await model.storage.aclose()
        model.storage = model.opened()


async def replay(opened: Callable[[], Storage], steps: list[Step]) -> None:
    """Run a program; ``opened`` gives a storage of one URL, at first an empty one."""
    model = Model(opened(), opened)
    try:
        for step in steps:
            await step.run(model)
        await List().run(model)
        for key in list(model.objects):
            await Get(key).run(model)
    finally:
        await model.storage.aclose()


@st.composite
def programs(draw: st.DrawFn, keys: SearchStrategy[str]) -> list[Step]:
    """Programs on few keys, that meet each other."""
    pool = draw(st.lists(keys, min_size=2, max_size=4, unique=True))
    key = st.sampled_from(pool)
    small = st.binary(max_size=40)
    pieces = st.lists(small | st.just(700_000), max_size=4)
    mode: SearchStrategy[Literal["overwrite", "create"]] = st.sampled_from(["overwrite", "create"])
    texts = st.sampled_from(["", *pool, *(each[:1] for each in pool), *(each[:-1] for each in pool)])
    offsets = st.integers(0, 60)
    step: SearchStrategy[Step] = st.one_of(
        st.builds(Put, key, small, mode),
        st.builds(Put, key, small | pieces, mode),
        st.builds(PutIf, key, small, st.integers(0, 2)),
        st.builds(BrokenPut, key, pieces, mode),
        st.builds(Copy, key, key),
        st.builds(Delete, key),
        st.builds(Get, key, offsets, st.none() | offsets),
        st.builds(Head, key),
        st.builds(List, texts, st.none() | key),
        st.builds(Reopen),
    )
    begin: list[Step] = [Put(pool[0], draw(small))]
    return begin + draw(st.lists(step, max_size=current().steps))
