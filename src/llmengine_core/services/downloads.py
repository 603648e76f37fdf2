"""URLs by which a model's files can be fetched."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TypeAlias
from urllib.parse import unquote, urlsplit

from llmengine_core.errors import ServerError, UnsupportedFeatureError
from llmengine_core.interfaces.storage import ObjectMissing, Storage, StorageError
from llmengine_core.looks import HERE, scheme_of, shown, split_location
from llmengine_core.services.storing import storage_errors

__all__ = ["OpenStorage", "download_urls", "lies_in"]

SECONDS = 3600.0
"""How long a URL that grants access does so."""
MOST_FILES = 10_000

OpenStorage: TypeAlias = Callable[[str], Storage]
"""Opens a storage at a URL; blocks."""


def lies_in(location: str, folder: str) -> bool:
    """Whether a path or URL is that of a folder, or of something below it. Blocks."""
    above = _steps(folder)
    return _steps(location)[: len(above)] == above


def _steps(location: str) -> tuple[str, ...]:
    """What leads to a location, name by name; itself where nothing does."""
    scheme = scheme_of(location)
    try:
        if scheme in (None, "file"):
            path = Path(location if scheme is None else unquote(urlsplit(location).path))
            return path.expanduser().resolve().parts
        parts = urlsplit(location)
    except (ValueError, RuntimeError, OSError):
        return (location,)
    return (parts.scheme, parts.netloc, *(each for each in unquote(parts.path).split("/") if each))


async def download_urls(location: str, path: str | None, open_storage: OpenStorage) -> dict[str, str]:
    """The URL of each file at a path or URL, by the file's name below it; "/" separates folders.

    ``path`` is where the weights are on this machine, if they are. Files of this machine have ``file://`` URLs, those
    of a storage URLs that grant access for an hour, those of a web server their own. Raises ``ServerError`` where
    nothing is there, ``UnsupportedFeatureError`` where the storage has no URLs.
    """
    scheme = scheme_of(location)
    if scheme in ("http", "https"):
        return {_web_name(location): location}
    if scheme in (None, *HERE):
        return await asyncio.to_thread(_urls_here, location, scheme, path)
    with storage_errors():
        return await _urls_afar(location, open_storage)


def _web_name(url: str) -> str:
    return unquote(urlsplit(url).path).rstrip("/").rpartition("/")[2] or "checkpoint"


def _urls_here(location: str, scheme: str | None, found: str | None) -> dict[str, str]:
    """The files of this machine at a path or URL, links followed to files."""
    if scheme == "package":
        path = Path(found or "")
    elif scheme == "file":
        path = Path(unquote(urlsplit(location).path))
    else:
        path = Path(location).expanduser()
    if path.is_file():
        return {path.name: path.absolute().as_uri()}
    urls: dict[str, str] = {}
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            file = Path(folder, name)
            if file.is_file():
                _take(location, urls, file.relative_to(path).as_posix(), file.absolute().as_uri())
    return urls or _gone(location)


async def _urls_afar(location: str, open_storage: OpenStorage) -> dict[str, str]:
    """An object has its name in the folder above it, which some storages can't be opened at; else it is a folder."""
    root, name = split_location(location)
    refusal: StorageError | None = None
    if name:
        try:
            async with _opened(open_storage, root) as storage:
                await storage.head(name)
                return {name: await _presigned(storage, name, location)}
        except StorageError as error:
            refusal = error
    urls: dict[str, str] = {}
    try:
        async with (
            _opened(open_storage, location.rstrip("/")) as storage,
            aclosing(storage.list()) as objects,
        ):
            async for each in objects:
                _take(location, urls, each.key, await _presigned(storage, each.key, location))
    except StorageError as error:
        raise refusal if refusal is not None and not isinstance(refusal, ObjectMissing) else error from None
    return urls or _gone(location)


@asynccontextmanager
async def _opened(open_storage: OpenStorage, url: str) -> AsyncGenerator[Storage, None]:
    storage = await asyncio.to_thread(open_storage, url)
    try:
        yield storage
    finally:
        await storage.aclose()


async def _presigned(storage: Storage, key: str, location: str) -> str:
    try:
        return await storage.presign(key, expires=SECONDS)
    except StorageError as error:
        raise UnsupportedFeatureError(
            f"the weights lie at {shown(location)}, whose files have no URLs to fetch them by: {error}. Whoever may "
            "read that storage fetches them there"
        ) from error


def _take(location: str, urls: dict[str, str], name: str, url: str) -> None:
    if len(urls) == MOST_FILES:
        raise ServerError(f"{shown(location)} holds more than {MOST_FILES:,} files; fetch them there")
    urls[name] = url


def _gone(location: str) -> dict[str, str]:
    raise ServerError(f"there are no files at {shown(location)} any more; put them back, or update the model")
