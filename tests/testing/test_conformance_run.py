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

from llmengine_core.testing.conformance import running
from llmengine_core.testing.conformance.report import Report
from llmengine_core.testing.conformance.running import Asked, judge
from llmengine_core.testing.verdicts import Verdict

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


def judged(folder: Path, source: str) -> Report:
    """The report on an author's own contracts."""
    file, work = folder / "test_own.py", folder / "work"
    file.write_text(IMPORTS + HEAD + source)
    work.mkdir()
    asked = Asked(
        plugin="llmengine_core.testing.echo",
        kinds=("observer",),
        profile="smoke",
        contracts=str(file),
        memory=MEMORY,
    )
    began = time.monotonic()
    try:
        return asyncio.run(judge(asked, work, on_begin=lambda *_: None, on_end=lambda _: None))
    finally:
        assert time.monotonic() - began < BOUND
        assert processes_of(work) == []


ENDING = {name: code for name, (code, _) in BREAKS.items() if name not in ("spins", "kills_its_group")}
HOSTILE = {
    "a_holds": "pass",
    **ENDING,
    "leaves": "import sys\nsys.exit(3)",
    "forks": "os.fork()",
    "garbles": "import json\njson.dumps = lambda *_, **__: '{}'",
    "prints": "print('hello'); os.write(2, b'by number')",
    "blocks": "time.sleep(3)  # await",
    "waits": "import asyncio\nawait asyncio.Event().wait()",
    "z_holds": "pass",
}
QUIRKS = '{"test_limps": Quirk("upstream", "https://example.org/1")}'


def around(hook: str) -> str:
    """A contract that ends the process before or after its laws."""
    source = contract(hook.partition("_")[0], {"holds": "pass"})
    return f"{source}\n    @classmethod\n    def {hook}(cls): os._exit(7)\n"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Of one run of contracts that do their worst."""
    sources = [
        contract("Hostile", HOSTILE),
        contract("Deadly", {f"law_{number}": "os._exit(7)" for number in range(9)}),
        around("setup_class"),
        around("teardown_class"),
        contract("Known", {"limps": "assert False, 'so'", "walks": "pass"}, QUIRKS),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("llmengine_core.testing.conformance.running.IN_VAIN", 5)
        return judged(tmp_path_factory.mktemp("run"), "".join(sources))


def of(report: Report, subject: str) -> dict[str, Verdict]:
    (found,) = [each for each in report.contracts if each.subject == subject]
    verdicts = {each.law.removeprefix("test_"): each for each in found.verdicts}
    assert len(verdicts) == len(found.verdicts), "one verdict on each law"
    return verdicts


def test_laws_that_break_the_process_get_verdicts_and_the_run_goes_on(report: Report) -> None:
    """Each law after one that ended the process is tried in another."""
    verdicts = of(report, "Hostile")
    assert verdicts.keys() == HOSTILE.keys()
    good = {name for name, verdict in verdicts.items() if verdict.outcome == "passed"}
    assert good == {"a_holds", "forks", "prints", "z_holds"}
    for name in ENDING:
        assert BREAKS[name][1] in verdicts[name].reason
    assert "SystemExit" in verdicts["leaves"].reason
    assert "it hung, for longer than" in verdicts["garbles"].reason
    assert "blocked the event loop" in verdicts["blocks"].reason
    assert "was not over within" in verdicts["waits"].reason
    assert {name: each.printed for name, each in verdicts.items() if each.printed} == {
        "prints": "hello\nby number"
    }
    assert not report.holds


def test_a_contract_whose_laws_all_end_the_process_is_given_up(report: Report) -> None:
    reasons = [each.reason for each in of(report, "Deadly").values()]
    assert len(reasons) == 9
    assert [("exit status 7" in each) for each in reasons] == [True] * 9
    assert [each.startswith("not tried, since the 5 laws before") for each in reasons] == [False] * 5 + [
        True
    ] * 4


def test_a_contract_whose_laws_all_wait_in_vain_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "WASTED", 1.45)  # less than three take, and more than two
    waits = {f"waits_{at}": "import asyncio\nawait asyncio.Event().wait()" for at in range(6)}
    idle = contract("Idle", {"a_holds": "pass", **waits}).replace("patience = 0.2", "patience = 0.5")
    found = of(judged(tmp_path, idle), "Idle")
    reasons = [found[name].reason for name in sorted(waits)]
    assert found["a_holds"].outcome == "passed"
    assert [each.startswith("not tried, since those before it waited") for each in reasons] == [
        False,
        False,
        False,
        True,
        True,
        True,
    ]
    assert all("was not over within 0.5 s" in each for each in reasons)


def test_a_contract_that_can_not_be_begun_or_ended_gets_a_verdict(report: Report) -> None:
    begun, ended = of(report, "setup"), of(report, "teardown")
    assert begun["holds"].reason.startswith("before it was tried, it ended the process, with exit status 7")
    assert ended["holds"].outcome == "passed"
    assert "exit status 7" in ended["closing"].reason


def test_quirks_are_shown_and_fail_nothing(report: Report) -> None:
    known = of(report, "Known")
    assert known["limps"].reason == "upstream https://example.org/1"
    assert {name: each.outcome for name, each in known.items()} == {"limps": "quirk", "walks": "passed"}


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
        time.sleep(0.01)
