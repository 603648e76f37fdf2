"""All objects of an engine in a bucket of a real S3 server: the File API, and weights that are served from there."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.e2e.program import Program
from tests.e2e.small_weights import gguf
from tests.servers.proxy import fault_proxy
from tests.servers.seaweed import S3Server

from llmengine_core.cli.root import CommandLine, cli

MIB = 1 << 20
PREFIX = "engines/one"


@pytest.fixture
def bucket(s3_server: S3Server) -> str:
    """A bucket that also holds what isn't the engine's, beside its prefix and under names that begin like it."""
    bucket = s3_server.bucket()
    for key in STRANGERS:
        s3_server.client().put_object(Bucket=bucket, Key=key, Body=b"a stranger's")
    return bucket


STRANGERS = (
    "engines/one-and-a-half/files/file-0",
    "engines/one",
    "files/file-0",
    "engines/zero/files/file-0",
)


@pytest.fixture
def far(s3_server: S3Server, bucket: str, home: Path) -> Program:
    """Programs whose objects lie in the bucket."""
    return Program(home, {**s3_server.environment(), "LLMENGINE_STORAGE_URL": f"s3://{bucket}/{PREFIX}"})


def mine(server: S3Server, bucket: str) -> dict[str, int]:
    """The keys and sizes under the prefix; the strangers' objects are as they were."""
    contents = server.contents(bucket)
    assert all(contents.pop(key) == 12 for key in STRANGERS)
    assert all(key.startswith(f"{PREFIX}/") for key in contents)
    return {key.removeprefix(f"{PREFIX}/"): size for key, size in contents.items()}


LIFE = """
import hashlib, io
def upload(content):
    return File.upload(io.BytesIO(content)).id
large = bytes(range(256)) * 100_000
ids = [upload(b""), upload("grüße\\n".encode()), upload(bytes([255, 0])), upload(large)]
say(*ids)
say(*[File.get(each).size for each in ids])
say(*[File.download(each).content for each in ids[:3]])
import base64
say(base64.b64decode(File.download(ids[3]).content) == large)
say(*[each.id for each in File.list().files])
heard()
say(File.delete(ids[0]).deleted, File.delete(ids[3]).deleted)
say(*[each.id for each in File.list().files])
try:
    File.download(ids[0])
except errors.NotFoundError as error:
    say(str(error))
"""


def test_l01_all_files_lie_under_the_prefix_and_nowhere_else(
    s3_server: S3Server, bucket: str, far: Program, home: Path
) -> None:
    with far.start(LIFE) as running:
        ids = running.hear()
        sizes = [0, 8, 2, 25_600_000]
        assert running.hear() == sizes
        assert running.hear() == ["", "grüße\n", "/wA="]
        assert running.hear() == [True]
        assert sorted(running.hear()) == sorted(ids)
        assert mine(s3_server, bucket) == {
            f"files/{each}": size for each, size in zip(ids, sizes, strict=True)
        }
        large = s3_server.client().get_object(Bucket=bucket, Key=f"{PREFIX}/files/{ids[3]}")["Body"].read()
        assert large == bytes(range(256)) * 100_000
        running.tell()
        assert running.hear() == [True, True]
        assert running.hear() == ids[1:3]
        assert repr(ids[0]) in running.hear()[0]
        assert (running.end(), running.stderr()) == (0, "")
    assert mine(s3_server, bucket) == {f"files/{ids[1]}": 8, f"files/{ids[2]}": 2}
    assert s3_server.unfinished(bucket) == []
    assert not (home / "objects").exists()


def test_l01_what_another_client_writes_is_read(s3_server: S3Server, bucket: str, far: Program) -> None:
    code = """
import io
uploaded = File.upload(io.BytesIO(b"ours")).id
say(uploaded)
heard()
say(File.download(uploaded).content)
heard()
try:
    File.download(uploaded)
except errors.ServerError as error:
    say(str(error))
"""
    with far.start(code) as running:
        (uploaded,) = running.hear()
        theirs = {"Bucket": bucket, "Key": f"{PREFIX}/files/{uploaded}"}
        s3_server.client().put_object(**theirs, Body=b"theirs")
        running.tell()
        assert running.hear() == ["theirs"]
        s3_server.client().delete_object(**theirs)
        running.tell()
        (reason,) = running.hear()
        assert f"the content of {uploaded!r} is gone from the storage" in reason
        assert (running.end(), running.stderr()) == (0, "")


SHARED = """
import io
mine = [File.upload(io.BytesIO(f"{sys.argv[1]} {number}".encode())).id for number in range(10)]
say(*mine)
others = json.loads(heard())
say(*sorted(File.download(each).content for each in others))
say(*sorted(each.id for each in File.list().files))
heard()
for each in others[:5]:
    File.delete(each)
say(*mine[5:])
"""


