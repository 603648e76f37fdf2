"""Files and models' files in a bucket of a real S3 server: crashes leave nothing there, URLs give what they name."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from tests.checkpoint_files import small_gguf
from tests.e2e.program import Program
from tests.servers.seaweed import S3Server
from tests.services.mortal import Crash, Life, MortalStorage, MortalStore
from tests.services.test_file_crashes import CONTENT, later, upload

from llmengine_core.services.arrivals import LEASE, TABLE
from llmengine_core.services.files import Files
from llmengine_core.testing.memory_store import MemoryStore
from llmengine_s3.storage import S3Storage
from llmengine_sqlite.store import SqliteStore

SOURCE = """
class Endless:
    name = "endless"
    def __init__(self, pieces):
        self.left = pieces
    def read(self, most):
        if not self.left:
            return b""
        self.left -= 1
        if self.left == 3 and where == "amid the content":
            here()
        return b"x" * most
"""


@pytest.fixture
def near(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The server, which this process's environment leads to."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    return s3_server


async def test_l01_after_crashes_at_every_step_a_sweep_leaves_objects_and_rows_alike(near: S3Server) -> None:
    bucket = await asyncio.to_thread(near.bucket)
    storage, store = S3Storage(f"s3://{bucket}/one"), MemoryStore(f"memory://{bucket}")
    kept = await upload(Files(store, storage))
    for last in itertools.count(1):
        life = Life(last)
        with suppress(Crash):
            await upload(Files(MortalStore(store, life), MortalStorage(storage, life)), life)
        if not life.reached:
            break
    assert last > 10
    files = Files(store, storage, clock=later)
    assert len(await files.sweep()) >= 5
    rows = [row.key for row in await store.scan(TABLE)]
    assert kept in rows
    contents = await asyncio.to_thread(near.contents, bucket)
    assert sorted(contents) == sorted(f"one/files/{key}" for key in rows)
    assert set(contents.values()) == {len(CONTENT)}
    assert await asyncio.to_thread(near.unfinished, bucket) == []
    await storage.aclose()


@pytest.mark.parametrize("where", ["amid the content", "before the row"])
def test_l01_what_a_killed_upload_leaves_in_a_bucket_is_swept(near: S3Server, home: Path, where: str) -> None:
    bucket = near.bucket()
    program = Program(home, {**near.environment(), "LLMENGINE_STORAGE_URL": f"s3://{bucket}"})
    code = """
import io
from llmengine_core.services.arrivals import Arrival
def here(*_):
    say(kept)
    heard()
where = sys.argv[1]
kept = File.upload(io.BytesIO(b"kept")).id
if where == "before the row":
    Arrival.land = here
File.upload(Endless(10))
"""
    with program.start(SOURCE + code, where) as running:
        (kept,) = running.hear()
        os.kill(running.pid, signal.SIGKILL)
        running.end()

    async def sweep() -> list[str]:
        store, storage = SqliteStore(f"sqlite:///{home / 'state.db'}"), S3Storage(f"s3://{bucket}")
        files = Files(store, storage, clock=lambda: time.time() + 2 * LEASE)
        assert len(await files.sweep()) == 1
        rows = [row.key for row in await store.scan(TABLE)]
        await storage.aclose()
        await store.aclose()
        return rows

    assert len(near.contents(bucket)) == (1 if where == "amid the content" else 2)
    assert asyncio.run(sweep()) == [kept]
    assert near.contents(bucket) == {f"files/{kept}": 4}


def test_m12_files_in_a_bucket_have_urls_that_anybody_can_fetch(near: S3Server, home: Path) -> None:
    bucket = near.bucket()
    content = {"model.gguf": small_gguf(), "notes/read me.txt": b"100 %"}
    for name, body in content.items():
        near.client().put_object(Bucket=bucket, Key=f"tuned/mine/{name}", Body=body)
    program = Program(home, {**near.environment(), "LLMENGINE_STORAGE_URL": f"s3://{bucket}"})
    code = """
Model.create("mine", "mine", "latest", inference_framework="auto", checkpoint_path=sys.argv[1])
say(Model.download("mine").urls)
"""
    (((urls,)),) = program.run(code, f"s3://{bucket}/tuned/mine")
    assert urls.keys() == content.keys()
    for name, url in urls.items():
        with urlopen(url) as answer:
            assert answer.read() == content[name]
        assert "xpires=3600" in url
        with pytest.raises(HTTPError):
            urlopen(url.partition("?")[0])
