"""Reads the files of a checkpoint, and refuses one that is broken or that would run code."""

from __future__ import annotations

import json
import pickle
import re
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from llmengine_core.worker.contract import Refused

__all__ = ["check_tensors", "listed", "read_json", "read_tensors"]

CALLED = re.compile(r"GLOBAL (\S+)")
"""What PyTorch's restricted reader says that a pickle wanted."""


def listed(names: Collection[str]) -> str:
    """The first few names, and how many more there are: "a, b, c and 12 more"."""
    some = sorted(names)[:3]
    return ", ".join(some) + (f" and {len(names) - len(some)} more" if len(names) > len(some) else "")


def read_json(path: Path) -> dict[str, Any]:
    """A file that holds a JSON object. Raises ``Refused``."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Refused(f"{path.parent} has no {path.name}; fetch the whole folder again") from None
    except (OSError, ValueError, RecursionError) as error:
        raise Refused(f"{path} can't be read as JSON: {error}") from None
    if not isinstance(value, dict):
        raise Refused(f"{path} holds a {type(value).__name__}, not a JSON object")
    return value


def check_tensors(path: Path) -> None:
    """Look whether a .safetensors file is there and whole; its numbers aren't read. Raises ``Refused``."""
    try:
        with safe_open(path, framework="pt"):
            pass
    except FileNotFoundError:
        raise Refused(f"{path.parent} has no {path.name}; fetch the whole folder again") from None
    except (SafetensorError, OSError) as error:
        size = path.stat().st_size if path.is_file() else 0
        raise Refused(f"{path} ({size:,} bytes) is broken or was cut off, fetch it again: {error}") from None


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors in a .safetensors file, or in one of PyTorch's that holds nothing but weights.

    A pickle is read by PyTorch's restricted reader, which calls nothing that the file names. Raises ``Refused``.
    """
    if path.suffix == ".safetensors":
        check_tensors(path)
        weights: dict[str, torch.Tensor] = load_file(path)
        return weights
    try:
        with warnings.catch_warnings(action="ignore"):  # of odd pickles, which fail below
            found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise Refused(f"{path.parent} has no {path.name}; fetch the whole folder again") from None
    except pickle.UnpicklingError as error:
        asks = CALLED.search(str(error))
        reason = f"it asks for {asks[1]} when it is read" if asks else "its pickle isn't plain"
        raise Refused(
            f"{path} holds more than weights: {reason}. Nothing of it was run; save the weights as safetensors"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise Refused(f"{path} can't be read as PyTorch weights: {error}") from None
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise Refused(f"{path} holds something else than named tensors")
    return found
