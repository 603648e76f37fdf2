"""What every storage promises of its ways past the interface: paths, URLs that grant access, and none that lead out."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal
from urllib.parse import urlsplit

from llmengine_core.interfaces.storage import Storage, StorageError
from llmengine_core.testing.contracts.fetching import FETCHED, fetch
from llmengine_core.testing.contracts.storages.ground import (
    PATHS,
    PRESIGNING,
    WRITING,
    StorageGround,
    content,
    listed,
)
from llmengine_core.testing.laws import NotApplicable, law

__all__ = ["GrantingLaws"]

LONG = 300.0
"""Seconds for which access is granted that is used at once."""


class GrantingLaws(StorageGround):
    """See the module."""

    late: ClassVar[float] = 15.0
    """Seconds by which access for one second must have ended, whatever clocks differ by."""

    @law(level=PRESIGNING)
    async def test_a_presigned_url_gives_the_content(self) -> None:
        """presign gives a URL by which anybody reads the object, that one and no other; or it raises StorageError."""
        async with self.empty() as storage:
            for key in ("folder/a b", "other"):
                await storage.put(key, b"content of " + key.encode())
            for key in ("folder/a b", "other"):
                url = await _presigned(storage, key, expires=LONG)
                found = await fetch(url)
                assert found == b"content of " + key.encode(), (
                    f"{url}, presigned for {key!r}, gives {found!r:.80}"
                )

    @law(level=PRESIGNING)
    async def test_presigned_access_expires(self) -> None:
        """A presigned URL of a server stops giving access after its seconds."""
        async with self.empty() as storage:
            await storage.put("k", b"content")
            url = await _presigned(storage, "k", expires=1)
            if urlsplit(url).scheme == "file":
                raise NotApplicable("a file:// URL is as good as the right to read the file")
            end = time.monotonic() + self.late
            while await _readable(url):
                assert time.monotonic() < end, f"access for 1 s is still granted after {self.late:g} s: {url}"
                await asyncio.sleep(0.05)
            assert await content(storage, "k") == b"content", "the object went with the access to it"

    @law(level=PRESIGNING)
    async def test_a_url_grants_what_it_was_presigned_for(self) -> None:
        """A URL presigned for PUT writes its object; one presigned for GET writes nothing."""
        async with self.empty() as storage:
            await storage.put("k", b"content")
            reading = await _presigned(storage, "k", expires=LONG)
            if urlsplit(reading).scheme != "file":
                with suppress(OSError):
                    await fetch(reading, put=b"forged")
                assert await content(storage, "k") == b"content", f"who may read may write: {reading}"
            writing = await _presigned(storage, "new/k", expires=LONG, method="PUT")
            await fetch(writing, put=b"written")
            found = await content(storage, "new/k")
            assert found == b"written", f"what was written to {writing} is there as {found!r}"

    @law(level=PATHS)
    async def test_a_path_is_the_objects_own(self) -> None:
        """path gives None, or where this machine has the object's content."""
        async with self.empty() as storage:
            await storage.put("folder/k", b"content")
            path = await asyncio.to_thread(_path, storage, "folder/k")
            found = await asyncio.to_thread(lambda: path.read_bytes() if path.is_file() else None)
            assert found == b"content", f"the object's path {path} has {found!r}"
            above = await asyncio.to_thread(_path, storage, "folder")
            assert above == path.parent, f"folder/k is at {path}, and folder at {above}"

    @law(level=WRITING)
    async def test_no_key_leads_out_of_the_storage(self) -> None:
        """Whatever a key looks like when it is unquoted, split at backslashes or expanded, it leads nowhere else."""
        async with self.fresh() as place, self.at(place.url) as storage:
            outside = place.folder.parent
            await asyncio.to_thread((outside / "secret").write_bytes, b"secret")
            await asyncio.to_thread((place.folder / "secret").write_bytes, b"secret")
            before = await asyncio.to_thread(_outside, outside, place.folder)
            await storage.put("d/k", b"own")
            for key in _escapes(outside):
                for call, name in (
                    (partial(content, storage, key), "get"),
                    (partial(storage.copy, key, "stolen"), "copy"),
                ):
                    try:
                        found: object = await call()
                    except StorageError:
                        continue
                    raise AssertionError(f"{key!r} isn't there, and {name} gave {found!r}")
                try:
                    await storage.put(key, b"put")
                except StorageError:
                    continue
                assert await content(storage, key) == b"put", f"{key!r} was put, and is another"
                assert await storage.delete(key), f"{key!r} was put, and delete gave False"
            after = await asyncio.to_thread(_outside, outside, place.folder)
            assert after == before, f"keys led out: outside there was {before}, and there is {after}"
            names = [each.key for each in await listed(storage)]
            assert names == ["d/k"], f"after keys that look like ways out there are {names}"

    @law(level=PATHS)
    async def test_no_link_leads_out_of_the_storage(self) -> None:
        """On a local disk no symbolic link is followed that leads out, to read or to write."""
        async with self.fresh() as place, self.at(place.url) as storage:
            await storage.put("d/own", b"own")
            path = await asyncio.to_thread(_path, storage, "d/own")
            outside = place.folder.parent / "outside"
            await asyncio.to_thread(_link, path.parent, outside)
            for key in ("d/file", "d/folder/secret", "d/folder/new"):
                for call, name in (
                    (partial(storage.put, key, b"forged"), "put"),
                    (partial(storage.copy, "d/own", key), "copy to"),
                ):
                    try:
                        await call()
                    except StorageError:
                        continue
                    left = await asyncio.to_thread(os.listdir, outside)
                    assert left == ["secret"], (
                        f"{name} {key!r}, behind a link that leads out, wrote there: {left}"
                    )
                secret = await asyncio.to_thread((outside / "secret").read_bytes)
                assert secret == b"secret", f"put {key!r}, behind a link that leads out, wrote there"
            await asyncio.to_thread(_link, path.parent, outside)
            for key in ("d/file", "d/folder/secret"):
                try:
                    found = await content(storage, key)
                except StorageError:
                    found = b""
                assert found != b"secret", f"get {key!r} read what a link that leads out points to"
                await storage.delete(key)
            assert await asyncio.to_thread((outside / "secret").exists), (
                "delete went through a link that leads out"
            )
            names = [each.key for each in await listed(storage)]
            assert "d/folder/secret" not in names, f"what is behind a link that leads out is listed: {names}"


