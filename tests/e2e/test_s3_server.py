"""The S3 server of the tests itself: what the other tests lean on when they believe it."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.e2e.procfs import alive, until
from tests.servers.seaweed import ADMIN, READER, TENANT, TENANTS_BUCKET, Identity, S3Server

STRANGER = Identity("AKSTRANGER", "nobody-knows-it")
LIAR = Identity(ADMIN.access_key, "not-the-secret")
ROOT = Path(__file__).parents[2]


def refused(server: S3Server, identity: Identity, call: str, **arguments: object) -> str:
    """The code of the error that the call of this identity ends with; "" where it doesn't."""
    client = server.client(identity)
    try:
        getattr(client, call)(**arguments)
    except client.exceptions.ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""


def test_it_knows_who_asks_and_what_they_may(s3_server: S3Server) -> None:
    bucket = s3_server.bucket()
    client = s3_server.client()
    client.put_object(Bucket=bucket, Key="a/b", Body=b"content")
    assert s3_server.contents(bucket) == {"a/b": 7}
    assert client.get_object(Bucket=bucket, Key="a/b")["Body"].read() == b"content"

    one = {"Bucket": bucket, "Key": "a/b"}
    assert refused(s3_server, LIAR, "get_object", **one) == "SignatureDoesNotMatch"
    assert refused(s3_server, STRANGER, "get_object", **one) == "InvalidAccessKeyId"
    assert refused(s3_server, READER, "get_object", **one) == ""
    assert refused(s3_server, READER, "put_object", **one, Body=b"") == "AccessDenied"
    assert refused(s3_server, READER, "delete_object", **one) == "AccessDenied"
    assert refused(s3_server, TENANT, "get_object", **one) == "AccessDenied"
    assert refused(s3_server, TENANT, "put_object", Bucket=TENANTS_BUCKET, Key="k", Body=b"") == ""
    for call in ("get_object", "put_object"):
        assert refused(s3_server, ADMIN, call, Bucket="there-is-none", Key="k") == "NoSuchBucket"
    assert refused(s3_server, ADMIN, "put_object", **one, IfNoneMatch="*") == "PreconditionFailed"
    assert s3_server.contents(bucket) == {"a/b": 7}


def test_a_program_that_is_kept_ends_with_whoever_started_it(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from tests.servers.kept import Kept
kept = Kept(["sleep", "1000"], Path(sys.argv[1], "log"), remove=Path(sys.argv[1]))
print(kept.pid, flush=True)
input()
"""
    folder = tmp_path / "its"
    folder.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as program:
        assert program.stdout is not None
        kept = int(program.stdout.readline())
        assert alive(kept)
        os.kill(program.pid, signal.SIGKILL)
        until(lambda: not alive(kept), 10, "what is kept ends with the program that was killed")
        until(lambda: not folder.exists(), 10, "its folder goes with it")


def test_it_hangs_where_told_and_goes_on(frail_s3_server: S3Server) -> None:
    bucket = frail_s3_server.bucket()
    frail_s3_server.client().put_object(Bucket=bucket, Key="k", Body=b"x")
    asking = http.client.HTTPConnection("127.0.0.1", frail_s3_server.port, timeout=0.2)
    frail_s3_server.pause()
    try:
        asking.request("GET", "/status")
        with pytest.raises(TimeoutError):
            asking.getresponse()
    finally:
        frail_s3_server.resume()
        asking.close()
    assert frail_s3_server.contents(bucket) == {"k": 1}
