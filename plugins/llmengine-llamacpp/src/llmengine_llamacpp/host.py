"""What this machine lacks to run llama.cpp, found without loading it."""

from __future__ import annotations

import ctypes
import importlib.util
import sys

from llmengine_core.types.plan import Problem

__all__ = ["problems"]

OPENMP = "libgomp.so.1"


def problems() -> tuple[Problem, ...]:
    """On Linux the engine's library needs GNU OpenMP, which its package doesn't bring."""
    if sys.platform != "linux" or importlib.util.find_spec("xllamacpp") is None:
        return ()
    try:
        ctypes.CDLL(OPENMP)
    except OSError as error:
        return (
            Problem(
                f"llama.cpp needs GNU OpenMP, which can't be loaded: {error}",
                "apt-get install libgomp1   (Fedora: dnf install libgomp)",
            ),
        )
    return ()
