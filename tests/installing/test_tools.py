"""How installers are called, and what is heard of what they say."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from tests.building import UV, recipe
from tests.e2e.disks import MIB

from llmengine_core.installing import PIP, Tool, find_tool
from llmengine_core.installing.checking import Found, unmet
from llmengine_core.installing.tools import Listener

NEVER = "sys_platform == 'never'"


def test_what_uv_says_of_downloads_is_progress_in_bytes() -> None:
    news: list[tuple[str, float, float | None]] = []
    hear = Listener("motor", lambda each: news.append((each.phase, each.done, each.total)))
    for line in (
        "Resolved 3 packages in 1ms",
        "Downloading motor (2.0MiB)",
        "Downloading gears (1.5KiB)",
        " Downloaded gears",
        " Downloaded motor",
        "Prepared 3 packages in 1ms",
    ):
        hear(line)
    both = 2 * MIB + 1536
    assert news == [
        ("download", 0, None),
        ("download", 0, 2 * MIB),
        ("download", 0, both),
        ("download", 1536, both),
        ("download", both, both),
        ("install", 0, None),
    ]


def test_what_pip_says_of_downloads_is_progress_without_an_end() -> None:
    news: list[tuple[str, float, float | None]] = []
    hear = Listener("motor", lambda each: news.append((each.phase, each.done, each.total)))
    for line in (
        "Collecting motor",
        "  Downloading motor-1.0.whl (2.0 MB)",
        "  Downloading gears.whl (1 kB)",
    ):
        hear(line)
    assert news == [("download", 0, None), ("download", 2 * MIB, None)]


MIRROR = {"PIP_INDEX_URL": "https://mirror.invalid/simple"}


@pytest.mark.parametrize(
    ("given", "added"),
    [
        ({}, {}),
        (MIRROR, {"UV_DEFAULT_INDEX": MIRROR["PIP_INDEX_URL"]}),
        ({"PIP_NO_INDEX": "1"}, {}),
        ({**MIRROR, "UV_DEFAULT_INDEX": "x"}, {}),
        ({**MIRROR, "UV_INDEX_URL": "x"}, {}),
        ({"PIP_EXTRA_INDEX_URL": "a b"}, {"UV_INDEX": "a b", "UV_INDEX_STRATEGY": "unsafe-best-match"}),
        ({"PIP_EXTRA_INDEX_URL": "a", "UV_INDEX_STRATEGY": "first-index"}, {"UV_INDEX": "a"}),
        ({"PIP_FIND_LINKS": "/a https://b"}, {"UV_FIND_LINKS": "/a,https://b"}),
        ({"PIP_FIND_LINKS": "/a", "UV_FIND_LINKS": "/b"}, {}),
        ({"PIP_CERT": "/c"}, {"SSL_CERT_FILE": "/c"}),
    ],
)
def test_uv_is_told_what_pip_was_told_unless_it_was_told_something_else(
    given: dict[str, str], added: dict[str, str]
) -> None:
    assert UV.environment(given) == added


def test_a_path_of_pips_means_the_same_to_uv_wherever_it_runs() -> None:
    assert UV.environment({"PIP_FIND_LINKS": "wheels"}) == {"UV_FIND_LINKS": f"{Path.cwd()}/wheels"}


@pytest.mark.parametrize(
    ("accelerator", "environ", "asked"),
    [
        ("cpu", {}, True),
        ("cuda", {}, False),
        ("cpu", {"UV_TORCH_BACKEND": "auto"}, False),
        ("cpu", MIRROR, False),
        ("cpu", {"UV_INDEX": "x"}, False),
        ("cpu", {"PIP_FIND_LINKS": "/wheels"}, False),
        ("cpu", {"PIP_FIND_LINKS": "", "PIP_CACHE_DIR": "/c"}, True),
    ],
)
def test_pytorchs_index_is_asked_only_where_nobody_named_another_source(
    accelerator: str, environ: dict[str, str], asked: bool
) -> None:
    command = UV.install(recipe(accelerator=accelerator), Path("/folder"), environ)
    assert ("--torch-backend" in command) is asked


@pytest.mark.parametrize(("said", "asked"), [("1", True), ("True", True), ("0", False), ("", False)])
def test_uv_asks_no_index_where_pip_was_told_not_to(said: str, asked: bool) -> None:
    assert ("--no-index" in UV.install(recipe(), Path("/folder"), {"PIP_NO_INDEX": said})) is asked


def test_without_uv_it_is_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_tool() == UV
    monkeypatch.setenv("PATH", os.devnull)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert find_tool() == PIP
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert find_tool() == Tool("uv", (sys.executable, "-P", "-m", "uv"))


def test_what_is_unmet_is_told_for_what_is_there_alone() -> None:
    packages = {"motor": "1.0", "gears": "2.0rc1"}
    requires = {
        "motor": ("Gears>=2.0rc1", "gears<2", "oil; extra == 'smooth'", f"x; {NEVER}", "vision", "wheel_s")
    }
    found = Found(python_version="3.11", packages=packages, requires=requires, failed={})
    assert list(unmet(found, frozenset({"vision"}))) == [
        "motor requires gears<2, but 2.0rc1 is there",
        "motor requires wheel_s, which is not there",
    ]
