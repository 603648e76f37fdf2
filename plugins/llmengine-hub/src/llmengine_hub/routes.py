"""The few routes of the hub that say what there is: a revision's commit, a commit's files, the bytes of one."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from llmengine_core.errors import LLMEngineError
from llmengine_core.fetching import Broken, Fetched, FetchError, Limits, Refused, fetch
from llmengine_core.interfaces.storage import StorageError
from llmengine_core.urls import UrlPolicy
from llmengine_hub.environment import HubEnvironment
from llmengine_hub.policy import HubPolicy
from llmengine_hub.refusals import SEE_ENDPOINT, refusal
from llmengine_hub.repositories import COMMIT, File, Repository, is_key

__all__ = ["Routes", "Unreachable"]

ATTEMPTS = 4
PAUSE = 0.25
"""Seconds before the second attempt; each further one waits twice as long."""
SHA256 = re.compile(r"[0-9a-f]{64}")
LARGEST_PAGE = 16 << 20
MOST_FILES = 100_000
SECONDS = 15.0
"""For a whole answer about a repository."""


class Unreachable(StorageError):
    """The hub can't be asked for now: it doesn't answer, or is out of order."""


class Routes:
    """Questions about one repository."""

    def __init__(self, hub: HubEnvironment, repository: Repository, policy: UrlPolicy) -> None:
        self._hub = hub
        self._repository = repository
        self._policy = HubPolicy(
            policy.private_hosts, policy.lookup, policy.lookup_seconds, endpoint=hub.endpoint
        )

    async def commit(self) -> str:
        """The commit that the revision is now."""
        revision = quote(self._repository.revision, safe="")
        answer, _ = await self._json(f"/api/models/{self._repository.name}/revision/{revision}")
        commit = answer.get("sha") if isinstance(answer, dict) else None
        if not (isinstance(commit, str) and COMMIT.fullmatch(commit)):
            raise self._strange("names no commit")
        return commit

    async def files(self, commit: str) -> dict[str, File]:
        """All files of a commit by key; those that are no safe path are left out."""
        files: dict[str, File] = {}
        path = f"/api/models/{self._repository.name}/tree/{commit}?recursive=true&expand=false"
        while path:
            page, headers = await self._json(path)
            if not isinstance(page, list):
                raise self._strange("lists no files")
            files |= {file.key: file for file in map(self._file, page) if file is not None}
            if len(files) > MOST_FILES:
                raise StorageError(
                    f"{self._repository.url} has over {MOST_FILES:,} files; it is no checkpoint"
                )
            path = _next(path, headers.get("link", "")) if page else ""
        return files

    async def read(self, commit: str, file: File, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        """Bytes of one file, at least one, from wherever the hub keeps it; one that broke off is gone on with."""
        path = f"/{self._repository.name}/resolve/{commit}/{quote(file.key)}"
        attempt = 1
        while start < stop:
            async with AsyncExitStack() as stack:
                try:
                    limits = Limits(size=stop - start)
                    fetched = await stack.enter_async_context(
                        self._fetch(path, limits, start=start, stop=stop)
                    )
                    async for piece in fetched.pieces:
                        yield piece
                        start, attempt = start + len(piece), 1
                    if start < stop:
                        raise Broken(f"{file.key} ended {stop - start} bytes early")
                except (FetchError, LLMEngineError) as error:
                    await self._wait_or_raise(error, attempt, file.key)
            attempt += 1

    def _file(self, entry: Any) -> File | None:
        if not isinstance(entry, dict) or entry.get("type") != "file":
            return None
        match entry, entry.get("lfs"):
            case {"path": str(key), "oid": str(oid), "size": int(size)}, None:
                sha256 = None
            case {"path": str(key), "oid": str(oid)}, {"size": int(size), "oid": str(sha256)}:
                pass
            case _:
                raise self._strange("lists a file without a size or a digest")
        if size < 0 or not COMMIT.fullmatch(oid) or not (sha256 is None or SHA256.fullmatch(sha256)):
            raise self._strange("lists a file without a size or a digest")
        return File(key, size, oid, sha256) if is_key(key) else None

    async def _json(self, path: str) -> tuple[Any, Mapping[str, str]]:
        body, headers = await self._whole(path)
        try:
            return json.loads(body), headers
        except (ValueError, RecursionError):
            raise self._strange("gives no JSON") from None

    async def _whole(self, path: str) -> tuple[bytes, Mapping[str, str]]:
        limits = Limits(size=LARGEST_PAGE, seconds=SECONDS, idle_seconds=SECONDS)
        attempt = 1
        while True:
            try:
                async with self._fetch(path, limits) as fetched:
                    return b"".join([piece async for piece in fetched.pieces]), fetched.headers
            except (FetchError, LLMEngineError) as error:
                await self._wait_or_raise(error, attempt)
            attempt += 1

    def _fetch(
        self, path: str, limits: Limits, *, start: int = 0, stop: int | None = None
    ) -> AbstractAsyncContextManager[Fetched]:
        url = f"{self._hub.endpoint}{path}"
        return fetch(url, self._policy, limits, start=start, stop=stop, bearer=self._hub.token)

    async def _wait_or_raise(self, error: Exception, attempt: int, key: str | None = None) -> None:
        """Wait before the next attempt, or raise what it comes to."""
        passing = isinstance(error, Broken) or (
            isinstance(error, Refused) and (error.status >= 500 or error.status == 429)
        )
        if passing and attempt < ATTEMPTS:
            asked = error.retry_after if isinstance(error, Refused) else None
            pause = PAUSE * 2 ** (attempt - 1) * random.uniform(0.5, 1.0)
            if asked is None or asked <= SECONDS / ATTEMPTS:
                await asyncio.sleep(max(pause, asked or 0.0))
                return
        if isinstance(error, Refused):
            told = refusal(error.status, error.headers, self._repository, self._hub, key)
            raise (Unreachable(str(told)) if error.status >= 500 else told) from error
        if isinstance(error, Broken):
            raise Unreachable(f"{self._hub.endpoint} can't be reached: {error}") from error
        if isinstance(error, LLMEngineError) and error.status_code == 503:  # nobody tells its address
            raise Unreachable(f"{self._hub.endpoint} can't be reached: {error}") from error
        raise StorageError(f"{self._repository.url} can't be read: {error}") from error

    def _strange(self, what: str) -> StorageError:
        return StorageError(
            f"{self._hub.endpoint} {what} for {self._repository.url}, as no hub does; {SEE_ENDPOINT}"
        )


def _next(path: str, link: str) -> str:
    """The path of the next page, "" at the end; whatever host a mirror's answer names, it is asked of the same."""
    for each in link.split(","):
        target, _, relation = each.partition(">")
        if "next" in relation.partition("rel=")[2][:6]:
            cursors = parse_qs(urlsplit(target.strip(" <")).query).get("cursor")
            if cursors:
                base = path.partition("&cursor=")[0]
                following = f"{base}&{urlencode({'cursor': cursors[0]})}"
                return "" if following == path else following
    return ""
