"""Objects in S3 from several processes: killed ones, ones that race, and one whose disk is full."""

from __future__ import annotations

import json
import os
import signal
from contextlib import ExitStack
from itertools import product
from pathlib import Path

import pytest
from tests.e2e.disks import MIB, can_mount, on_small_disk
from tests.e2e.program import Program
from tests.e2e.small_weights import gguf
from tests.servers.proxy import Fault, fault_proxy
from tests.servers.seaweed import S3Server

UPLOAD = """
import io
class Source:
    name = "made.bin"
    left = 40
    def read(self, most):
        if self.left == 10:
            say("most of it is sent")
            heard()
        self.left -= 1
        return os.urandom(min(most, 1 << 20)) if self.left >= 0 else b""
"""


def test_l01_what_a_killed_writer_began_is_never_seen(s3_server: S3Server, home: Path) -> None:
    bucket = s3_server.bucket()
    url = f"s3://{bucket}/x"
    program = Program(home, {**s3_server.environment(), "LLMENGINE_STORAGE_URL": url})
    with program.start(UPLOAD + "File.upload(Source())") as running:
        assert running.hear() == ["most of it is sent"]
        os.kill(running.pid, signal.SIGKILL)
        running.end()
    assert s3_server.contents(bucket) == {}
    code = "say(File.upload(io.BytesIO(b'after')).id, [each.id for each in File.list().files])"
    ((uploaded, listed),) = program.run(UPLOAD + code)
    assert listed == [uploaded]
    assert s3_server.contents(bucket) == {f"x/files/{uploaded}": 5}


RACE = """
import asyncio
from llmengine_core.interfaces.storage import ObjectExists, PreconditionFailed
from llmengine_s3.storage import S3Storage
async def race():
    storage = S3Storage(sys.argv[1])
    own = sys.argv[2].encode()
    for number in range(int(sys.argv[3])):
        for size in (1, 1 << 20):
            key = f"{number}-{size}"
            for how in ("create", "swap"):
                say("ready")
                etag = json.loads(heard())
                try:
                    content = (own if how == "create" else own.upper()) * size
                    meta = await storage.put(key, content, **({"if_match": etag} if etag else {"mode": "create"}))
                except (ObjectExists, PreconditionFailed) as error:
                    say(type(error).__name__, None)
                else:
                    say("won", meta.etag)
    await storage.aclose()
asyncio.run(race())
"""
ROUNDS = 3
"""Of contents that go out in one request each: where SeaweedFS joins parts on a condition, two may win."""


def test_of_two_processes_that_write_one_key_exactly_one_wins(s3_server: S3Server, home: Path) -> None:
    bucket = s3_server.bucket()
    program = Program(home, s3_server.environment())
    client = s3_server.client()
    with ExitStack() as started:
        both = {
            name: started.enter_context(program.start(RACE, f"s3://{bucket}/x", name, str(ROUNDS)))
            for name in "ab"
        }
        for number, size in product(range(ROUNDS), (1, MIB)):
            etag = None
            for lost in ("ObjectExists", "PreconditionFailed"):
                assert [each.hear() for each in both.values()] == [["ready"]] * 2
                for each in both.values():
                    each.tell(json.dumps(etag))
                said = {name: each.hear() for name, each in both.items()}
                (winner,) = [name for name, (word, _) in said.items() if word == "won"]
                assert sorted(word for word, _ in said.values()) == sorted(["won", lost])
                etag = said[winner][1]
                body = client.get_object(Bucket=bucket, Key=f"x/{number}-{size}")["Body"].read()
                assert body == (winner if lost == "ObjectExists" else winner.upper()).encode() * size
        assert [(each.end(), each.stderr()) for each in both.values()] == [(0, "")] * 2


FETCH = """
import resource
def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
Model.create("far", MODEL, "latest", inference_framework="llama_cpp", checkpoint_path=sys.argv[1])
def served():
    try:
        say("ok", ask(model="far").output.text)
    except errors.LLMEngineError as error:
        say(error.status_code, str(error))
if sys.argv[2] == "limit":
    limit(50 << 20)
    served()
    limit(resource.RLIM_INFINITY)
else:
    home = os.environ["LLMENGINE_HOME"]
    def room():
        return os.statvfs(home).f_bavail * os.statvfs(home).f_frsize
    before = room()
    def fill():
        while before - room() < 10 << 20:  # some of the weights are there
            time.sleep(0.01)
        with open(f"{home}/filler", "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 20))
            except OSError:
                pass
    filling = threading.Thread(target=fill)
    filling.start()
    served()
    filling.join()
    os.unlink(f"{home}/filler")
served()
"""


@pytest.mark.engine
@pytest.mark.parametrize("way", ["disk" if can_mount() else "limit"])
def test_m04_a_disk_that_fills_while_weights_come_is_named_and_room_mends_it(
    s3_server: S3Server, home: Path, way: str
) -> None:
    bucket = s3_server.bucket()
    s3_server.client().upload_file(str(gguf()), bucket, "small/weights.gguf")
    home.mkdir()
    wrapper = on_small_disk(home, 120 * MIB) if way == "disk" else ()
    with fault_proxy(s3_server.endpoint) as proxy:
        proxy.plan = lambda _: Fault(rate=60 * MIB)
        elsewhere = {"LLMENGINE_DATABASE_URL": f"sqlite:///{home.parent}/state.db"}
        program = Program(home, s3_server.environment(endpoint=proxy.url) | elsewhere)
        (status, why), *then = program.run(FETCH, f"s3://{bucket}/small", way, wrapper=wrapper)
        assert status == 500
        assert "the disk is full" in why
        assert "llmengine cache prune" in why
        assert then == [["ok", " Paris.\n"]]
        fetched = sum(each.received for each in proxy.asked if each.method == "GET")
        assert fetched < 1.5 * gguf().stat().st_size  # what was there wasn't fetched again
