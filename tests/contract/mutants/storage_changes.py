"""Storages that change, copy or delete what they should not, or not what they should."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from dataclasses import replace
from typing import Any

from tests.contract.mutants import Mutant
from tests.contract.mutants.storages import storage_mutant

from llmengine_core.interfaces.storage import PreconditionFailed
from llmengine_core.testing.memory_storage import MemoryObject, MemoryStorage
from llmengine_core.types.objects import ObjectMeta

Content = bytes | AsyncIterable[bytes]


async def whole(content: Content) -> bytes:
    return b"".join([piece async for piece in content]) if isinstance(content, AsyncIterable) else content


class KeyErrors(MemoryStorage):
    def _found(self, key: str) -> MemoryObject:
        self._check(key)
        return self._objects[key]


class CopyOfNothing(MemoryStorage):
    async def copy(self, source: str, target: str) -> ObjectMeta:
        self._check(source)
        content = self._objects[source].content if source in self._objects else b""
        return await self.put(target, content)


class MovesInstead(MemoryStorage):
    async def copy(self, source: str, target: str) -> ObjectMeta:
        meta = await super().copy(source, target)
        if source != target:
            await self.delete(source)
        return meta


class CopiesByLink(MemoryStorage):
    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._links: dict[str, str] = {}

    def _found(self, key: str) -> MemoryObject:
        found = super()._found(self._links.get(key, key))
        return replace(found, meta=replace(found.meta, key=key))

    async def copy(self, source: str, target: str) -> ObjectMeta:
        meta = await super().copy(source, target)
        if source != target:
            self._links[target] = source
        return meta


class TruncatesOnCopyToItself(MemoryStorage):
    async def copy(self, source: str, target: str) -> ObjectMeta:
        if source == target:
            return await self.put(target, b"")
        return await super().copy(source, target)


class AlwaysDeleted(MemoryStorage):
    async def delete(self, key: str) -> bool:
        await super().delete(key)
        return True


class DeletesByPrefix(MemoryStorage):
    async def delete(self, key: str) -> bool:
        found = await super().delete(key)
        for other in [each for each in self._objects if each.startswith(key)]:
            await super().delete(other)
        return found


class CreateReplaces(MemoryStorage):
    async def put(self, key: str, content: Content, **given: Any) -> ObjectMeta:
        return await super().put(key, content, **{**given, "mode": "overwrite"})


class Tombstones(MemoryStorage):
    """What was deleted can't be created again."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._gone: set[str] = set()

    async def delete(self, key: str) -> bool:
        self._check(key)
        self._gone.add(key)
        return await super().delete(key)

    async def put(self, key: str, content: Content, **given: Any) -> ObjectMeta:
        if given.get("mode") == "create" and key in self._gone:
            given["if_match"], given["mode"] = "gone", "overwrite"
        return await super().put(key, content, **given)


class MatchIgnored(MemoryStorage):
    async def put(self, key: str, content: Content, **given: Any) -> ObjectMeta:
        return await super().put(key, content, **{**given, "if_match": None})


class MatchesWhatIsGone(MemoryStorage):
    async def put(self, key: str, content: Content, **given: Any) -> ObjectMeta:
        if key not in self._objects:
            given["if_match"] = None
        return await super().put(key, content, **given)


class LooksThenPuts(MemoryStorage):
    """Reads, decides, and then writes, while others do the same."""

    async def _replace(self, key: str, content: bytes, mode: Any, if_match: str | None) -> ObjectMeta:
        found = self._objects.get(key)
        if mode == "create" and found is None:
            mode = "overwrite"
        if if_match is not None and (found is None or found.meta.etag != if_match):
            raise PreconditionFailed("another etag")
        await asyncio.sleep(0)
        return await super()._replace(key, content, mode, None)


MUTANTS: list[Mutant] = [
    storage_mutant(
        "key_errors",
        "what is missing is a KeyError",
        KeyErrors,
        "test_what_is_missing_is_told_as_such",
    ),
    storage_mutant(
        "copy_of_nothing",
        "a copy of what isn't there is empty",
        CopyOfNothing,
        "test_what_is_missing_is_told_as_such",
    ),
    storage_mutant(
        "moves_instead",
        "a copy takes its source away",
        MovesInstead,
        "test_a_copy_is_an_object_of_its_own",
    ),
    storage_mutant(
        "copies_by_link",
        "a copy changes with its source",
        CopiesByLink,
        "test_a_copy_is_an_object_of_its_own",
    ),
    storage_mutant(
        "truncates_on_copy_to_itself",
        "a copy onto itself is empty",
        TruncatesOnCopyToItself,
        "test_a_copy_is_an_object_of_its_own",
    ),
    storage_mutant(
        "always_deleted",
        "delete always gives True",
        AlwaysDeleted,
        "test_delete_says_whether_there_was_one",
        "test_what_is_missing_is_told_as_such",
    ),
    storage_mutant(
        "deletes_by_prefix",
        "delete takes all that begins alike",
        DeletesByPrefix,
        "test_delete_says_whether_there_was_one",
    ),
    storage_mutant(
        "create_replaces",
        "create-only replaces",
        CreateReplaces,
        "test_create_only_never_replaces",
    ),
    storage_mutant(
        "tombstones",
        "what was deleted can't be created",
        Tombstones,
        "test_create_only_never_replaces",
    ),
    storage_mutant(
        "match_ignored",
        "if_match is ignored",
        MatchIgnored,
        "test_compare_and_set_needs_the_etag_that_is_there",
    ),
    storage_mutant(
        "matches_what_is_gone",
        "if_match makes what was deleted",
        MatchesWhatIsGone,
        "test_compare_and_set_needs_the_etag_that_is_there",
    ),
    storage_mutant(
        "looks_then_puts",
        "looking and putting are two steps",
        LooksThenPuts,
        "test_of_several_tasks_exactly_one_wins",
        "test_increments_of_several_threads_are_all_counted",
    ),
]
