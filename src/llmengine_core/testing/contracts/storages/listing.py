"""What every storage promises of its listings: all of it, once, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from llmengine_core.interfaces.storage import Storage, StorageError
from llmengine_core.testing.contracts.placed import bounded
from llmengine_core.testing.contracts.storages.ground import WRITING, StorageGround, listed
from llmengine_core.testing.laws import law

__all__ = ["ListingLaws"]

ODD = (
    "Z", "a", "B", "aa", "a0", "a1", "a10", "a2", "a-b", "a.b", "a/b", "a/c/d", "a_b", "a%b", "a*b", "a?b", "axb",
    "a b", "aé", "ae\u0301", "a\uffff", "a\U00010000", "a\U0010ffff", "é/b", "b", "b!/c", "b/c", "b0", "ab/c/d/e",
)  # fmt: skip
"""Orders differ on them: of UTF-16, of letters without case, of folders first, of numbers; and patterns."""
CROWD = 1_030
"""More than a page of what is spoken today."""
AT_ONCE = 48
PREFIXES = (
    "", "a%", "a_", "a*", "a?", "a/", "a/c", "a/c/", "b", "b!", "é", "aé", "a\U00010000", "Z", "z", "zz", "ab/", "/",
)  # fmt: skip
"""Wholes and beginnings of keys, patterns, and what starts none."""


class ListingLaws(StorageGround):
    """See the module."""

    @law(level=WRITING)
    async def test_a_listing_is_in_order_of_utf8_bytes(self) -> None:
        """list gives the objects whose keys start with the prefix and come behind `after`, by their UTF-8 bytes."""
        async with self.empty() as storage:
            # One by one: some servers lose one of "a" and "a/b" that come at the same moment.
            keys = sorted(await _put(storage, ODD, at_once=1), key=str.encode)
            refused = {"Z", "B", "aa", "a0", "axb", "b0"} - set(keys)
            assert not refused, f"plain keys were refused: {sorted(refused)}"
            asked: list[tuple[str, str | None]] = [(prefix, None) for prefix in PREFIXES]
            asked += [("", after) for after in (*keys, "a/", "a/bb", "b/", "zz")]
            asked += [(prefix, after) for prefix in ("a", "a/") for after in ("a", "a/b", "a/c", "a.b", "b")]
            for prefix, after in asked:
                found = [each.key for each in await listed(storage, prefix, after)]
                behind = [key for key in keys if after is None or key.encode() > after.encode()]
                due = [key for key in behind if key.startswith(prefix)]
                assert found == due, f"list({prefix!r}, after={after!r}) gave {found}, not {due}"

    @law(level=WRITING)
    async def test_a_listing_goes_on_page_by_page(self) -> None:
        """Over 1,000 objects are listed once each and in order, from behind any key on, also while others write."""
        async with self.empty() as storage:
            names = [
                f"{folder}{number:03}" for folder in ("", "f/", "f!/") for number in range(CROWD // 3 + 1)
            ]
            keys = sorted(await _put(storage, names), key=str.encode)
            known = set(keys)
            assert len(keys) == len(names), (
                f"of {len(names)} plain keys {len(names) - len(keys)} were refused"
            )
            found = [each.key for each in await listed(storage)]
            assert found == keys, _difference(found, keys)
            for at in (0, 499, 999, 1000, len(keys) - 2, len(keys) - 1):
                found = [each.key for each in await listed(storage, after=keys[at])]
                assert found == keys[at + 1 :], f"after {keys[at]!r}: {_difference(found, keys[at + 1 :])}"
            found = await bounded(_while_others_write(storage), "listing while others write")
            assert found == sorted(found, key=str.encode), "a listing while others write is out of order"
            stayed = [key for key in found if key in known]
            assert stayed == keys, f"while others wrote, of what stayed: {_difference(stayed, keys)}"

    @law()
    async def test_odd_bounds_of_a_listing_list_what_fits(self) -> None:
        """A prefix or an `after` that no key can have gives what starts with it, or comes behind it."""
        async with self.holding({"a/b": b""}) as storage:
            for prefix in ("/", "//", "a//", "../", "a/../a", "a/b/", "a\0", "\n", "." * 5000, "a" * 5000):
                try:
                    found = [each.key for each in await listed(storage, prefix)]
                except StorageError:
                    continue
                assert found == [], f"nothing starts with {prefix[:9]!r}, and list gave {found}"
            for after, expected in (("", ["a/b"]), ("a/", ["a/b"]), ("a/a\0", ["a/b"]), ("a" * 5000, [])):
                try:
                    found = [each.key for each in await listed(storage, after=after)]
                except StorageError:
                    continue
                assert found == expected, f"behind {after[:9]!r} there is {expected}, and list gave {found}"


async def _put(storage: Storage, keys: Iterable[str], at_once: int = AT_ONCE) -> list[str]:
    """Put an empty object under each key; those that were accepted."""
    limit = asyncio.Semaphore(at_once)

    async def put(key: str) -> str | None:
        async with limit:
            try:
                await storage.put(key, b"")
            except StorageError:  # under another key, or a name that the file system below has not
                return None
        return key

    put_ones = await asyncio.gather(*map(put, keys))
    return [key for key in put_ones if key is not None]


async def _while_others_write(storage: Storage) -> list[str]:
    """The keys that a listing gives while others come and go."""
    done = asyncio.Event()

    async def write(name: str) -> None:
        number = 0
        while not done.is_set():
            number += 1
            await storage.put(f"{name}{number % 7}", b"")
            await storage.delete(f"{name}{(number + 3) % 7}")
            await asyncio.sleep(0)

    async def read() -> list[str]:
        try:
            return [each.key for each in await listed(storage)]
        finally:
            done.set()

    writing = asyncio.gather(*(write(name) for name in ("0w/", "f/w", "f/w/x", "z/")))
    found = await read()
    await writing
    return found


def _difference(found: list[str], expected: list[str]) -> str:
    """Where two listings part, in a few words."""
    missing = sorted(set(expected) - set(found))[:3]
    more = sorted(set(found) - set(expected))[:3]
    if missing or more or len(found) != len(expected):
        return f"{len(found)} objects for {len(expected)}: without {missing}, and with {more}"
    at = next(at for at, (one, other) in enumerate(zip(found, expected, strict=True)) if one != other)
    return f"number {at} is {found[at]!r}, not {expected[at]!r}"
