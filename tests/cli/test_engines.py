"""``llmengine engines``: environments from the wheels of a folder, with uv."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from tests.building import offline
from tests.cli.program import Installed, Program, Run, terminal
from tests.wheels import make_wheel

from llmengine_core.environments import MANIFEST

PLUGIN = """
from llmengine_core.hookspecs import hookimpl
from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.declarations import *
CONTRACT = 1

def spec(name, *builds):
    return EnvironmentSpec(distribution=name, module=name, builds=builds)

def build(name, version, **more):
    return EnvironmentBuild(version=version, requirements=(f"{name}=={version}",), **more)

@hookimpl
def register_backends():
    builds = build("motor", "2.0"), build("motor", "1.0"), build("motor", "3.0", accelerators=frozenset({"cuda"}))
    return [BackendInfo(
        name="motor", factory="nothing:Here", formats=frozenset({"gguf"}), takes_masker=True,
        capabilities=Capabilities(structured_dialect="cogs"), environment=spec("motor", *builds),
    ), BackendInfo(
        name="resident", factory="nothing:Here", formats=frozenset({"gguf"}), capabilities=Capabilities(),
        environment=spec("resident"),
    )]

@hookimpl
def register_transforms():
    return [TransformInfo(
        name="to_gears", factory="nothing:Here", source_format="gguf", target_format="gears",
        environment=spec("gears", build("gears", "2.0")),
    )]

@hookimpl
def register_quantizers():
    return [QuantizerInfo(
        name="bits", factory="nothing:Here", methods=(QuantizationMethod(name="nf4", bits=4.5),),
        backends=frozenset({"motor"}), environment=spec("bits", build("bits", "1.0")),
    ), QuantizerInfo(
        name="stiff", factory="nothing:Here", methods=(QuantizationMethod(name="awq", bits=4.5),),
        backends=frozenset({"motor"}),
        environment=spec("stiff", EnvironmentBuild(version="1.0", requirements=("stiff==1.0", "motor>=9"))),
    )]

@hookimpl
def register_guided_decoders():
    return [GuidedDecoderInfo(
        name="cogs", factory="nothing:Here", kinds=frozenset({"json"}), dialects=frozenset({"cogs"}),
        masker="nothing:Here", environment=spec("cogs", build("cogs", "1.0")),
    )]
"""


@pytest.fixture
def wheels(tmp_path: Path, home: Path, installed: Installed, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Wheels of all that the plugin's environments hold; installers know no others."""
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")):
            monkeypatch.delenv(name)
    for name, value in offline(tmp_path).items():
        monkeypatch.setenv(name, value)
    for name in ("bits", "cogs", "stiff"):
        make_wheel(tmp_path / "wheels", name)
    make_wheel(tmp_path / "wheels", "motor", "2.0")
    installed.add("motors", "motors_plugin", PLUGIN)
    monkeypatch.setenv("LLMENGINE_PLUGINS", "motors")
    return tmp_path / "wheels"


def told(done: Result) -> Any:
    assert (done.exit_code, done.stderr) == (0, ""), done.output
    return json.loads(done.stdout)


def refused(done: Result, code: int) -> str:
    assert (done.exit_code, done.stdout) == (code, "")
    assert done.stderr.startswith("Error: ")
    return done.stderr


@pytest.mark.usefixtures("wheels")
def test_an_engine_is_installed_with_its_masker_and_what_quantizes(run: Run, home: Path) -> None:
    found = told(run("engines", "install", "motor", "--quantize", "nf4", "--json"))
    assert found["built"] is True
    assert (found["engine"], found["version"], found["accelerator"]) == ("motor", "2.0", "cpu")
    assert found["distributions"] == ["bits", "cogs", "motor"]
    assert Path(found["folder"]).parent == home / "environments"

    again = told(run("engines", "install", "motor", "--quantize", "bits", "--json"))
    assert again == {**found, "built": False}
    assert (
        f"motor 2.0 (cpu) is there already: {found['folder']}"
        in run("engines", "install", "motor", "--quantize", "nf4").stdout
    )

    plain = told(run("engines", "install", "motor", "--version", "1.0", "--json"))
    assert (plain["version"], plain["distributions"]) == ("1.0", ["cogs", "motor"])
    transform = told(run("engines", "install", "to_gears", "--json"))
    assert (transform["engine"], transform["distributions"]) == ("to_gears", ["gears"])

    listed = told(run("engines", "list", "--json"))["environments"]
    built = [
        {name: value for name, value in each.items() if name != "built"} for each in (found, plain, transform)
    ]
    assert listed == built
    header, *rows = run("engines", "list").stdout.splitlines()
    assert header.split() == ["ENVIRONMENT", "ENGINE", "VERSION", "DEVICE", "PYTHON", "WITH", "STATE"]
    assert [row.split()[:4] for row in rows] == [
        [each["name"], each["engine"], each["version"], "cpu"] for each in built
    ]
    assert "bits 1.0, cogs 1.0, motor 2.0" in rows[0]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (
            ("install", "tractor"),
            3,
            "no backend or transform 'tractor' has an environment to be installed; here are",
        ),
        (("install", "resident"), 3, "here are motor, to_gears"),
        (
            ("install", "motor", "--version", "7"),
            2,
            "no build of version 7 for accelerator 'cpu', only of 2.0, 1.0",
        ),
        (("install", "motor", "--version", ""), 2, "--version is empty"),
        (
            ("install", "motor", "--quantize", "gptq"),
            2,
            "no quantizer gives motor the method 'gptq'; known are awq, nf4",
        ),
        (
            ("install", "motor", "--quantize", "awq"),
            2,
            "stiff 1.0 requires motor>=9 but motor 2.0 pins motor 2.0",
        ),
        (("install", "to_gears", "--accelerator", "cuda", "--quantize", "nf4"), 2, "to_gears is a transform"),
        (("check", "motor"), 3, "there is no environment of 'motor'"),
        (("remove", "motor"), 3, "none is here. Mend: llmengine engines install motor"),
    ],
)
@pytest.mark.usefixtures("wheels")
def test_what_cannot_be_is_refused_with_the_reason(
    run: Run, home: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    assert said in refused(run("engines", *arguments), code)
    assert not (home / "environments").exists()


@pytest.mark.usefixtures("wheels")
def test_an_installer_that_fails_is_an_error_that_quotes_it(
    run: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "empty"))
    text = refused(run("engines", "install", "motor"), 1)
    assert "no index here has what is asked for" in text
    assert "\n    error: No solution found" in text
    assert os.listdir(home / "environments") == []


