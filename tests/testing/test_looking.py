"""The look at a plugin in an interpreter of its own: it comes back whatever the plugin does."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from tests.testing.hostile import BREAKS, IMPORTS, MEMORY, processes_of

from llmengine_core.testing.conformance.seen import Seen, look

GOOD = """
from llmengine_core.hookspecs import hookimpl
CONTRACT = 1

@hookimpl
def register_storages():
    return []
"""
BOUND = 20.0
"""Seconds; on a busy machine."""


def looked(tmp_path: Path, source: str, *, seconds: float = 10.0) -> Seen:
    site, work = tmp_path / "site", tmp_path / "work"
    site.mkdir()
    work.mkdir()
    (site / "hostile_plugin.py").write_text(IMPORTS + source)
    began = time.monotonic()
    seen = asyncio.run(look("hostile_plugin", work, first=[str(site)], seconds=seconds, memory=MEMORY))
    assert time.monotonic() - began < BOUND
    assert processes_of(work) == []
    return seen


@pytest.mark.parametrize("name", BREAKS)
def test_a_module_that_breaks_the_process_gets_a_reason(tmp_path: Path, name: str) -> None:
    code, reason = BREAKS[name]
    seen = looked(tmp_path, code, seconds=0.5 if name in ("hangs", "spins") else 10.0)
    assert seen.begun == "importing its module"
    assert seen.ended is not None
    assert reason in seen.ended
    with pytest.raises(AssertionError, match="importing its module ended the process"):
        seen.one("import")
    if name in ("hangs", "spins"):
        assert "hostile_plugin.py" in seen.ended, "where it stood is told"


def test_a_module_that_exits_is_told_as_one_that_fails(tmp_path: Path) -> None:
    seen = looked(tmp_path, "raise SystemExit('no card')")
    with pytest.raises(AssertionError, match="importing its module failed: SystemExit: no card"):
        seen.one("declared")


def test_what_a_module_forks_ends_with_the_look(tmp_path: Path) -> None:
    fork = "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0: threading.Event().wait()\n    os._exit(0)\n"
    step = looked(tmp_path, fork + GOOD).one("import")
    assert any(kind == "process" for kind, _ in step.effects)


def test_a_copy_that_goes_on_tells_nothing(tmp_path: Path) -> None:
    seen = looked(tmp_path, "os.fork()\n" + GOOD)
    assert len(seen.all("import")) == 1


def test_a_thread_that_spins_ends_with_the_look(tmp_path: Path) -> None:
    spin = "def spin():\n    while True: pass\nthreading.Thread(target=spin).start()\n"
    seen = looked(tmp_path, spin + GOOD)
    seen.whole()
    assert ("thread", True) in {
        (kind, "hostile_plugin.py" in what) for kind, what in seen.one("import").effects
    }


def test_what_is_printed_is_no_news(tmp_path: Path) -> None:
    lie = "print('{\"step\": \"import\"}'); os.write(2, b'by number\\n')\n"
    seen = looked(tmp_path, lie + GOOD)
    seen.whole()
    assert seen.one("import").printed == '{"step": "import"}\nby number\n'


def test_a_module_that_prints_without_end_is_ended(tmp_path: Path) -> None:
    seen = looked(tmp_path, "while True: os.write(1, b'x' * (1 << 20))")
    assert seen.ended == "it printed more than 64 MiB"


def test_a_name_that_nothing_has_is_told_with_those_that_there_are(tmp_path: Path) -> None:
    seen = asyncio.run(look("no_such_plugin", tmp_path, seconds=10.0))
    with pytest.raises(AssertionError, match=r"there is no plugin 'no_such_plugin'.*localdisk"):
        seen.one("import")
