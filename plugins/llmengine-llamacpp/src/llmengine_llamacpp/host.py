"""What this machine lacks to run llama.cpp, found without loading it."""

from __future__ import annotations

import ctypes.util
import importlib.util
import sys

from llmengine_core.types.plan import Problem

__all__ = ["problems"]


def problems() -> tuple[Problem, ...]:
    """The engine's library needs GNU OpenMP on Linux, which its package doesn't bring."""
    if sys.platform != "linux" or importlib.util.find_spec("xllamacpp") is None:
        return ()
    if ctypes.util.find_library("gomp") is not None:
        return ()
    return (
        Problem(
            "libgomp.so.1 (GNU OpenMP) is missing; llama.cpp's library can't be loaded without it",
            "apt-get install libgomp1   (Fedora: dnf install libgomp; Alpine: apk add libgomp)",
        ),
    )
