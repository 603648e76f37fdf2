"""A folder of wheels that installers know, and a home."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.building import offline


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of wheels that installers know, and nothing else."""
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")):
            monkeypatch.delenv(name)
    for name, value in offline(tmp_path).items():
        monkeypatch.setenv(name, value)
    return tmp_path / "wheels"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "a home"
