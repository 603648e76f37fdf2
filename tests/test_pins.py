"""The committed pins hold every version of the environment, and no address."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
UV_SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]
PINS: list[str] = UV_SETTINGS["constraint-dependencies"]


def resolved() -> set[str]:
    """What uv resolved for the whole workspace, its own members left out."""
    lock = ROOT / "uv.lock"
    if not lock.exists():
        pytest.fail("uv.lock is missing, so the pins can't be compared with it; mend: uv lock")
    packages = tomllib.loads(lock.read_text())["package"]
    return {f"{each['name']}=={each['version']}" for each in packages if "registry" in each["source"]}


def test_pins_are_exactly_what_uv_resolves() -> None:
    assert set(PINS) == resolved(), "mend: uv run nox -s pin"


def test_a_pin_is_a_name_and_a_version() -> None:
    shape = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*==[0-9][0-9a-z.]*")
    pins = PINS + UV_SETTINGS["build-constraint-dependencies"]
    assert not [pin for pin in pins if not shape.fullmatch(pin)], "no address, marker or range"


def test_no_engine_stack_comes_along() -> None:
    heavy = re.compile(r"(torch|transformers|vllm|llama-cpp-python|nvidia-.*|openai|triton)==")
    assert not [pin for pin in PINS if heavy.match(pin)]


def test_no_configured_index() -> None:
    assert not {"index", "index-url", "extra-index-url", "find-links", "pip"} & UV_SETTINGS.keys()
