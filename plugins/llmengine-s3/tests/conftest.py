"""Has the storage find the server of the tests, and lets the tests import what lies beside them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from llmengine_core.testing.profiles import PROFILE_VARIABLE

if TYPE_CHECKING:
    from tests.servers.seaweed import S3Server

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def only_server(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The shared server, as the one that this process's variables name."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture(scope="class")
def found_server(s3_server: S3Server) -> Iterator[S3Server]:
    """The same, for all tests of a class."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in s3_server.environment().items():
            patch.setenv(name, value)
        if PROFILE_VARIABLE not in os.environ:
            patch.setenv(PROFILE_VARIABLE, "smoke")
        yield s3_server