@pytest.mark.usefixtures("home")
def test_there_is_nothing_to_list_or_to_check_at_first(run: Run) -> None:
    assert told(run("engines", "list", "--json")) == {"environments": []}
    assert run("engines", "list").stdout == ""
    assert told(run("engines", "check", "--json")) == {"environments": []}


@pytest.mark.usefixtures("wheels")
def test_check_tells_drift_and_what_mends_it(run: Run) -> None:
    found = told(run("engines", "install", "motor", "--quantize", "nf4", "--json"))
    folder = Path(found["folder"])
    (checked,) = told(run("engines", "check", "motor", "--json"))["environments"]
    assert (checked["faults"], checked["mend"]) == ([], None)
    assert run("engines", "check").stdout == f"ok      {found['name']}\n"

    (site,) = folder.glob("lib/*/site-packages")
    metadata = site / "bits-1.0.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("Version: 1.0", "Version: 1.1"))
    for path in (site / "cogs-1.0.dist-info").iterdir():
        path.unlink()
    (site / "cogs-1.0.dist-info").rmdir()
    (site / "motor" / "__init__.py").write_text("raise ImportError('rusty')")
    done = run("engines", "check", found["name"], "--json")
    (broken,) = json.loads(done.stdout)["environments"]
    assert done.exit_code == 1
    assert broken["faults"] == [
        "motor can't be imported: ImportError: rusty",
        "bits is 1.1, not 1.0",
        "cogs is gone, 1.0 was installed",
    ]
    mend = (
        f"llmengine engines remove {found['name']} && "
        "llmengine engines install motor --version 2.0 --accelerator cpu --quantize nf4"
    )
    assert broken["mend"] == mend
    text = run("engines", "check").stdout
    assert text.startswith(f"broken  {found['name']}\n        motor can't be imported")
    assert text.endswith(f"        mend: {mend}\n")

    (folder / MANIFEST).write_text("{}")
    done = run("engines", "check")
    assert done.exit_code == 1
    assert (
        f"is damaged: KeyError: 'engine'\n        mend: llmengine engines remove {found['name']}\n"
        in done.stdout
    )
    assert "broken: its environment.json is damaged" in run("engines", "list").stdout


@pytest.mark.usefixtures("wheels")
def test_what_is_in_use_stays_unless_forced(run: Run, home: Path) -> None:
    first = told(run("engines", "install", "motor", "--json"))
    second = told(run("engines", "install", "motor", "--version", "1.0", "--json"))
    assert told(run("engines", "remove", second["name"], "--json")) == {"removed": [second["name"]]}
    second = told(run("engines", "install", "motor", "--version", "1.0", "--json"))
    with subprocess.Popen([first["python"], "-I", "-c", "input()"], stdin=subprocess.PIPE) as process:
        text = refused(run("engines", "remove", "motor"), 2)
        assert f"{first['name']} is in use by process {process.pid} ({first['python']} -I -c input())" in text
        assert len(os.listdir(home / "environments")) == 2
        forced = run("engines", "remove", "motor", "--force")
        assert forced.stdout == f"removed {first['name']}\nremoved {second['name']}\n"
        process.communicate(b"\n")
    assert os.listdir(home / "environments") == []


@pytest.mark.usefixtures("wheels")
def test_ctrl_c_ends_a_build_and_leaves_nothing(program: Program, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    environment = {**program.environment, **os.environ, "MOTOR_GATE": str(gate)}
    environment["PYTHONPATH"] = program.environment["PYTHONPATH"]
    with terminal() as (screen, shown):
        interrupted = Program(environment, program.folder)
        with interrupted.running("engines", "install", "motor", "--version", "1.0", stderr=screen) as process:
            write = os.open(gate, os.O_WRONLY)  # returns once the import is waiting for us
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
            os.close(write)
        text = shown()
    for phase in ("venv", "resolve", "install", "check"):
        assert f"motor 1.0 (cpu): {phase}" in text
    assert "Traceback" not in text
    assert os.listdir(Path(environment["LLMENGINE_HOME"]) / "environments") == []
