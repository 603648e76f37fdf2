"""What of this machine stands in the way of torch, found without loading it."""

from __future__ import annotations

import importlib.util
import platform
import sys

from llmengine_core.types.plan import Problem

__all__ = ["problems"]

GLIBC = (2, 28)
MACOS = (14, 0)


def problems() -> tuple[Problem, ...]:
    """torch comes as binaries for glibc 2.28 and macOS 14 on Apple silicon, or newer; nothing else can be installed."""
    if importlib.util.find_spec("torch") is not None:
        return ()  # somebody has found a way
    if sys.platform == "linux":
        library, version = platform.libc_ver()
        if library != "glibc" or _numbers(version) < GLIBC:
            return (
                Problem(
                    f"torch needs glibc 2.28 or newer; this system has {library or 'none'} {version}".rstrip()
                ),
            )
    if sys.platform == "darwin":
        machine, version = platform.machine(), platform.mac_ver()[0]
        if machine != "arm64" or _numbers(version) < MACOS:
            return (
                Problem(
                    f"torch needs macOS 14 or newer on Apple silicon; this is macOS {version} on {machine}"
                ),
            )
    return ()


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
