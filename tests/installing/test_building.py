"""Environments are built whole or not at all: real installers, real wheels, real faults."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.building import UV, building, gate, left, recipe
from tests.e2e.disks import MIB, can_mount, on_small_disk
from tests.wheels import make_wheel

from llmengine_core.environments import MANIFEST, environments_folder, find
from llmengine_core.errors import ServerError
from llmengine_core.installing import PIP, Tool, build, look_inside
from llmengine_core.types.declarations import EnvironmentSpec
from llmengine_core.types.progress import Progress

NEVER = "sys_platform == 'never'"
TOOLS = [pytest.param(UV, id="uv"), pytest.param(PIP, id="pip")]
SECONDS = 30


def ran(*command: object) -> str:
    """What a program prints."""
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# -- what is built


@pytest.mark.parametrize("tool", TOOLS)
async def test_what_is_built_works_where_it_was_moved_to_and_is_found(
    home: Path, wheels: Path, tool: Tool
) -> None:
    news: list[Progress] = []
    wanted = recipe()
    found = await build(home, wanted, on_progress=news.append, tool=tool)
    assert (found.folder, found.problem) == (environments_folder(home) / wanted.name, None)
    assert left(home) == [wanted.name]
    assert found.manifest is not None
    assert {"motor", "gears"} <= found.manifest.packages.keys()
    assert (found.manifest.packages["gears"], found.manifest.digest) == ("1.0", wanted.digest)

    assert ran(found.python, "-I", "-c", "import motor; print(motor.__file__)").startswith(str(found.folder))
    assert ran(found.folder / "bin" / "motor-turn") == f"{found.folder} gears"
    assert not [path for path in (found.folder / "bin").iterdir() if b"/.motor" in path.read_bytes()]

    spec = EnvironmentSpec(distribution="motor", module="motor")
    (facts,) = (await asyncio.to_thread(find, home, [spec]))[spec]
    assert (facts.python, facts.version, facts.name) == (str(found.python), "1.0", wanted.name)

    phases = list(dict.fromkeys(each.phase for each in news))
    assert [each for each in phases if each != "download"] == ["wait", "venv", "resolve", "install", "check"]
    assert {each.subject for each in news} == {"motor 1.0 (cpu)"}

    news.clear()
    assert await build(home, wanted, on_progress=news.append, tool=tool) == found
    assert news == []


@pytest.mark.parametrize("tool", TOOLS)
async def test_an_override_leaves_a_distribution_out(home: Path, wheels: Path, tool: Tool) -> None:
    make_wheel(wheels, "motor", requires=["gears>=1", "vision>=1"])
    make_wheel(wheels, "vision", body="raise ImportError('built for another torch')")
    found = await build(home, recipe(overrides=(f"vision; {NEVER}",)), tool=tool)
    assert found.manifest is not None
    assert "vision" not in found.manifest.packages
    assert found.manifest.packages["gears"] == "1.0"


async def test_pip_says_which_pins_are_missing_where_it_depends_on_them(home: Path, wheels: Path) -> None:
    wanted = recipe(overrides=(f"vision; {NEVER}",), pins={"motor": "1.0"})
    with pytest.raises(ServerError, match=r"motor requires gears>=1, which is not there.*pip install uv"):
        await build(home, wanted, tool=PIP)
    assert left(home) == []


@pytest.mark.parametrize("tool", TOOLS)
async def test_an_override_stands_in_for_the_version_that_others_ask_for(
    home: Path, wheels: Path, tool: Tool
) -> None:
    make_wheel(wheels, "motor", requires=["gears<2"])
    wanted = recipe(overrides=("gears==2.0",), pins={"motor": "1.0"})
    found = await build(home, wanted, tool=tool)
    assert found.manifest is not None
    assert found.manifest.packages["gears"] == "2.0"


@pytest.mark.parametrize(
    "project", ["", '[project]\nname = "around"\nversion = "1"\n[tool.uv.workspace]\nmembers = []\n']
)
def test_the_settings_of_a_project_around_it_are_not_taken(
    home: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch, project: str
) -> None:
    monkeypatch.delenv("UV_NO_CONFIG")
    home.mkdir()
    settings = f'{project}[tool.uv]\nconstraint-dependencies = ["gears==2.0"]\n'
    (home / "pyproject.toml").write_text(settings)
    monkeypatch.chdir(home)
    assert asyncio.run(build(home, recipe(), tool=UV)).problem is None


async def test_what_lies_in_the_way_is_replaced(home: Path, wheels: Path) -> None:
    wanted = recipe()
    folder = environments_folder(home) / wanted.name
    folder.mkdir(parents=True)
    (folder / MANIFEST).write_text("{")
    (folder.parent / "mine").mkdir()
    assert (await build(home, wanted, tool=UV)).problem is None
    assert left(home) == sorted([wanted.name, "mine"])


# -- what fails


@pytest.mark.parametrize("tool", TOOLS)
async def test_an_index_that_cannot_be_reached_is_named_as_the_reason(
    home: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch, tool: Tool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{port}/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(ServerError) as raised:
        await build(home, recipe(), tool=tool)
    assert "no package index can be reached. Mend: " in raised.value.message
    assert "PIP_INDEX_URL" in raised.value.message
    assert left(home) == []


@pytest.mark.parametrize("tool", TOOLS)
async def test_what_excludes_each_other_is_told_in_the_installers_words(
    home: Path, wheels: Path, tool: Tool
) -> None:
    make_wheel(wheels, "brake", requires=["gears>=2"])
    wanted = recipe(requirements=("motor==1.0", "brake"))
    with pytest.raises(ServerError, match=r"excludes each other.*\n[^$]*brake") as raised:
        await build(home, wanted, tool=tool)
    assert "gears" in raised.value.message
    assert left(home) == []


async def test_a_wheel_for_another_python_only_is_told(home: Path, wheels: Path) -> None:
    make_wheel(wheels, "old", tag="cp35-cp35m-any")
    with pytest.raises(ServerError, match=r"there is no wheel for Python 3"):
        await build(home, recipe(requirements=("motor", "old")), tool=UV)
    assert left(home) == []


@pytest.mark.parametrize("tool", TOOLS)
async def test_what_no_index_has_is_told(home: Path, wheels: Path, tool: Tool) -> None:
    with pytest.raises(ServerError, match=r"no index here has what is asked for[^$]*nowhere"):
        await build(home, recipe(requirements=("nowhere",)), tool=tool)


@pytest.mark.parametrize("tool", TOOLS)
async def test_a_build_for_the_cpu_that_no_index_has_is_never_replaced_by_another(
    home: Path, wheels: Path, tool: Tool
) -> None:
    make_wheel(wheels, "torch", "2.0")
    wanted = recipe(requirements=("torch==2.0",), modules=("torch",), pins={"torch": "2.0+cpu"})
    with pytest.raises(ServerError, match=r"no index here has .*PyTorch's own index[^$]*torch==2.0\+cpu"):
        await build(home, wanted, tool=tool)
    make_wheel(wheels, "torch", "2.0+cpu")
    make_wheel(wheels, "torch", "2.0+cu1")
    found = await build(home, wanted, tool=UV)
    assert found.manifest is not None
    assert found.manifest.packages["torch"] == "2.0+cpu"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            "raise ImportError('libmotor.so: cannot open')",
            r"motor can't be imported: ImportError: libmotor.so",
        ),
        ("print('{}'); raise SystemExit(0)", r"motor can't be imported: SystemExit: 0"),
        (
            "import os, sys; print('a wheel came off', file=sys.stderr); os.abort()",
            r"signal 6.*a wheel came off",
        ),
    ],
)
async def test_a_module_that_cannot_be_imported_is_no_environment(
    home: Path, wheels: Path, body: str, reason: str
) -> None:
    make_wheel(wheels, "motor", requires=["gears"], body=body)
    with pytest.raises(ServerError, match=reason):
        await build(home, recipe(), tool=UV)
    assert left(home) == []


async def test_what_was_asked_for_by_name_must_import_too(home: Path, wheels: Path) -> None:
    make_wheel(wheels, "oil_can", body="raise ImportError('no oil')")
    with pytest.raises(ServerError, match="oil_can can't be imported: ImportError: no oil"):
        await build(home, recipe(requirements=("motor", "oil-can")), tool=UV)


async def test_an_import_that_never_ends_is_given_up(home: Path, wheels: Path, tmp_path: Path) -> None:
    found = await build(home, recipe(), tool=UV)
    with gate(tmp_path) as (path, _):
        code = f"import os; os.environ['MOTOR_GATE'] = {str(path)!r}"
        (
            found.folder / "lib" / f"python3.{sys.version_info.minor}" / "site-packages" / "motor.pth"
        ).write_text(code)
        with pytest.raises(ServerError, match=r"importing motor with .* took longer than 0.2 s"):
            await look_inside(found.python, ["motor"], seconds=0.2)


FILL = """
import os, resource, sys
way, folder, size, *command = sys.argv[1:]
if way == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(size), int(size)))
os.execv(command[0], command)
"""


@pytest.mark.parametrize(
    ("way", "tool"),
    [("limit", "uv"), *([("disk", "uv"), ("disk", "pip")] if can_mount() else [("limit", "pip")])],
)
def test_a_full_disk_is_named_and_nothing_is_left(home: Path, wheels: Path, way: str, tool: str) -> None:
    make_wheel(wheels, "motor", padding=os.urandom(24 * MIB))
    home.mkdir()
    size = 20 * MIB if tool == "uv" else 36 * MIB
    if way == "disk":
        look = 'ls -A "$0/environments" >&2'
        wrapper = [*on_small_disk(home, size), "sh", "-c", f'"$@"; {look}', str(home)]
    else:
        wrapper = [sys.executable, "-c", FILL, way, str(home), str(8 * MIB)]
    with building(home, recipe(pins={}), os.environ, tool=tool, wrapper=wrapper) as started:
        out, error = started.process.communicate(timeout=SECONDS)
    assert "could not be built" in out
    mend = "free space there, or set LLMENGINE_HOME" if way == "disk" else "ulimit -f"
    assert mend in out, out
    assert left(home) == [] if way == "limit" else error == ""
