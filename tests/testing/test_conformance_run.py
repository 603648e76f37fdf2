"""A run without pytest: a verdict on each law whatever the laws do, and nothing left of it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.testing.hostile import BREAKS, IMPORTS, MEMORY, processes_of

from llmengine_core.testing.conformance.report import Report
from llmengine_core.testing.conformance.running import Asked, NothingAsked, judge

HEAD = """
from llmengine_core.testing import Contract, Quirk, law
"""
CONTRACT = """

class Test{name}(Contract):
    kind = "observer"
    subject = "{name}"
    patience = 0.2
    quirks = {quirks}
"""
LAW = '''
    @law()
    {start}def test_{name}(self):
        """It {name}."""
        {body}
'''
BOUND = 60.0
"""Seconds; on a busy machine."""


def contract(name: str, laws: dict[str, str], quirks: str = "{}") -> str:
    """The source of a contract; the body of a law that awaits is one of an asynchronous function."""
    text = CONTRACT.format(name=name, quirks=quirks)
    for each, body in laws.items():
        start = "async " if "await" in body else ""
        text += LAW.format(name=each, start=start, body=body.replace("\n", "\n        "))
    return text


def judged(tmp_path: Path, source: str, **asked: object) -> Report:
    """The report on an author's own contracts."""
    file, work = tmp_path / "test_own.py", tmp_path / "work"
    file.write_text(IMPORTS + HEAD + source)
    work.mkdir()
    given = Asked(
        plugin="llmengine_core.testing.echo",
        kinds=("observer",),
        profile="smoke",
        contracts=str(file),
        memory=MEMORY,
        **asked,  # type: ignore[arg-type]
    )
    began = time.monotonic()
    try:
        return asyncio.run(judge(given, work, on_begin=lambda *_: None, on_end=lambda _: None))
    finally:
        assert time.monotonic() - began < BOUND
        assert processes_of(work) == []


def test_laws_that_break_the_process_get_verdicts_and_the_run_goes_on(tmp_path: Path) -> None:
    """All in one run: each law after one that ended the process is tried in another."""
    breaks = {name: code for name, (code, _) in BREAKS.items() if name not in ("spins", "kills_its_group")}
    laws = {
        "a_holds": "pass",
        **breaks,
        "leaves": "import sys\nsys.exit(3)",
        "forks": "os.fork()",
        "prints": "print('hello'); os.write(2, b'by number')",
        "blocks": "time.sleep(3)  # await",
        "waits": "import asyncio\nawait asyncio.Event().wait()",
        "z_holds": "pass",
    }
    report = judged(tmp_path, contract("Hostile", laws))
    (found,) = report.contracts
    verdicts = {each.law.removeprefix("test_"): each for each in found.verdicts}
    assert len(verdicts) == len(found.verdicts) == len(laws), "one verdict on each law"
    good = {name for name, verdict in verdicts.items() if verdict.outcome == "passed"}
    assert good == {"a_holds", "forks", "prints", "z_holds"}
    for name in breaks:
        assert BREAKS[name][1] in verdicts[name].reason
    assert "SystemExit" in verdicts["leaves"].reason
    assert "blocked the event loop" in verdicts["blocks"].reason
    assert "was not over within" in verdicts["waits"].reason
    assert found.printed == {"test_prints": "by number"}
    assert not report.holds


def test_a_contract_whose_laws_all_end_the_process_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmengine_core.testing.conformance.running.IN_VAIN", 2)
    laws = {f"law_{number}": "os._exit(7)" for number in range(9)}
    (found,) = judged(tmp_path, contract("Deadly", laws)).contracts
    assert [each.outcome for each in found.verdicts] == ["failed"] * 9
    assert "exit status 7" in found.verdicts[0].reason
    assert found.verdicts[8].reason.startswith("not tried, since the 2 laws before")


@pytest.mark.parametrize(("where", "law"), [("setup_class", "loading"), ("teardown_class", "closing")])
def test_a_contract_that_breaks_around_its_laws_gets_a_verdict(tmp_path: Path, where: str, law: str) -> None:
    hook = f"\n    @classmethod\n    def {where}(cls): os._exit(7)\n"
    (found,) = judged(tmp_path, contract("Odd", {"holds": "pass"}) + hook).contracts
    reasons = {each.law: each.reason for each in found.verdicts if each.outcome == "failed"}
    assert len(reasons) == 1
    assert "exit status 7" in next(iter(reasons.values()))
    assert law in (*reasons, "loading")


def test_quirks_are_shown_and_fail_nothing(tmp_path: Path) -> None:
    quirks = '{"test_limps": Quirk("upstream", "https://example.org/1")}'
    source = contract("Known", {"limps": "assert False, 'so'", "walks": "pass"}, quirks)
    report = judged(tmp_path, source)
    assert report.holds
    assert report.summary == {"passed": 1, "failed": 0, "quirk": 1, "not applicable": 0}
    assert report.contracts[0].verdicts[0].reason == "upstream https://example.org/1"


def test_only_the_laws_that_are_asked_for_are_tried(tmp_path: Path) -> None:
    source = contract("One", {"holds": "pass", "other": "assert False, 'no'"}) + contract(
        "Two", {"third": "pass"}
    )
    report = judged(tmp_path, source, laws=("test_holds",))
    assert [(each.subject, [verdict.law for verdict in each.verdicts]) for each in report.contracts] == [
        ("One", ["test_holds"])
    ]


def test_a_law_that_there_is_not_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        NothingAsked, match="no contract here has the law 'test_hold'; did you mean test_holds"
    ):
        judged(tmp_path, contract("One", {"holds": "pass"}), laws=("test_hold",))


def test_a_file_that_breaks_as_it_is_imported_is_told(tmp_path: Path) -> None:
    report = judged(tmp_path, "os._exit(5)")
    assert not report.holds
    assert "exit status 5" in report.contracts[-1].verdicts[0].reason


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    began = tmp_path / "began"
    source = contract("Long", {"waits": f"open({str(began)!r}, 'w').close(); time.sleep(600)"})
    file = tmp_path / "test_own.py"
    file.write_text(IMPORTS + HEAD + source)
    command = ["conformance", "llmengine_core.testing.echo", "--kind", "observer", "--contracts", str(file)]
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    with subprocess.Popen(
        [sys.executable, "-m", "llmengine_core.cli", *command],
        env=os.environ | {"TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        wait_for(began.exists)
        (work,) = temporary.iterdir()
        assert processes_of(work)
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    wait_for(lambda: not processes_of(work))
    if number == signal.SIGINT:
        assert (process.returncode, said) == (130, b"")
        assert not work.exists()


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + BOUND
    while not condition():
        assert time.monotonic() < end
        os.sched_yield()
