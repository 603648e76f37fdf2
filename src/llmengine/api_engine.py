"""Where calls go, and in whose name."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from llmengine_core import home
from llmengine_core.arguments.checks import http_url, text
from llmengine_core.callers import caller_of
from llmengine_core.errors import UnsupportedFeatureError

if TYPE_CHECKING:
    from llmengine_core.engine import Engine

__all__ = ["APIEngine", "get_api_key", "get_base_path", "get_caller", "set_api_key", "set_base_path"]

_api_key: str | None = None
_base_path: str | None = None


def get_api_key() -> str:
    """Who the caller is: as set here, else ``SCALE_API_KEY``, else "root"."""
    return _api_key or os.environ.get("SCALE_API_KEY") or "root"


def get_caller() -> str:
    """The caller's name in records: "root", or a digest that tells keys apart and doesn't give them away."""
    return caller_of(_api_key or os.environ.get("SCALE_API_KEY"))


def set_api_key(api_key: str | None) -> None:
    """Say who the caller is, for the whole process; None is as the environment says."""
    global _api_key
    _api_key = None if api_key is None else text("api_key", api_key)


def get_base_path() -> str | None:
    """The server that calls go to: as set here, else ``LLM_ENGINE_BASE_PATH``, else None: this process."""
    return _base_path or os.environ.get("LLM_ENGINE_BASE_PATH") or None


def set_base_path(base_path: str | None) -> None:
    """Send the whole process's calls to a server, by its http or https URL; None is as the environment says."""
    global _base_path
    _base_path = None if base_path is None else http_url("base_path", base_path)


class APIEngine:
    """What ``Completion``, ``Model``, ``FineTune`` and ``File`` have in common.

    A call goes to the engine in use (``llmengine.use``), else to the process's default engine
    (``llmengine.set_default_engine``), else to the server of ``LLM_ENGINE_BASE_PATH``, else to the home
    engine, which lives in this process.
    """

    set_api_key = staticmethod(set_api_key)
    set_base_path = staticmethod(set_base_path)

    @staticmethod
    def _engine() -> Engine:
        engine = home.chosen()
        if engine is not None:
            return engine
        server = get_base_path()
        if server is not None:
            raise UnsupportedFeatureError(
                f"calls should go to the server {server}, and this version of llmengine speaks to none yet; to run "
                "in this process, unset LLM_ENGINE_BASE_PATH or call set_base_path(None)"
            )
        return home.current()

    @classmethod
    async def _aengine(cls) -> Engine:
        """The same; the running loop isn't held up while the home engine opens."""
        if home.chosen() is None and not home.is_open():
            return await asyncio.to_thread(cls._engine)
        return cls._engine()
