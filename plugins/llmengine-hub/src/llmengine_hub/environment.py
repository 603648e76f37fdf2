"""What the environment says about the hub, read as the hub's own library reads it, and whenever it is used."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llmengine_core.interfaces.storage import StorageError

__all__ = ["DEFAULT_ENDPOINT", "HubEnvironment"]

DEFAULT_ENDPOINT = "https://huggingface.co"
TRUE = frozenset({"1", "ON", "YES", "TRUE"})
LONGEST_TOKEN = 4096


@dataclass(frozen=True, slots=True)
class HubEnvironment:
    """Where the hub is, who we are to it, and where its files are kept."""

    endpoint: str
    """Without "/" at its end."""
    cache: Path
    """The folder that all users of the hub's library on this machine share."""
    token_file: Path
    offline: bool = False
    xet: bool = False
    """Whether the library may fetch by its xet protocol: HF_HUB_DISABLE_XET=0 says so."""
    token: str | None = field(default=None, repr=False)
    token_named: bool = False
    """Whether a variable holds it, and not the file."""

    @classmethod
    def read(cls, environ: Mapping[str, str] | None = None) -> HubEnvironment:
        """By the variables HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_TOKEN_PATH, HF_HUB_OFFLINE and their
        older names. Reads the token's file: call it in a thread. Raises ``StorageError`` for what can't be used."""
        given = os.environ if environ is None else environ
        home = _path(given.get("HF_HOME") or f"{given.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface")
        endpoint = (given.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
        if not endpoint.startswith(("https://", "http://")):
            raise StorageError(
                f"HF_ENDPOINT is {endpoint!r}; it must be the http(s) URL of a hub, as {DEFAULT_ENDPOINT} is"
            )
        token_file = _path(given.get("HF_TOKEN_PATH") or str(home / "token"))
        cache = given.get("HF_HUB_CACHE") or given.get("HUGGINGFACE_HUB_CACHE") or str(home / "hub")
        return cls(
            endpoint=endpoint,
            cache=_path(cache).absolute(),
            token_file=token_file,
            offline=_true(given.get("HF_HUB_OFFLINE") or given.get("TRANSFORMERS_OFFLINE")),
            xet=not _true(given.get("HF_HUB_DISABLE_XET", "1")),
            token=_token(given, token_file),
            token_named=bool(given.get("HF_TOKEN") or given.get("HUGGING_FACE_HUB_TOKEN")),
        )


def _token(given: Mapping[str, str], file: Path) -> str | None:
    if _true(given.get("HF_HUB_DISABLE_IMPLICIT_TOKEN")):
        return None
    named = given.get("HF_TOKEN") or given.get("HUGGING_FACE_HUB_TOKEN")
    if not named:
        try:
            with file.open(encoding="utf-8") as opened:
                named = opened.read(LONGEST_TOKEN)
        except (OSError, UnicodeError):
            return None
    token = named.replace("\r", "").replace("\n", "").strip()
    if not (token.isascii() and token.isprintable()) or " " in token:
        where = "HF_TOKEN" if given.get("HF_TOKEN") else str(file)
        raise StorageError(f"the hub's token in {where} holds what no token has; write it there anew")
    return token or None


def _path(text: str) -> Path:
    return Path(os.path.expandvars(os.path.expanduser(text)))


def _true(value: str | None) -> bool:
    return value is not None and value.upper() in TRUE
