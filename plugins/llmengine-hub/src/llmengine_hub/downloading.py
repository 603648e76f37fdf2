"""The program that downloads: a process with the hub's own library, that fills the library's own cache.

In a process of its own, what the library keeps for a whole process is nobody else's: its client, which goes where the
policy lets; its environment, read when it is used; its bars and log. And it can be ended at any moment. It reads one
JSON line, the order, and writes lines: {"done": bytes} now and then, and in the end {"ok": true} or {"error": ...}.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import httpx2
from huggingface_hub import get_token, hf_hub_download, set_client_factory
from huggingface_hub.errors import FileMetadataError, HfHubHTTPError, LocalEntryNotFoundError

from llmengine_core.errors import LLMEngineError
from llmengine_hub.cached import Cached
from llmengine_hub.environment import HubEnvironment
from llmengine_hub.pinning import PolicyTransport, Resumed
from llmengine_hub.policy import HubPolicy
from llmengine_hub.refusals import SECRET
from llmengine_hub.repositories import File, Repository

__all__ = ["main"]

AT_ONCE = 4
"""Files."""
ATTEMPTS = 5
TRIED_AGAIN = (httpx2.ConnectError, httpx2.TimeoutException, httpx2.RemoteProtocolError)
"""What the library tries again by itself."""
TOLD_EACH = 0.1
"""Seconds between two words on how far it is."""
ROOM_LEFT = 16 << 20
"""Bytes that a disk shall have left."""


class _Failed(Exception):
    def __init__(self, **error: Any) -> None:
        super().__init__(error)
        self.error = error


class _Counter:
    """The bytes of all files."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._done = 0
        self._told = 0.0

    def add(self, count: int) -> None:
        with self._turn:
            self._done += count
            now = time.monotonic()
            if now - self._told >= TOLD_EACH:
                self._told = now
                _say({"done": self._done})


class _Bar:
    """What the library takes for the class of its progress bars; one file's."""

    def __init__(self, counter: _Counter) -> None:
        self._counter = counter
        self.done = 0

    def __call__(self, **given: Any) -> _Bar:
        self.update(given.get("initial"))
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is shown."""

    def update(self, count: float | None = 1) -> None:
        self.done += int(count or 0)
        self._counter.add(int(count or 0))

    def complete(self, size: int) -> None:
        """Count what was there without a download."""
        self.update(size - self.done)


class _Download:
    """One order."""

    def __init__(self, order: Mapping[str, Any], hub: HubEnvironment, resumed: Resumed) -> None:
        self._hub = hub
        self._repository = Repository(order["name"], order["revision"])
        self._commit: str = order["commit"]
        self._files = [File(**each) for each in order["files"]]
        self._cached = Cached(self._hub, self._repository)
        self._counter = _Counter()
        self._resumed = resumed

    def run(self) -> None:
        """Bring and check all files, several at once. Raises ``_Failed`` for the first that can't be."""
        self._require_room()
        threads = ThreadPoolExecutor(AT_ONCE)  # not waited for: this process ends with the first failure
        for each in as_completed([threads.submit(self._bring, file) for file in self._files]):
            each.result()

    def _require_room(self) -> None:
        missing = [file for file in self._files if self._cached.path(self._commit, file) is None]
        needed = sum(file.size for file in missing) + ROOM_LEFT
        folder = next(each for each in (self._hub.cache, *self._hub.cache.parents) if each.exists())
        free = shutil.disk_usage(folder).free
        if missing and needed > free:
            raise _Failed(room={"needed": needed, "free": free})

    def _bring(self, file: File) -> None:
        bar = _Bar(self._counter)
        try:
            for again in (False, True):
                path = self._cached.path(self._commit, file) or self._fetch(file, bar)
                bar.complete(file.size)
                if self._cached.is_checked(path, file) or self._cached.check(path, file):
                    return
                if self._hub.offline or again:
                    raise _Failed(wrong=file.key, path=str(path))
                self._cached.remove(path)
                bar.complete(0)
        except OSError as error:
            raise _failed_by_os(error) from error

    def _fetch(self, file: File, bar: _Bar) -> Path:
        resumed = self._resumed
        resumed.blob = self._cached.folder / "blobs" / file.digest
        resumed.left = ()
        for attempt in range(ATTEMPTS):
            try:
                path = Path(self._ask(file, bar))
            except (HfHubHTTPError, httpx2.TransportError, LocalEntryNotFoundError, OSError) as error:
                if attempt + 1 == ATTEMPTS or not _is_passing(error):
                    raise _told(error, file) from error
                bar.complete(0)
                time.sleep(0.25 * 2**attempt * random.uniform(0.5, 1.5))
            except LLMEngineError as error:
                raise _Failed(refused=str(error)) from error
            else:
                leftover: Path
                for leftover in resumed.left:
                    leftover.unlink(missing_ok=True)
                return path
        raise AssertionError(file.key)

    def _ask(self, file: File, bar: _Bar) -> str:
        bars: Any = bar  # called as their class is
        found: str = hf_hub_download(
            self._repository.name,
            file.key,
            revision=self._commit,
            endpoint=self._hub.endpoint,
            cache_dir=self._hub.cache,
            library_name="llmengine",
            library_version=version("llmengine-hub"),
            tqdm_class=bars,
            local_files_only=self._hub.offline,
        )
        return found


def _is_passing(error: Exception) -> bool:
    """Whether another try may go better; what the library has tried again itself is past that."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code >= 500
    if isinstance(error, httpx2.TransportError):
        return not isinstance(error, TRIED_AGAIN)
    return type(error) is OSError and error.errno is None


def _told(error: Exception, file: File) -> _Failed:
    root: BaseException = error
    while isinstance(root, LocalEntryNotFoundError) and root.__cause__ is not None:
        root = root.__cause__
    if isinstance(root, HfHubHTTPError):
        headers = {name: root.response.headers.get(name, "") for name in ("x-error-code", "retry-after")}
        return _Failed(status=root.response.status_code, headers=headers, key=file.key)
    if isinstance(root, httpx2.TransportError):
        return _Failed(unreachable=_said(root))
    if isinstance(root, FileMetadataError):
        return _Failed(strange=file.key)
    if isinstance(root, OSError) and root.errno is not None:
        return _failed_by_os(root)
    return _Failed(failed=_said(root), key=file.key)


def _failed_by_os(error: OSError) -> _Failed:
    return _Failed(os=error.errno, said=error.strerror or str(error), path=str(error.filename or ""))


def _said(error: BaseException) -> str:
    text = SECRET.sub("?…", str(error)).strip()
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


_writing = threading.Lock()


def _say(message: Mapping[str, Any]) -> None:
    with _writing:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()


def main() -> None:
    """Carry out the order on standard input."""
    order = json.loads(sys.stdin.readline())
    try:
        hub, resumed = HubEnvironment.read(), Resumed()
        transport = PolicyTransport(HubPolicy(tuple(order["private_hosts"]), endpoint=hub.endpoint), resumed)
        set_client_factory(
            lambda: httpx2.Client(transport=transport, follow_redirects=True, timeout=None, trust_env=False)
        )
        if order.get("renew"):
            get_token()  # which renews it where that is due
        else:
            _Download(order, hub, resumed).run()
    except _Failed as failed:
        _say({"error": failed.error})
    except Exception as error:
        _say({"error": {"failed": _said(error), "key": ""}})
    else:
        _say({"ok": True})
    with suppress(OSError):
        sys.stderr.flush()
    os._exit(0)  # others' downloads may still run, and nobody wants them


if __name__ == "__main__":
    main()
