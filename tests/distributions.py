"""Installs small distributions into a folder, as pip would: a module and its metadata."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

HEAD = """\
from llmengine_core.hookspecs import hookimpl
from llmengine_core.types.declarations import *
from llmengine_core.types.capabilities import Capabilities
CONTRACT = 1
"""


def install(
    site: Path, name: str, body: str, *, plugin: str | None = None, version: str = "1.0", head: str = HEAD
) -> None:
    """Install the distribution ``name`` with one module that is the plugin ``plugin`` (by default ``name``)."""
    module = name.replace("-", "_")
    (site / f"{module}.py").write_text(head + dedent(body))
    metadata = site / f"{module}-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (metadata / "entry_points.txt").write_text(f"[llmengine]\n{plugin or name} = {module}\n")


def storage(name: str, scheme: str | None = None) -> str:
    """A hook that registers one storage."""
    return f"""
    @hookimpl
    def register_storages():
        return [StorageInfo(name={name!r}, schemes=frozenset({{{scheme or name!r}}}), factory="{name}:Storage")]
    """


def run(site: Path, program: str, **environment: str) -> Any:
    """Run a program in a fresh interpreter that finds what is installed in ``site``; what it prints, as JSON."""
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", dedent(program)],
        env=os.environ | {"PYTHONPATH": path} | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
