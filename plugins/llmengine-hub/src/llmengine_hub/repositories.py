"""Repositories: how URLs name them, what lies in one commit of them, and which names are safe to be paths."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from llmengine_core.interfaces.storage import StorageError

__all__ = ["COMMIT", "File", "Repository", "is_key", "parse", "refuse_key"]

NAME = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?")
NO_REF = r"\x00-\x20\x7f-\x9f\ud800-\udfff~^:?*\[\\"
REVISION = re.compile(rf"(?!.*(?:\.\.|//|/\.))[^{NO_REF}/.-][^{NO_REF}]*")
COMMIT = re.compile(r"[0-9a-f]{40}")
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
OTHER_KINDS = frozenset({"buckets", "datasets", "kernels", "models", "spaces"})
LONGEST_REVISION = 255
FORM = "hf://org/name, hf://org/name@revision or hf://org/name/folder, the revision percent-encoded"


@dataclass(frozen=True, slots=True)
class Repository:
    """One revision of a repository of models."""

    name: str
    """ "org/name", or "name" of the oldest ones."""
    revision: str
    """A branch, a tag or a commit."""

    @property
    def url(self) -> str:
        """What names it."""
        at = "" if self.revision == "main" else f"@{quote(self.revision, safe='')}"
        return f"hf://{self.name}{at}"

    @property
    def folder(self) -> str:
        """Its folder in the cache of the hub's library."""
        return "--".join(["models", *self.name.split("/")])


@dataclass(frozen=True, slots=True)
class File:
    """One file of a commit."""

    key: str
    size: int
    oid: str
    """SHA-1 of git's blob: of the content, or of the pointer to it."""
    sha256: str | None = None
    """Of the content, where the hub keeps it apart from git."""

    @property
    def digest(self) -> str:
        """What its content is known by."""
        return self.sha256 or self.oid


def parse(url: str) -> tuple[Repository, str]:
    """The repository that a URL names, and the folder in it: "" or what ends in "/". Raises ``StorageError``."""
    parts = urlsplit(url)
    if parts.scheme != "hf" or parts.query or parts.fragment:
        raise StorageError(f"{url!r} names no repository of the hub; allowed is {FORM}")
    segments = [each for each in f"{parts.netloc}{parts.path}".split("/") if each]
    at = next((index for index, each in enumerate(segments[:2]) if "@" in each), min(len(segments), 2) - 1)
    name, found, revision = "/".join(segments[: at + 1]).partition("@")
    revision = unquote(revision) if found else "main"
    if segments and segments[0] in OTHER_KINDS:
        raise StorageError(
            f"{url!r} names {segments[0]}; only repositories of models are read: hf://org/name"
        )
    if not segments or not all(NAME.fullmatch(each) for each in name.split("/")) or name.endswith(".git"):
        raise StorageError(
            f"{url!r} names no repository of the hub: {name!r} must be a name, or org/name, of 1 to 96 ASCII letters, "
            f"digits, '_', '-' and '.'; allowed is {FORM}"
        )
    if (
        len(revision) > LONGEST_REVISION
        or not REVISION.fullmatch(revision)
        or revision.endswith(("/", ".lock"))
    ):
        raise StorageError(f"{url!r}: {revision!r} is no revision; it must be a branch, a tag or a commit")
    folder = unquote("/".join(segments[at + 1 :]))
    if folder:
        refuse_key(folder)
    return Repository(name, revision), f"{folder}/" if folder else ""


def is_key(text: str) -> bool:
    """Whether a file of a repository can be a key, and so a path below a folder."""
    return not CONTROL.search(text) and not {"", ".", ".."} & set(text.split("/"))


def refuse_key(text: str) -> None:
    """Raise ``StorageError`` for text that is no key."""
    if not is_key(text):
        raise StorageError(
            f'{text!r} is no key: segments are joined by one "/", and none is empty, "." or ".." or holds control '
            "characters or half a character"
        )
