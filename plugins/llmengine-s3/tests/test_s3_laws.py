"""The laws of storages and plugins, on a real S3 server."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import quote, unquote, urlsplit

import pytest

from llmengine_core.testing import PluginContract, StorageContract, strategies

if TYPE_CHECKING:
    from tests.servers.seaweed import S3Server


class TestPlugin(PluginContract):
    plugin = "s3"


@pytest.fixture(scope="class")
def lawful(request: pytest.FixtureRequest, found_server: S3Server) -> None:
    """Give the class its server, and a bucket of its own there."""
    request.cls.server, request.cls.bucket = found_server, found_server.bucket()


@pytest.mark.usefixtures("lawful")
class TestS3(StorageContract):
    storage = "s3"
    late = 5.0
    key = strategies.keys().filter(lambda key: "\\" not in key)
    """SeaweedFS takes a backslash for "/"; S3 doesn't."""
    server: ClassVar[S3Server]
    bucket: ClassVar[str]

    def fresh_url(self, folder: Path) -> str:
        return f"s3://{self.bucket}/{quote('new, 100% {ours}')}/{secrets.token_hex(8)}"

    def residue(self, url: str, keys: set[str]) -> list[str]:
        folder = unquote(urlsplit(url).path)[1:] + "/"
        found = {key.removeprefix(folder) for key in self.server.contents(self.bucket, folder)}
        unfinished = [key for key in self.server.unfinished(self.bucket) if key.startswith(folder)]
        return [*(found - keys), *(f"upload of {key}" for key in unfinished)]
