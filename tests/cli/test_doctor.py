"""``llmengine doctor``: each fault is found, named with its mend, and hides no other."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.cli.program import Installed, Run
from tests.motor import put_environment

from llmengine_core.cli.checks import CHECKS
from llmengine_core.types.declarations import CONTRACT_VERSION
from llmengine_core.types.plan import HostFacts

Examine = Callable[[], tuple[int, dict[str, list[dict[str, Any]]]]]


@pytest.fixture
def examine(run: Run) -> Examine:
    """The exit code, and what was found by each check."""

    def examined() -> tuple[int, dict[str, list[dict[str, Any]]]]:
        done = run("doctor", "--json")
        found = json.loads(done.stdout)
        assert found["healthy"] == (done.exit_code == 0)
        findings: dict[str, list[dict[str, Any]]] = {name: [] for name in CHECKS}
        for finding in found["findings"]:
            findings.setdefault(finding["check"], []).append(finding)
        return done.exit_code, findings

    return examined


def broken(findings: list[dict[str, Any]]) -> dict[str, Any]:
    """The one finding that says that something is broken."""
    (found,) = [finding for finding in findings if finding["level"] == "broken"]
    return found


def test_a_machine_in_order_is_healthy(examine: Examine, run: Run) -> None:
    code, findings = examine()
    assert code == 0
    assert all(findings.values()), "every check says what it found"
    assert "echo" in findings["models"][0]["message"]
    text = run("doctor")
    assert text.exit_code == 0
    lasting = [each for name, found in findings.items() for each in found if name not in ("clock", "home")]
    assert all(finding["message"] in text.stdout for finding in lasting)


def test_another_distribution_with_our_package_is_found(examine: Examine, installed: Installed) -> None:
    record = "llmengine/__init__.py,sha256=abc,10\nllmengine/model.py,,\n"
    installed.add_files("scale-llm-engine", {"RECORD": record})
    code, findings = examine()
    assert code == 1
    found = broken(findings["packages"])
    assert found["message"].startswith("scale-llm-engine 1.0 installs a package 'llmengine' too")
    assert found["mend"].startswith("python -m pip uninstall scale-llm-engine")


def test_a_plugin_that_failed_is_found(examine: Examine, installed: Installed) -> None:
    installed.add("tape", "tape_plugin", f"CONTRACT = {CONTRACT_VERSION + 1}")
    code, findings = examine()
    assert code == 1
    assert "the plugin 'tape' was written for contract" in broken(findings["plugins"])["message"]
    assert broken(findings["plugins"])["mend"]


def test_a_home_that_cant_be_written_is_found(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("file").touch()
    monkeypatch.setenv("LLMENGINE_HOME", str(Path("file/home").absolute()))
    code, findings = examine()
    assert code == 1
    assert "LLMENGINE_HOME" in broken(findings["home"])["mend"]
    assert broken(findings["database"])
    assert broken(findings["storage"])
    assert findings["models"][0]["level"] == "ok", "one fault hides nothing else"


def test_a_database_that_is_none_is_found(examine: Examine, home: Path) -> None:
    home.mkdir()
    (home / "state.db").write_bytes(b"this is no database" * 1000)
    code, findings = examine()
    assert code == 1
    assert "state.db" in broken(findings["database"])["message"]


def test_a_database_of_a_newer_version_is_found(examine: Examine, home: Path) -> None:
    assert examine()[0] == 0
    with sqlite3.connect(home / "state.db") as database:
        database.execute("PRAGMA user_version = 999999")
    database.close()
    code, findings = examine()
    assert code == 1
    assert "999999" in broken(findings["database"])["message"]


def test_urls_that_nobody_serves_are_found(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMENGINE_DATABASE_URL", "oracle://db")
    monkeypatch.setenv("LLMENGINE_STORAGE_URL", "tape://reel")
    _, findings = examine()
    assert "'oracle'" in broken(findings["database"])["message"]
    assert "'tape'" in broken(findings["storage"])["message"]


def test_a_storage_that_is_only_read_and_hosts_that_are_none_are_found(
    examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMENGINE_STORAGE_URL", "https://a.example/objects?token=s3cret")
    _, findings = examine()
    found = broken(findings["storage"])
    assert "only read" in found["message"]
    assert "s3cret" not in found["message"]
    monkeypatch.delenv("LLMENGINE_STORAGE_URL")
    monkeypatch.setenv("LLMENGINE_PRIVATE_HOSTS", "http://host")
    code, findings = examine()
    assert code == 1
    assert "LLMENGINE_PRIVATE_HOSTS" in broken(findings["storage"])["message"]


def test_a_runtime_folder_that_cant_serve_is_found(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    long = Path("x" * 100).absolute()
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    _, findings = examine()
    assert "too long" in broken(findings["sockets"])["message"]


PROBED = """
from llmengine_core.hookspecs import hookimpl
from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.declarations import BackendInfo, EnvironmentSpec
from llmengine_core.types.plan import Problem

