"""``llmengine cache``: what lies there, what goes, what is damaged."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from tests.cache.sources import Source
from tests.cli.program import Run

from llmengine_core.cache import WeightsCache

DAY = 86400.0


@pytest.fixture
def filled(home: Path) -> Path:
    """A home with three checkpoints, used three, two and one days ago."""

    async def fill() -> None:
        cache = WeightsCache(home, size=1 << 30)
        for number, size in enumerate((3000, 2000, 1000), start=1):
            source = Source({"model.gguf": bytes([number]) * size}, url=f"memory://cli-{number}/weights")
            weights = await source.fetch(cache, await source.facts("model.gguf"))
            then = time.time() - (4 - number) * DAY
            await asyncio.to_thread(os.utime, weights.path.parents[1] / "record.json", (then, then))
        cache.close()

    asyncio.run(fill())
    return home


def listed(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("cache", "ls", "--json").stdout)
    return found


def blobs(home: Path) -> list[int]:
    return sorted(path.stat().st_size for path in (home / "weights" / "blobs").iterdir())


def test_an_empty_cache_is_no_error_and_makes_nothing(run: Run, home: Path) -> None:
    for command in (["ls"], ["prune"], ["prune", "--all"], ["verify"]):
        assert run("cache", *command).exit_code == 0
    assert not home.exists()


def test_ls_shows_the_longest_unused_first(run: Run, filled: Path) -> None:
    found = listed(run)
    assert [each["size"] for each in found["entries"]] == [3000, 2000, 1000]
    assert (found["size"], found["unused"]) == (6000, 6000)
    assert found["limit"] == 200 << 30
    assert {each["kind"] for each in found["entries"]} == {"fetched"}
    assert found["entries"][0]["source"] == "memory://cli-1/weights/model.gguf"
    lines = run("cache", "ls").stdout.splitlines()
    assert lines[0].split() == ["NAME", "KIND", "SIZE", "LAST", "USED", "IN", "USE", "FROM"]
    assert lines[1].startswith("model.gguf  fetched  3.0 kB  ")
    assert lines[-1] == "6.0 kB of 214.7 GB; 6.0 kB not in use"


def test_prune_keeps_to_the_settings_by_itself(
    run: Run, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("cache", "prune").stdout == "freed 0 B; 6.0 kB are left\n"
    monkeypatch.setenv("LLMENGINE_WEIGHTS_SIZE", "3000")
    done = json.loads(run("cache", "prune", "--json").stdout)
    assert ([each["size"] for each in done["removed"]], done["freed"], done["size"]) == ([3000], 3000, 3000)
    assert blobs(filled) == [1000, 2000]


@pytest.mark.parametrize(
    ("options", "left"),
    [
        (["--keep", "3000"], [1000, 2000]),
        (["--keep", "2.9k"], [1000]),
        (["--keep", "0"], []),
        (["--all"], []),
        (["--older-than", "2d"], [1000]),
        (["--older-than", "71h"], [1000, 2000]),
        (["--older-than", "30d"], [1000, 2000, 3000]),
        (["--older-than", "71h", "--keep", "1000"], [1000]),
    ],
)
def test_prune_removes_what_it_is_told(run: Run, filled: Path, options: list[str], left: list[int]) -> None:
    dry = json.loads(run("cache", "prune", *options, "--dry-run", "--json").stdout)
    assert blobs(filled) == [1000, 2000, 3000]
    done = json.loads(run("cache", "prune", *options, "--json").stdout)
    assert blobs(filled) == left
    assert (done["freed"], done["size"]) == (6000 - sum(left), sum(left))
    assert dry == {**done, "dry_run": True}
    assert [each["size"] for each in listed(run)["entries"]] == sorted(left, reverse=True)


def test_what_is_in_use_stays(run: Run, filled: Path) -> None:
    cache = WeightsCache(filled, size=1 << 30)
    oldest = listed(run)["entries"][0]
    try:
        assert cache.entries.hold(oldest["key"], touch=False) is not None
        assert [each["in_use"] for each in listed(run)["entries"]] == [True, False, False]
        run("cache", "prune", "--all")
        assert blobs(filled) == [3000]
    finally:
        cache.close()
    run("cache", "prune", "--all")
    assert blobs(filled) == []


def test_what_a_former_version_left_goes(run: Run, filled: Path) -> None:
    for folder in ("fetched", "derived", "verified"):
        (filled / "weights" / folder / "0123").mkdir(parents=True)
        (filled / "weights" / folder / "0123" / "model.gguf").write_bytes(b"old")
    run("cache", "prune")
    assert sorted(path.name for path in (filled / "weights").iterdir() if path.is_dir()) == [
        *["blobs", "entries", "gone", "locks", "making", "partial", "stamps"],
    ]
    assert not list((filled / "weights" / "gone").iterdir())
    assert blobs(filled) == [1000, 2000, 3000]


def test_verify_finds_what_is_damaged_and_removes_it(run: Run, filled: Path) -> None:
    assert run("cache", "verify").exit_code == 0
    damaged = next(path for path in (filled / "weights" / "blobs").iterdir() if path.stat().st_size == 2000)
    before = damaged.stat()
    damaged.chmod(0o644)
    damaged.write_bytes(b"x" * 2000)
    os.utime(damaged, ns=(before.st_atime_ns, before.st_mtime_ns))
    result = run("cache", "verify", "--json")
    assert result.exit_code == 1
    found = {each["size"]: (each["wrong"], each["removed"]) for each in json.loads(result.stdout)["entries"]}
    assert found == {3000: ([], False), 2000: (["model.gguf"], True), 1000: ([], False)}
    assert blobs(filled) == [1000, 3000]
    assert [each["size"] for each in listed(run)["entries"]] == [3000, 1000], "looking isn't using"
    assert run("cache", "verify").exit_code == 0


def test_damage_to_what_is_in_use_is_told_and_left(run: Run, filled: Path) -> None:
    cache = WeightsCache(filled, size=1 << 30)
    try:
        entry = cache.entries.hold(listed(run)["entries"][0]["key"])
        assert entry is not None
        entry.path.resolve().unlink()
        result = run("cache", "verify")
        assert result.exit_code == 1
        assert "it is in use; mend: end the programs that use it, and verify again" in result.stdout
        assert entry.content.exists()
    finally:
        cache.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--keep", "much"], "'much' is no size; allowed are bytes, such as 50Gi, 2e9 or 0"),
        (
            ["--older-than", "yesterday"],
            "'yesterday' is no age; allowed are a number and one of s, m, h, d, w",
        ),
        (["--all", "--keep", "1Gi"], "--all leaves nothing to --keep or --older-than"),
    ],
)
def test_wrong_options_say_what_is_allowed(run: Run, home: Path, options: list[str], message: str) -> None:
    result = run("cache", "prune", *options)
    assert result.exit_code == 2
    assert message in result.stderr
