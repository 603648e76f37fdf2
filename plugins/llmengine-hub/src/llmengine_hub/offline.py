"""What to do where the hub can't be asked and its cache doesn't have what is wanted."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from llmengine_core.interfaces.storage import StorageError
from llmengine_hub.environment import HubEnvironment
from llmengine_hub.repositories import File, Repository

__all__ = ["not_here"]

NAMED = 5
"""Files that a message names."""


def not_here(
    hub: HubEnvironment, repository: Repository, why: str, missing: Sequence[File], folder: str = ""
) -> StorageError:
    """``why`` says why the hub isn't asked; ``missing`` are the files, none where nothing is known of them.

    ``folder`` is then the one in the repository that they would lie in, or the one file.
    """
    if missing:
        size = sum(file.size for file in missing)
        named = ", ".join(file.key for file in missing[:NAMED])
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        what = f"{named}{more} ({size:,} bytes) of {repository.url}"
    else:
        what = repository.url
    command = ["hf", "download", repository.name]
    if repository.revision != "main":
        command += ["--revision", repository.revision]
    if 0 < len(missing) <= NAMED:
        for file in missing:
            command += ["--include", _exactly(file.key)]
    elif folder and not missing:
        command += ["--include", _exactly(folder.rstrip("/")), "--include", f"{_exactly(folder)}*"]
    return StorageError(
        f"{why}, and {what} is not in the cache {hub.cache}. Run `{shlex.join(command)}` where the hub can be reached, "
        f"and put the folder {repository.folder} of its cache into that one; or give a folder of this machine as "
        "checkpoint_path; or set HF_ENDPOINT to a mirror that can be reached"
    )


def _exactly(key: str) -> str:
    """A pattern that only one key matches."""
    return key.translate({ord(each): f"[{each}]" for each in "[*?"})
