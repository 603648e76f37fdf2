"""Storages that take one key for another."""

from __future__ import annotations

import posixpath
import unicodedata
from collections.abc import AsyncIterable
from dataclasses import replace
from typing import Any
from urllib.parse import unquote, unquote_plus

from tests.contract.mutants import Mutant
from tests.contract.mutants.storages import storage_mutant

from llmengine_core.testing.memory_storage import MemoryObject, MemoryStorage
from llmengine_core.types.objects import ObjectMeta

Content = bytes | AsyncIterable[bytes]


async def whole(content: Content) -> bytes:
    return b"".join([piece async for piece in content]) if isinstance(content, AsyncIterable) else content


class Renaming(MemoryStorage):
    """Keys become others before they are used."""

    def renamed(self, key: str) -> str:
        return key

    async def put(self, key: str, content: Content, **given: Any) -> ObjectMeta:
        return replace(await super().put(self.renamed(key), content, **given), key=key)

    def _found(self, key: str) -> MemoryObject:
        found = super()._found(self.renamed(key))
        return replace(found, meta=replace(found.meta, key=key))

    async def delete(self, key: str) -> bool:
        return await super().delete(self.renamed(key))


class NormalizedKeys(Renaming):
    def renamed(self, key: str) -> str:
        return unicodedata.normalize("NFC", key)


class KeysWithoutCase(Renaming):
    def renamed(self, key: str) -> str:
        return key.lower()


class UnquotedKeys(Renaming):
    def renamed(self, key: str) -> str:
        return unquote(key)


class PlusIsBlank(Renaming):
    def renamed(self, key: str) -> str:
        return unquote_plus(key.replace("%", "%25"))


class TidiedKeys(Renaming):
    def _check(self, key: str) -> None:
        super()._check(posixpath.normpath(key).strip("/."))

    def renamed(self, key: str) -> str:
        return posixpath.normpath(key).strip("/.")


class ControlCharacters(MemoryStorage):
    def _check(self, key: str) -> None:
        super()._check("".join(each for each in key if unicodedata.category(each) != "Cc") or "x")


class FoldersReplaceFiles(MemoryStorage):
    async def put(self, key: str, content: Content, **given: Any) -> ObjectMeta:
        meta = await super().put(key, content, **given)
        parts = key.split("/")
        for depth in range(1, len(parts)):
            self._objects.pop("/".join(parts[:depth]), None)
        return meta


class OSErrors(MemoryStorage):
    async def put(self, key: str, content: Content, **given: Any) -> ObjectMeta:
        self._check(key)
        if any(len(each.encode()) > 255 for each in key.split("/")):
            raise OSError(36, "File name too long")
        return await super().put(key, content, **given)


MUTANTS: list[Mutant] = [
    storage_mutant(
        "normalized_keys",
        "keys are normalized to NFC",
        NormalizedKeys,
        "test_odd_keys_are_objects_of_their_own",
    ),
    storage_mutant(
        "keys_without_case",
        "keys that differ by case are one",
        KeysWithoutCase,
        "test_odd_keys_are_objects_of_their_own",
    ),
    storage_mutant(
        "unquoted_keys",
        "%2F in a key becomes a slash",
        UnquotedKeys,
        "test_odd_keys_are_objects_of_their_own",
    ),
    storage_mutant(
        "plus_is_blank",
        "+ in a key becomes a blank",
        PlusIsBlank,
        "test_odd_keys_are_objects_of_their_own",
    ),
    storage_mutant(
        "tidied_keys",
        "a//b and ./a are tidied, not refused",
        TidiedKeys,
        "test_what_is_no_key_is_refused",
    ),
    storage_mutant(
        "control_characters",
        "control characters are keys",
        ControlCharacters,
        "test_what_is_no_key_is_refused",
    ),
    storage_mutant(
        "folders_replace_files",
        "a/b takes a away",
        FoldersReplaceFiles,
        "test_keys_below_keys_are_objects_or_refused",
    ),
    storage_mutant(
        "os_errors",
        "OSError comes out",
        OSErrors,
        "test_all_errors_are_storage_errors",
    ),
]