CONTRACT = 1

def probe():
    return (Problem("libgomp.so.1 is missing", "apt-get install libgomp1"),)

@hookimpl
def register_backends():
    capabilities = Capabilities(structured=frozenset({"json", "regex"}), structured_dialect="nobody's")
    return [BackendInfo(
        name="probed", factory="probed_plugin:None_", capabilities=capabilities, formats=frozenset({"gguf"}),
        probe="probed_plugin:probe", environment=EnvironmentSpec(distribution="absent", module="absent_module"),
    )]
"""


def test_what_a_backend_lacks_is_found(examine: Examine, installed: Installed) -> None:
    installed.add("probed", "probed_plugin", PROBED)
    code, findings = examine()
    assert code == 1
    found = {each["message"]: each["mend"] for each in findings["engines"] if each["level"] == "broken"}
    assert found == {
        "probed: libgomp.so.1 is missing": "apt-get install libgomp1",
        "probed: its engine absent is not installed": "python -m pip install absent",
    }


def test_an_engine_without_its_environment_is_advised_and_one_with_it_shown(
    examine: Examine, installed: Installed, home: Path
) -> None:
    installed.add("motor", "tests.motor")
    code, findings = examine()
    assert code == 0, "nobody needs every engine"
    (missing,) = [each for each in findings["engines"] if "motor" in each["message"]]
    assert (missing["level"], missing["mend"]) == ("advice", "llmengine engines install motor")
    put_environment(home, "motor-old", "1.0")
    put_environment(home, "motor-new", "2.0", "judge")
    _, findings = examine()
    messages = [each["message"] for each in findings["engines"]]
    assert "motor 2.0 (motor-new), 1.0 (motor-old)" in messages
    (bare,) = [each for each in findings["guided"] if "motor" in each["message"]]
    expected = "constraints on motor are refused in motor-old: no masker is beside the engine"
    assert (bare["level"], bare["message"], bare["mend"]) == (
        "advice",
        expected,
        "llmengine engines install motor",
    )


def test_a_checker_that_is_missing_is_advised(examine: Examine, installed: Installed) -> None:
    installed.add("probed", "probed_plugin", PROBED)
    _, findings = examine()
    (advice,) = [each for each in findings["guided"] if each["level"] == "advice"]
    assert advice["message"] == "guided_json and guided_regex on probed is refused: nothing here can check it"
    assert advice["mend"] == "python -m pip install llmengine-llguidance"


def test_a_machine_without_engines_is_told(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMENGINE_PLUGINS", "llguidance")
    code, findings = examine()
    assert code == 1
    assert broken(findings["engines"])["mend"] == "python -m pip install llmengine-llamacpp"
    assert broken(findings["models"])["mend"] == "python -m pip install llmengine-llamacpp"


def test_a_machine_that_is_too_small_is_told_why(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMENGINE_PLUGINS", "llamacpp")
    tiny = HostFacts(cpus=1, memory=50_000_000)
    monkeypatch.setattr("llmengine_core.inspection.host_facts", lambda: tiny)
    _, findings = examine()
    assert "only 47 MiB of memory" in findings["engines"][-1]["message"]
    found = broken(findings["models"])
    assert found["message"].startswith("nothing here can serve 'smollm2-135m-instruct': llama_cpp: ")
    assert found["mend"] == "llmengine explain smollm2-135m-instruct"


def test_a_disk_that_is_full_is_advised(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=3 << 20))
    code, findings = examine()
    assert code == 0
    (advice,) = findings["home"]
    assert advice["level"] == "advice"
    assert "only 3 MiB free" in advice["message"]


def test_a_clock_that_is_behind_is_found(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 0.0)
    assert "clock" in broken(examine()[1]["clock"])["message"]


def test_settings_that_are_wrong_are_found(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMENGINE_QUEUE_SIZE", "many")
    code, findings = examine()
    assert code == 1
    assert "queue_size" in broken(findings["settings"])["message"]


@pytest.mark.parametrize("check", sorted(CHECKS))
def test_a_check_that_fails_hides_no_other(
    examine: Examine, monkeypatch: pytest.MonkeyPatch, check: str
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("odd")

    monkeypatch.setitem(CHECKS, check, fail)
    code, findings = examine()
    assert code == 1
    assert broken(findings[check])["message"] == "the check itself failed: RuntimeError: odd"
    assert all(findings.values())