def test_l01_engines_of_two_machines_share_it(
    s3_server: S3Server, bucket: str, far: Program, tmp_path: Path
) -> None:
    more = {**far.more, "LLMENGINE_DATABASE_URL": f"sqlite:///{tmp_path}/shared.db"}
    with ExitStack() as started:
        both = [
            started.enter_context(Program(tmp_path / name / "home", more).start(SHARED, name))
            for name in "ab"
        ]
        uploaded = [each.hear() for each in both]
        for each, others in zip(both, reversed(uploaded), strict=True):
            each.tell(json.dumps(others))
        for each, name in zip(both, "ba", strict=True):
            assert each.hear() == [f"{name} {number}" for number in range(10)]
            assert each.hear() == sorted(uploaded[0] + uploaded[1])
        for each in both:
            each.tell()
        left = [key for each in both for key in each.hear()]
        assert [(each.end(), each.stderr()) for each in both] == [(0, "")] * 2
    assert sorted(mine(s3_server, bucket)) == sorted(f"files/{each}" for each in left)


@pytest.fixture
def command(far: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`llmengine` with these arguments, in this process; in a folder of its own."""
    for name in list(os.environ):
        if name.startswith(("LLMENGINE_", "AWS_")):
            monkeypatch.delenv(name)
    for name, value in {**far.more, "LLMENGINE_HOME": str(far.home)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Result:
        fresh = CommandLine(name=cli.name, params=cli.params, callback=cli.callback, epilog=cli.epilog)
        return CliRunner().invoke(fresh, arguments)

    return run


def test_l01_the_commands_keep_files_there(
    s3_server: S3Server, bucket: str, command: Callable[..., Result]
) -> None:
    content = os.urandom(10 * MIB)
    Path("data.bin").write_bytes(content)
    done = command("files", "upload", "data.bin")
    assert (done.exit_code, done.stderr) == (0, "")
    uploaded = done.stdout.strip()
    assert mine(s3_server, bucket) == {f"files/{uploaded}": len(content)}
    assert uploaded in command("files", "list").stdout
    assert json.loads(command("files", "show", uploaded, "--json").stdout)["size"] == len(content)
    assert command("files", "download", uploaded, "-o", "copy").exit_code == 0
    assert Path("copy").read_bytes() == content
    assert command("files", "delete", uploaded).exit_code == 0
    assert mine(s3_server, bucket) == {}


def test_the_doctor_looks_into_the_bucket(
    s3_server: S3Server, bucket: str, command: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def storage() -> tuple[str, str]:
        findings = json.loads(command("doctor", "--json").stdout)["findings"]
        (found,) = [each for each in findings if each["check"] == "storage"]
        return found["level"], found["message"]

    url = f"s3://{bucket}/{PREFIX}"
    assert storage() == ("ok", url)
    assert mine(s3_server, bucket) == {}
    monkeypatch.setenv("LLMENGINE_STORAGE_URL", "s3://there-is-no-such-one/x")
    level, message = storage()
    assert level == "broken"
    assert "there is no such bucket" in message


SERVED = """
Model.create("far", MODEL, "latest", inference_framework="llama_cpp", checkpoint_path=sys.argv[1])
say(ask(model="far").output.text)
"""


@pytest.mark.engine
def test_m04_weights_in_a_bucket_are_served_and_are_fetched_once(
    s3_server: S3Server, tmp_path: Path, home: Path
) -> None:
    bucket = s3_server.bucket()
    s3_server.client().upload_file(str(gguf()), bucket, "models/small/weights.gguf")
    with fault_proxy(s3_server.endpoint) as proxy:
        program = Program(home, s3_server.environment(endpoint=proxy.url))
        checkpoint = f"s3://{bucket}/models/small"
        assert program.run(SERVED, checkpoint) == [[" Paris.\n"]]
        fetched = sum(each.received for each in proxy.asked if each.method == "GET")
        size = gguf().stat().st_size
        assert size <= fetched < 1.2 * size

        proxy.reset()
        assert program.run('say(ask(model="far").output.text)') == [[" Paris.\n"]]
        assert sum(each.received for each in proxy.asked if "weights.gguf" in each.target) == 0
    assert s3_server.contents(bucket) == {"models/small/weights.gguf": size}
    with gguf().open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    copies = [path for path in home.rglob("*") if path.is_file() and path.stat().st_size == size]
    (copy,) = {path.resolve() for path in copies}
    assert hashlib.sha256(copy.read_bytes()).hexdigest() == digest