async def _presigned(
    storage: Storage, key: str, *, expires: float, method: Literal["GET", "PUT"] = "GET"
) -> str:
    try:
        url = await storage.presign(key, expires=expires, method=method)
    except StorageError as error:
        raise NotApplicable(f"no access by URL ({method}): {error}") from error
    assert isinstance(url, str), f"presign gave {url!r}, no URL"
    if (scheme := urlsplit(url).scheme) not in FETCHED:
        raise NotApplicable(f"nothing here speaks {scheme}")
    return url


async def _readable(url: str) -> bool:
    try:
        await fetch(url)
    except OSError:
        return False
    return True


def _path(storage: Storage, key: str) -> Path:
    path = storage.path(key)
    if path is None:
        raise NotApplicable("objects are no files of this machine")
    assert path.is_absolute(), f"the path of {key!r} is relative: {path}"
    return path


def _escapes(outside: Path) -> list[str]:
    """Keys that lead out where somebody takes them for something else."""
    root = str(outside / "secret")
    return [
        *("/".join(["%2e%2e"] * depth + ["secret"]) for depth in (1, 2, 3)),
        *("%2F".join([".."] * depth + ["secret"]) for depth in (1, 2, 3)),
        *("\\".join([".."] * depth + ["secret"]) for depth in (1, 2, 3)),
        *("d/" + "%2f".join([".."] * depth + ["secret"]) for depth in (2, 3, 4)),
        root.replace("/", "%2F"), root.replace("/", "\\"), f"%00/{root[1:]}", f"~/{root[1:]}", "$HOME/secret",
        "file:", f"file:%2F%2F{root}", "..%252fsecret", "．．/secret", "․․/secret", "... /secret",
    ]  # fmt: skip


def _outside(outside: Path, inside: Path) -> list[str]:
    """What lies outside, and beside what was made inside."""
    there = [path for path in outside.rglob("*") if inside not in path.parents]
    secrets = {path.read_bytes() for path in (outside / "secret", inside / "secret")}
    return sorted(str(path.relative_to(outside)) for path in there) + [each.decode() for each in secrets]


def _link(folder: Path, outside: Path) -> None:
    outside.mkdir(exist_ok=True)
    (outside / "secret").write_bytes(b"secret")
    for name, target in (("file", outside / "secret"), ("folder", outside)):
        path = folder / name
        if path.is_symlink() or path.is_file():
            path.unlink()
        if not path.exists():
            path.symlink_to(target)
