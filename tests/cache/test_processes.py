"""Several programs that share one cache: killed, out of room, or in each other's way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import pytest
from tests.cache.sources import content_of, sha256
from tests.e2e.disks import MIB, can_mount, on_small_disk

from llmengine_core.cache import take_stock
from llmengine_core.cache.layout import Layout
from llmengine_core.records import to_json
from llmengine_core.types.plan import CheckpointFacts, CheckpointFile

FETCHER = Path(__file__).with_name("fetcher.py")
SECONDS = 60.0
GIB = 1 << 30


class Fetcher:
    """One such program."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said: list[list[Any]] = []
        self._lines: SimpleQueue[str] = SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def hear(self, seconds: float = SECONDS) -> list[Any]:
        """Its next line. Raises ``Empty`` where it says nothing."""
        line = self._lines.get(timeout=seconds)
        assert line, f"it ended after {self.said}"
        self.said.append(json.loads(line))
        return self.said[-1]

    def end(self) -> None:
        self.process.kill()
        self._reader.join()

    def hear_until(self, *kinds: str) -> list[Any]:
        """The next line of one of these kinds."""
        while self.hear()[0] not in kinds:
            pass
        return self.said[-1]

    def tell(self, line: str = "") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """End it as nothing else does."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(SECONDS)

    def saw(self) -> float:
        """How many bytes it was told of."""
        return max((line[1] for line in self.said if line[0] == "told"), default=0.0)

    def downloads(self) -> list[int]:
        return [line[2] for line in self.said if line[0] == "get"]


@dataclass
class Ground:
    """A home, and a folder that is fetched into it."""

    home: Path
    source: Path

    def put(self, name: str, content: bytes) -> None:
        self.source.mkdir(exist_ok=True)
        (self.source / name).write_bytes(content)

    def facts(self) -> str:
        files = [
            CheckpointFile(name=each.name, size=each.stat().st_size, sha256=sha256(each.read_bytes()))
            for each in sorted(self.source.iterdir())
        ]
        url = f"elsewhere://host/{self.source.name}"
        return json.dumps(to_json(CheckpointFacts(url=url, files=tuple(files))))

    @contextmanager
    def fetcher(
        self, mode: str = "free", *, size: int = GIB, wrapper: Sequence[str] = ()
    ) -> Iterator[Fetcher]:
        arguments = [str(self.home), str(self.source), self.facts(), str(size), mode]
        with subprocess.Popen(
            [*wrapper, sys.executable, str(FETCHER), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        ) as process:
            fetcher = Fetcher(process)
            try:
                yield fetcher
            finally:
                fetcher.end()


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    found = Ground(tmp_path / "home", tmp_path / "model")
    found.home.mkdir()
    return found


def listen(fetchers: Sequence[Fetcher]) -> None:
    """Hear what they say just now."""
    for each in fetchers:
        with suppress(Empty):
            each.hear(0.02)


def large(megabytes: int = 3) -> bytes:
    return bytes(range(256)) * (4096 * megabytes)


def test_of_several_programs_one_downloads_and_when_it_is_killed_the_next_goes_on(ground: Ground) -> None:
    content = large()
    ground.put("model.gguf", content)
    with ExitStack() as started:
        fetchers = [started.enter_context(ground.fetcher("stepwise")) for _ in range(3)]
        watching: list[Fetcher] = []
        while len(watching) < 2 or not any(each.downloads() for each in fetchers):
            listen(fetchers)
            watching = [each for each in fetchers if each.saw() > 0 and not each.downloads()]
        (first,) = [each for each in fetchers if each not in watching]
        first.kill()
        others = watching
        while not any(each.downloads() for each in others):  # whoever comes next
            listen(others)
        for each in others:
            each.tell()
        found = [each.hear_until("done", "failed") for each in others]
        assert found[0] == found[1] == ["done", found[0][1], sha256(content)]
        assert content_of(Path(found[0][1])) == {"model.gguf": content}
        starts = sorted(start for each in others for start in each.downloads())
        assert len(starts) == 1, "nobody downloads what is there"
        assert starts[0] >= MIB, "what was fetched is not fetched again"


@pytest.mark.parametrize("killed", [3])
def test_data_lost_by_kills_is_none(ground: Ground, killed: int) -> None:
    """Killed again and again, each time with a piece more."""
    content = large(killed + 1)
    ground.put("model.gguf", content)
    ground.put("config.json", b"{}")
    for _ in range(killed):
        with ground.fetcher("stepwise") as fetcher:
            while True:
                line = fetcher.hear()
                if line[0] == "get" and line[1] == "model.gguf":
                    break
                if line[0] == "get":
                    fetcher.tell()
            partial = ground.home / "weights" / "partial" / sha256(content)
            start = line[2]
            deadline = time.monotonic() + SECONDS
            while not partial.exists() or partial.stat().st_size <= start:
                assert time.monotonic() < deadline
            fetcher.kill()
        assert not (ground.home / "weights" / "entries").exists()
    with ground.fetcher() as fetcher:
        done = fetcher.hear_until("done", "failed")
        assert done[0] == "done"
        assert content_of(Path(done[1])) == {"model.gguf": content, "config.json": b"{}"}
        starts = {line[1]: line[2] for line in fetcher.said if line[0] == "get"}
        assert starts["model.gguf"] >= killed * MIB
        assert not list((ground.home / "weights" / "partial").iterdir())
        assert not list((ground.home / "weights" / "locks").iterdir())


@pytest.mark.parametrize("way", ["limited", *(["filled"] if can_mount() else [])])
def test_a_disk_that_fills_up_says_what_to_free_and_the_fetch_goes_on_then(ground: Ground, way: str) -> None:
    content = large(4)
    ground.put("model.gguf", content)
    wrapper = on_small_disk(ground.home, 12 * MIB) if way == "filled" else ()
    with ground.fetcher(way, wrapper=wrapper) as fetcher:
        failed = fetcher.hear_until("failed", "done")
        assert failed[:2] == ["failed", "ServerError"]
        assert "the disk is full: " in failed[2]
        assert "`llmengine cache prune --all` removes weights" in failed[2]
        assert str(ground.home / "weights") in failed[2]
        fetcher.tell("again")
        done = fetcher.hear_until("failed", "done")
        assert done == ["done", done[1], sha256(content)]
        assert fetcher.downloads()[-1] >= MIB
        root = Path(f"/proc/{fetcher.process.pid}/root") if way == "filled" else Path("/")
        if root.exists():
            assert content_of(root / done[1][1:]) == {"model.gguf": content}


def test_what_another_program_uses_is_never_removed(ground: Ground, tmp_path: Path) -> None:
    """Not for other weights either, however long it was not prepared again; and once it ends, it may go."""
    ground.put("model.gguf", large(2))
    other = Ground(ground.home, tmp_path / "other")
    other.put("model.gguf", large(3)[1:])
    size = 4 * MIB
    with ground.fetcher(size=size) as user:
        used = user.hear_until("done", "failed")
        assert used[0] == "done"
        for record in (ground.home / "weights" / "entries").glob("*/record.json"):
            os.utime(record, (0, 0))
        (item,) = take_stock(Layout(ground.home)).items
        assert item.in_use
        with other.fetcher(size=size) as newcomer:
            failed = newcomer.hear_until("done", "failed")
            assert failed[:2] == ["failed", "ServerError"]
            assert "2,097,152 are in use; raise LLMENGINE_WEIGHTS_SIZE, or end programs" in failed[2]
            assert content_of(Path(used[1])) == {"model.gguf": large(2)}
            user.kill()
            newcomer.tell("again")
            done = newcomer.hear_until("done", "failed")
            assert done[0] == "done"
            assert content_of(Path(done[1])) == {"model.gguf": large(3)[1:]}
            (item,) = take_stock(Layout(ground.home)).items
            assert (item.name, item.in_use) == ("other", True)
