"""Storages whose URLs grant too much, or nothing."""

from __future__ import annotations

from typing import Literal

from tests.contract.mutants import Mutant
from tests.contract.mutants.storages import storage_mutant
from tests.contract.presigning import PresigningStorage


class NeverExpires(PresigningStorage):
    def signed(self, key: str, expires: float, method: str) -> tuple[str, ...]:
        return super().signed(key, 86_400, method)


class ExpiresInMinutes(PresigningStorage):
    """Seconds are taken for minutes."""

    def signed(self, key: str, expires: float, method: str) -> tuple[str, ...]:
        return super().signed(key, expires * 60, method)


class GrantsAnyMethod(PresigningStorage):
    @classmethod
    def admits(cls, parts: tuple[str, ...], method: str) -> bool:
        return super().admits(parts, parts[3])


class AlwaysGrantsReading(PresigningStorage):
    async def presign(self, key: str, *, expires: float, method: Literal["GET", "PUT"] = "GET") -> str:
        return await super().presign(key, expires=expires, method="GET")


class QuotedTwice(PresigningStorage):
    def signed(self, key: str, expires: float, method: str) -> tuple[str, ...]:
        return super().signed(key.replace(" ", "%20"), expires, method)


MUTANTS: list[Mutant] = [
    storage_mutant(
        "never_expires", "a presigned URL is good for a day", NeverExpires, "test_presigned_access_expires"
    ),
    storage_mutant(
        "expires_in_minutes",
        "seconds are taken for minutes",
        ExpiresInMinutes,
        "test_presigned_access_expires",
    ),
    storage_mutant(
        "grants_any_method",
        "who may read may write",
        GrantsAnyMethod,
        "test_a_url_grants_what_it_was_presigned_for",
    ),
    storage_mutant(
        "always_grants_reading",
        "a URL for PUT is one for GET",
        AlwaysGrantsReading,
        "test_a_url_grants_what_it_was_presigned_for",
    ),
    storage_mutant(
        "quoted_twice",
        "a key with a blank is quoted twice",
        QuotedTwice,
        "test_a_presigned_url_gives_the_content",
    ),
]
