"""Uploads of any size in bounded memory, and uploads that break off (L01)."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import time
from pathlib import Path

import pytest
from tests.e2e.disks import MIB
from tests.e2e.procfs import memory_peak
from tests.e2e.program import Program

from llmengine_core.services.arrivals import LEASE, TABLE
from llmengine_core.services.files import Files
from llmengine_localdisk.storage import LocalDiskStorage
from llmengine_sqlite.store import SqliteStore

SIZE = 256 * MIB
MEMORY = 48 * MIB
"""More than an upload may ever take, whatever its size."""

SOURCE = """
import hashlib, io
class Source:
    name = "made/up/as it is read.bin"
    def __init__(self, size, gone_at=None):
        self.left, self.gone_at, self.digest = size, gone_at, hashlib.sha256()
    def read(self, most):
        if self.gone_at is not None and self.left <= self.gone_at:
            raise OSError("the network is down")
        block = self.left.to_bytes(8, "big") * 8192
        piece = block[:min(most, self.left)]
        self.left -= len(piece)
        self.digest.update(piece)
        return piece
"""


def objects(home: Path) -> list[Path]:
    """Every file of the storage, whatever it is."""
    return [path for path in (home / "objects").rglob("*") if path.is_file()]


def test_l01_an_upload_of_no_bytes_and_a_large_one_take_bounded_memory(program: Program, home: Path) -> None:
    code = """
empty = File.upload(io.BytesIO())
File.upload(Source(10_000_000))
say("before")
heard()
source = Source(int(sys.argv[1]))
large = File.get(File.upload(source).id)
say(source.digest.hexdigest(), large.id, large.filename, large.size)
heard()
say(File.get(empty.id).size, File.download(empty.id).content)
"""
    with program.start(SOURCE + code, str(SIZE)) as running:
        assert running.hear() == ["before"]
        before = memory_peak(running.pid)
        running.tell()
        digest, large, filename, size = running.hear()
        assert memory_peak(running.pid) - before < MEMORY
        running.tell()
        assert running.hear() == [0, ""]
        assert (running.end(), running.stderr()) == (0, "")
    assert (filename, size) == ("as it is read.bin", SIZE)
    (stored,) = [path for path in objects(home) if path.name == large]
    with stored.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == digest


def test_l01_an_upload_that_breaks_off_leaves_nothing(program: Program, home: Path) -> None:
    code = """
try:
    File.upload(Source(50_000_000, gone_at=10_000_000))
except errors.BadRequestError as error:
    say(str(error))
say(File.list().files)
"""
    (reason,), files = program.run(SOURCE + code)
    assert "the network is down" in reason
    assert files == [[]]
    assert objects(home) == []


def test_l01_ctrl_c_ends_an_upload_and_leaves_nothing(program: Program, home: Path) -> None:
    code = """
class Slow(Source):
    def read(self, most):
        if self.left < 40_000_000:
            say("half")
            go_on.wait()
        return super().read(most)
go_on = threading.Event()
try:
    File.upload(Slow(50_000_000))
except KeyboardInterrupt:
    say("interrupted")
heard()
go_on.set()
say(File.list().files)
"""
    with program.start(SOURCE + code) as running:
        assert running.hear() == ["half"]
        assert objects(home)
        running.interrupt()
        assert running.hear() == ["interrupted"]
        running.tell()
        assert running.hear() == [[]]
        assert (running.end(), running.stderr()) == (0, "")
    assert objects(home) == []


def test_l01_what_an_upload_leaves_that_is_killed_is_swept_by_the_next(program: Program, home: Path) -> None:
    code = """
class Half(Source):
    def read(self, most):
        if self.left < 40_000_000:
            say("half")
            heard()
        return super().read(most)
File.upload(Half(50_000_000))
"""
    with program.start(SOURCE + code) as running:
        assert running.hear() == ["half"]
        os.kill(running.pid, signal.SIGKILL)
        running.end()
    assert objects(home)
    ((uploaded, files),) = program.run(
        SOURCE + "say(File.upload(Source(10)).id, [file.id for file in File.list().files])"
    )
    assert files == [uploaded]
    assert [path.name for path in objects(home)] == [uploaded]


@pytest.mark.parametrize(
    "where", ["before the content", "amid the content", "before the row", "in a deletion"]
)
def test_l01_nothing_is_left_or_lost_after_kills_and_a_sweep(
    program: Program, home: Path, where: str
) -> None:
    code = """
from llmengine_core.services.arrivals import Arrival
from llmengine_localdisk.storage import LocalDiskStorage
where = sys.argv[1]
def here(*_, **__):
    say(kept.id)
    heard()
class Killed(Source):
    def read(self, most):
        if where == "before the content" or (where == "amid the content" and self.left < 2_000_000):
            here()
        return super().read(most)
kept = File.upload(Source(10))
if where == "before the row":
    Arrival.land = here
if where == "in a deletion":
    gone = File.upload(Source(10))
    LocalDiskStorage.delete = here
    File.delete(gone.id)
File.upload(Killed(5_000_000))
"""
    with program.start(SOURCE + code, where) as running:
        (kept,) = running.hear()
        os.kill(running.pid, signal.SIGKILL)
        running.end()
    assert len(objects(home)) == (1 if where == "before the content" else 2)

    async def sweep() -> list[str]:
        store = SqliteStore(f"sqlite:///{home / 'state.db'}")
        storage = LocalDiskStorage((home / "objects").as_uri())
        files = Files(store, storage, clock=lambda: time.time() + 2 * LEASE)
        assert len(await files.sweep()) == 1
        rows = [row.key for row in await store.scan(TABLE)]
        assert [record.id for record in await files.list()] == rows
        assert b"".join([piece async for piece in files.read(kept)])
        await store.aclose()
        return rows

    assert asyncio.run(sweep()) == [kept]
    assert [path.name for path in objects(home)] == [kept]
