"""Any storage beside a dict: whatever is called, they agree."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from llmengine_core.interfaces.storage import (
    ObjectExists,
    ObjectMissing,
    PreconditionFailed,
    Storage,
    StorageError,
)
from llmengine_core.types.objects import ObjectMeta

if TYPE_CHECKING:
    from storage_laws import StorageLaws

_T = TypeVar("_T")

_SEGMENTS = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=6).filter(
    lambda text: text not in {".", ".."} and "/" not in text
)
KEYS = st.one_of(
    st.sampled_from(
        ["a", "a/b", "a/b/c", "a/b.c", "a.b", "a b", "a#1", "%41", "a?", ".a", "..a", "é", "e\u0301", "~"]
    ),
    st.lists(_SEGMENTS, min_size=1, max_size=3).map("/".join),
)
CONTENTS = st.binary(max_size=40)
PIECES = st.lists(CONTENTS | st.integers(600_000, 800_000).map(bytes), max_size=4)

OBJECTS: st.SearchStrategy[str] = st.runner().flatmap(
    lambda machine: st.sampled_from(sorted(machine.model)) if machine.model else KEYS
)
"""Keys of objects that there are."""


async def stream(pieces: list[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def listed(storage: Storage, prefix: str = "", after: str | None = None) -> list[ObjectMeta]:
    return [each async for each in storage.list(prefix, after=after)]


class StorageMachine(RuleBasedStateMachine):
    """A storage beside a dict: whatever is called, they agree."""

    laws: ClassVar[StorageLaws]
    fresh_url: ClassVar[Callable[[], str]]

    def __init__(self) -> None:
        super().__init__()
        self.url = type(self).fresh_url()
        self.runner = asyncio.Runner()
        self.storage = self.laws.opened(self.url)
        self.used = False
        self.model: dict[str, bytes] = {}
        self.metas: dict[str, ObjectMeta] = {}
        self.etags: dict[str, dict[str, bytes]] = {}

    def run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        self.used = True
        return self.runner.run(coroutine)

    @initialize(keys=st.lists(KEYS, min_size=2, max_size=5), content=CONTENTS)
    def begin(self, keys: list[str], content: bytes) -> None:
        for key in keys:
            self.put(key, content, "overwrite")

    def blocked(self, key: str) -> bool:
        """Whether the key lies under another's, or over one, in a storage where none can."""
        return not self.laws.nests and any(
            each.startswith(key + "/") or key.startswith(each + "/") for each in self.model
        )

    def accept(self, key: str, content: bytes, meta: ObjectMeta) -> None:
        assert (meta.key, meta.size) == (key, len(content))
        if meta.etag is not None:
            assert self.etags.setdefault(key, {}).setdefault(meta.etag, content) == content
        self.model[key] = content
        self.metas[key] = meta

    @rule(key=KEYS | OBJECTS, content=CONTENTS | PIECES, mode=st.sampled_from(["overwrite", "create"]))
    def put(self, key: str, content: bytes | list[bytes], mode: Literal["overwrite", "create"]) -> None:
        whole, source = (
            (b"".join(content), stream(content)) if isinstance(content, list) else (content, content)
        )
        putting = self.storage.put(key, source, mode=mode)
        if self.blocked(key):
            with pytest.raises(StorageError):
                self.run(putting)
        elif mode == "create" and key in self.model:
            with pytest.raises(ObjectExists):
                self.run(putting)
        else:
            self.accept(key, whole, self.run(putting))

    @rule(key=KEYS | OBJECTS, content=CONTENTS, back=st.integers(0, 2))
    def put_if(self, key: str, content: bytes, back: int) -> None:
        etag = ["another", "another", "another", *self.etags.get(key, {})][-1 - back]
        putting = self.storage.put(key, content, if_match=etag)
        if key in self.model and self.metas[key].etag == etag:
            self.accept(key, content, self.run(putting))
        else:
            with pytest.raises(StorageError if self.blocked(key) else PreconditionFailed):
                self.run(putting)

    @rule(key=KEYS | OBJECTS, pieces=PIECES)
    def put_broken_off(self, key: str, pieces: list[bytes]) -> None:
        async def source() -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece
            raise ZeroDivisionError

        with pytest.raises(StorageError if self.blocked(key) else ZeroDivisionError):
            self.run(self.storage.put(key, source()))

    @rule(source=KEYS | OBJECTS, key=KEYS | OBJECTS)
    def copy(self, source: str, key: str) -> None:
        if source not in self.model:
            with pytest.raises(StorageError if self.blocked(key) else ObjectMissing):
                self.run(self.storage.copy(source, key))
        elif self.blocked(key):
            with pytest.raises(StorageError):
                self.run(self.storage.copy(source, key))
        else:
            self.accept(key, self.model[source], self.run(self.storage.copy(source, key)))

    @rule(key=KEYS | OBJECTS)
    def delete(self, key: str) -> None:
        assert self.run(self.storage.delete(key)) == (self.model.pop(key, None) is not None)

    @rule(key=KEYS | OBJECTS, start=st.integers(0, 60), stop=st.none() | st.integers(0, 60))
    def get(self, key: str, start: int, stop: int | None) -> None:
        async def read() -> bytes:
            return b"".join([piece async for piece in self.storage.get(key, start=start, stop=stop)])

        if key in self.model:
            assert self.run(read()) == self.model[key][start : None if stop is None else max(stop, start)]
        else:
            with pytest.raises(ObjectMissing):
                self.run(read())

    @rule(key=KEYS | OBJECTS)
    def head(self, key: str) -> None:
        if key in self.model:
            assert self.run(self.storage.head(key)) == self.metas[key]
        else:
            with pytest.raises(ObjectMissing):
                self.run(self.storage.head(key))

    @rule(
        prefix=st.just("") | KEYS | KEYS.map(lambda key: key[:2]) | st.text(max_size=2),
        after=st.none() | KEYS | OBJECTS,
    )
    def list_objects(self, prefix: str, after: str | None) -> None:
        expected = sorted(key.encode() for key in self.model if key.startswith(prefix))
        found = self.run(listed(self.storage, prefix, after))
        assert [each.key.encode() for each in found] == [
            key for key in expected if after is None or key > after.encode()
        ]
        assert all(each == self.metas[each.key] for each in found)

    @precondition(lambda self: self.used)
    @rule()
    def reopen(self) -> None:
        self.run(self.storage.aclose())
        self.run(self.storage.aclose())
        self.storage = self.laws.opened(self.url)
        self.used = False

    def teardown(self) -> None:
        with self.runner:
            self.list_objects("", None)
            for key in list(self.model):
                self.get(key, 0, None)
            assert self.laws.residue(self.url, set(self.model)) == []
            self.run(self.storage.aclose())
