"""What the hub refuses, and what mends it."""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from typing import Any

from llmengine_core.interfaces.storage import ObjectMissing, StorageError
from llmengine_core.types.launch import Exit
from llmengine_hub.environment import HubEnvironment
from llmengine_hub.repositories import Repository

__all__ = ["SECRET", "SEE_ENDPOINT", "RepositoryMissing", "TokenRefused", "failure", "refusal"]

SEE_ENDPOINT = "see that HF_ENDPOINT names one, and that no proxy changes what it says"


MENDS: Mapping[Any, str] = {
    errno.ENOSPC: "free some space, or set HF_HUB_CACHE to a folder on a larger disk",
    errno.EDQUOT: "free some of this user's quota, or set HF_HUB_CACHE to a folder on another disk",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), or set HF_HUB_CACHE to a disk that takes them",
}
SECRET = re.compile(r"\?[^\s'\"]*")
"""What follows the path of a URL; a store's may grant access."""


class RepositoryMissing(StorageError):
    """There is no such repository or revision, as far as we may see."""


class TokenRefused(StorageError):
    """The hub doesn't take our token."""


def refusal(
    status: int,
    headers: Mapping[str, str],
    repository: Repository,
    hub: HubEnvironment,
    key: str | None = None,
) -> StorageError:
    """The error for an answer of the hub's; ``headers`` by names in lower case, ``key`` is the file asked for."""
    name, code = repository.name, headers.get("x-error-code", "")
    token = _token_of(hub)
    if code == "EntryNotFound" and key is not None:
        return ObjectMissing(f"{repository.url} has no file {key!r}")
    if code == "RevisionNotFound":
        return RepositoryMissing(
            f"{name} has no revision {repository.revision!r}; they are at {hub.endpoint}/{name}/tree/main"
        )
    if code == "GatedRepo":
        mend = (
            f"the account of the token in {token} has no access; ask for it at {hub.endpoint}/{name}, or use another "
            "account's token"
            if hub.token
            else f"accept its terms at {hub.endpoint}/{name}, then set HF_TOKEN to a token of that account, or run "
            "`hf auth login`"
        )
        return StorageError(f"{name} is gated: {mend}")
    if code == "RepoNotFound" or (status == 401 and not hub.token):
        mend = (
            f"or the token in {token} may not see it; correct the name, or use the token of an account that may"
            if hub.token
            else "or it is private; correct the name, or set HF_TOKEN to a token that may see it"
        )
        return RepositoryMissing(f"{hub.endpoint} has no repository {name!r}, {mend}")
    if status == 401:
        return TokenRefused(
            f"{hub.endpoint} doesn't take the token in {token}: it is wrong, or has expired. Run `hf auth login`, make "
            f"another at {hub.endpoint}/settings/tokens, or remove it: public repositories need none"
        )
    if status == 403:
        who = f"the token in {token} doesn't permit it" if hub.token else "there is no token"
        return StorageError(
            f"{hub.endpoint} refuses {repository.url} (403): {who}; set HF_TOKEN to one that does"
        )
    if status == 404:
        return (
            ObjectMissing(f"{repository.url} has no file {key!r}")
            if key
            else _strange(status, repository, hub)
        )
    if status == 429:
        wait = headers.get("retry-after", "")
        after = f" in {wait} s" if wait.isdigit() else " later"
        more = "" if hub.token else ", or set HF_TOKEN: those who are known may ask more often"
        return StorageError(f"{hub.endpoint} has been asked too often (429); try again{after}{more}")
    if status >= 500:
        return StorageError(
            f"{hub.endpoint} is out of order ({status}) and could not give {repository.url}; try again later, or "
            "set HF_ENDPOINT to a mirror"
        )
    return _strange(status, repository, hub)


def _strange(status: int, repository: Repository, hub: HubEnvironment) -> StorageError:
    return StorageError(
        f"{hub.endpoint} answered {status} for {repository.url}, as no hub does; {SEE_ENDPOINT}"
    )


def _token_of(hub: HubEnvironment) -> str:
    return "HF_TOKEN" if hub.token_named else str(hub.token_file)


def failure(error: Any, end: Exit, repository: Repository, hub: HubEnvironment) -> StorageError:
    """The error for a download that failed, by what its process said last; ``end`` is how that process ended."""
    match error:
        case {"status": int(status), "headers": dict(headers), "key": str(key)}:
            return refusal(status, headers, repository, hub, key)
        case {"refused": str(said)}:
            return StorageError(f"{repository.url} can't be fetched: {said}")
        case {"unreachable": str(said)}:
            return StorageError(
                f"{repository.url} can't be fetched: the connection failed again and again, last with {said}. What has "
                "come is kept: try again, and look at the network"
            )
        case {"room": {"needed": int(needed), "free": int(free)}}:
            return StorageError(
                f"{repository.url} needs {needed:,} bytes in {hub.cache}, and {free:,} are free; free some, or set "
                "HF_HUB_CACHE to a folder on a larger disk"
            )
        case {"wrong": str(key), "path": str(path)}:
            again = "" if hub.offline else ", twice"
            return StorageError(
                f"{key!r} of {repository.url} came with other content than its digest says{again}; it is at {path}. "
                f"Remove that, and see that nothing between here and {hub.endpoint} changes what it sends"
            )
        case {"os": number, "said": str(said), "path": str(path)}:
            mend = MENDS.get(number, "give this user the rights, or set HF_HUB_CACHE to a folder of its own")
            return StorageError(
                f"{repository.url} can't be kept in {hub.cache}: {said}{f' ({path})' if path else ''}; {mend}"
            )
        case {"strange": str(key)}:
            return StorageError(
                f"{hub.endpoint} says too little of {key!r} of {repository.url}, as no hub does; {SEE_ENDPOINT}"
            )
        case {"failed": str(said)}:
            return StorageError(f"{repository.url} can't be fetched: {said}")
    how = f"signal {end.signal}" if end.code is None else f"exit code {end.code}"
    return StorageError(
        f"{repository.url} can't be fetched: the download ended with {how}: {end.reason[-500:]}"
    )
