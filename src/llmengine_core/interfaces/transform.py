"""Offline work on checkpoints: conversion and quantization."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from llmengine_core.types.progress import OnProgress

__all__ = ["Transform"]


class Transform(ABC):
    """Turns one checkpoint into another."""

    @abstractmethod
    async def run(
        self, source: Path, target: Path, *, method: str | None, on_progress: OnProgress, python: str = ""
    ) -> None:
        """Write ``target`` (which does not exist, in a folder that does) from ``source`` (never changed).

        ``python`` is the interpreter of the environment that ``TransformInfo.environment`` asked for, absolute;
        "" is the one that runs us.

        ``source`` and ``target`` are files or folders as the format has it. Equal input gives equal bytes.
        Work that blocks runs in a child or a thread, not on the loop; cancelling stops it. What breaks off
        may leave a part of ``target`` behind: the caller throws it away. Raises ``BadRequestError`` for a
        checkpoint that can't be worked on, with the reason.
        """
