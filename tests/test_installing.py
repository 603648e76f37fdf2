"""Environments are built whole or not at all: real installers, real wheels, real faults."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.building import building, offline, recipe
from tests.e2e.disks import MIB, can_mount, on_small_disk
from tests.wheels import make_wheel

from llmengine_core.environments import MANIFEST, environments_folder, find, listed
from llmengine_core.errors import ServerError
from llmengine_core.installing import (
    PIP,
    Tool,
    build,
    built_already,
    find_tool,
    look_inside,
    remove,
    users,
    uv,
)
from llmengine_core.installing.checking import Found, unmet
from llmengine_core.installing.tools import Listener
from llmengine_core.types.declarations import EnvironmentSpec
from llmengine_core.types.progress import Progress

NEVER = "sys_platform == 'never'"
UV = uv() or pytest.fail("these tests need uv; python -m pip install uv")
TOOLS = [pytest.param(UV, id="uv"), pytest.param(PIP, id="pip")]
SECONDS = 30


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of wheels that installers know, and nothing else."""
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")):
            monkeypatch.delenv(name)
    for name, value in offline(tmp_path).items():
        monkeypatch.setenv(name, value)
    return tmp_path / "wheels"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "a home"


def left(home: Path) -> list[str]:
    """All that lies among the environments."""
    folder = environments_folder(home)
    return sorted(os.listdir(folder)) if folder.exists() else []


def ran(*command: object) -> str:
    """What a program prints."""
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def mentioned(text: str) -> bool:
    """Whether any process has a text in its command."""
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if text.encode() in Path("/proc", name, "cmdline").read_bytes():
                return True
        except OSError:
            continue
    return False


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


def test_the_settings_of_a_project_around_it_are_not_taken(
    home: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UV_NO_CONFIG")
    home.mkdir()
    (home / "pyproject.toml").write_text('[tool.uv]\nconstraint-dependencies = ["gears==2.0"]\n')
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


# -- who comes in between


@contextmanager
def gate(folder: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A pipe at which the import of ``motor`` waits, and what lets it go on."""
    path = folder / "gate"
    os.mkfifo(path)
    yield path, lambda: os.close(os.open(path, os.O_WRONLY))


@contextmanager
def silent_index() -> Iterator[str]:
    """The address of an index that takes every call, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def hold() -> None:
            while True:
                try:
                    held.append(server.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=hold)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/simple"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for each in held:
                each.close()


def test_a_build_that_is_killed_leaves_nothing_that_counts_and_the_next_one_works(
    home: Path, wheels: Path, tmp_path: Path
) -> None:
    wanted = recipe()
    # while uv waits for an index
    with silent_index() as index:
        environment = {"PIP_NO_INDEX": "", "PIP_INDEX_URL": index}
        with building(home, wanted, environment) as started:
            started.until("resolve")
            started.process.kill()
            started.process.wait()
    (half,) = left(home)
    assert half.startswith(f".{wanted.name}.")
    assert listed(home) == ()
    wait_for(lambda: not mentioned(half))  # its installer went with it

    # while it is tried out, in its place
    other = recipe(engine="other")
    with gate(tmp_path) as (path, _), building(home, other, {"MOTOR_GATE": str(path)}) as started:
        started.until("check")
        wait_for(lambda: left(home) == [other.name])
        started.process.kill()
        started.process.wait()
    (unfinished,) = listed(home)
    assert "never finished" in str(unfinished.problem)
    assert built_already(home, other) is None
    wait_for(lambda: not mentioned(other.name))

    with building(home, wanted, {}) as started:
        assert "folder" in started.rest()[-1]
    assert left(home) == [wanted.name]  # and the other one is gone


def test_of_two_that_build_the_same_one_works_and_the_other_waits(
    home: Path, wheels: Path, tmp_path: Path
) -> None:
    wanted = recipe()
    with gate(tmp_path) as (path, let_go), building(home, wanted, {"MOTOR_GATE": str(path)}) as first:
        first.until("check")
        with building(home, wanted, {"MOTOR_GATE": str(path)}) as second:
            second.until("wait")
            let_go()
            done = {"folder": str(environments_folder(home) / wanted.name)}
            assert first.rest() == [done]
            assert second.rest() == [done]
    assert left(home) == [wanted.name]


async def test_a_build_of_another_recipe_goes_on_beside(home: Path, wheels: Path, tmp_path: Path) -> None:
    one, other = recipe(), recipe(engine="other")
    with gate(tmp_path) as (path, let_go), building(home, one, {"MOTOR_GATE": str(path)}) as first:
        await asyncio.to_thread(first.until, "check")
        assert (await build(home, other, tool=UV)).problem is None  # and sweeps none of what is held
        let_go()
        assert "folder" in (await asyncio.to_thread(first.rest))[-1]
    assert left(home) == sorted([one.name, other.name])


@pytest.mark.parametrize("phase", ["resolve", "check"])
async def test_cancelling_ends_the_installer_and_removes_what_it_made(
    home: Path, wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    reached = asyncio.Event()
    with silent_index() as index, gate(tmp_path) as (path, _):
        monkeypatch.setenv("MOTOR_GATE", str(path))
        if phase == "resolve":
            monkeypatch.delenv("PIP_NO_INDEX")
            monkeypatch.setenv("PIP_INDEX_URL", index)

        def hear(progress: Progress) -> None:
            if progress.phase == phase:
                reached.set()

        task = asyncio.create_task(build(home, recipe(), on_progress=hear, tool=UV))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert left(home) == []
        assert not mentioned(str(home))


# -- removal


@pytest.mark.parametrize("system", ["linux", "darwin"])
def test_whoever_runs_in_an_environment_is_seen_until_it_ends(
    home: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch, system: str
) -> None:
    monkeypatch.setattr("llmengine_core.installing.removing.sys", SimpleNamespace(platform=system))
    found = asyncio.run(build(home, recipe(), tool=UV))
    assert asyncio.run(users(found)) == []
    with subprocess.Popen([found.python, "-I", "-c", "input()"], stdin=subprocess.PIPE) as process:
        (user,) = asyncio.run(users(found))
        assert (user.pid, user.command.startswith(str(found.python))) == (process.pid, True)
        process.communicate(b"\n")
    assert asyncio.run(users(found)) == []
    asyncio.run(remove(home, found))
    assert left(home) == []
    asyncio.run(remove(home, found))  # twice is no error


def test_whoever_has_loaded_a_library_of_an_environment_is_seen(home: Path, wheels: Path) -> None:
    found = asyncio.run(build(home, recipe(), tool=UV))
    library = found.folder / "libmotor.so"
    library.write_bytes(bytes(4096))
    code = "import mmap, sys; file = open(sys.argv[1], 'r+b'); held = mmap.mmap(file.fileno(), 0); print(); input()"
    command = [sys.executable, "-u", "-I", "-c", code, str(library)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert [each.pid for each in asyncio.run(users(found))] == [process.pid]
        process.communicate(b"\n")


# -- progress


def test_what_uv_says_of_downloads_is_progress_in_bytes() -> None:
    news: list[tuple[str, float, float | None]] = []
    hear = Listener("motor", lambda each: news.append((each.phase, each.done, each.total)))
    for line in (
        "Resolved 3 packages in 1ms",
        "Downloading motor (2.0MiB)",
        "Downloading gears (1.5KiB)",
        " Downloaded gears",
        " Downloaded motor",
        "Prepared 3 packages in 1ms",
    ):
        hear(line)
    both = 2 * MIB + 1536
    assert news == [
        ("download", 0, None),
        ("download", 0, 2 * MIB),
        ("download", 0, both),
        ("download", 1536, both),
        ("download", both, both),
        ("install", 0, None),
    ]


def test_what_pip_says_of_downloads_is_progress_without_an_end() -> None:
    news: list[tuple[str, float, float | None]] = []
    hear = Listener("motor", lambda each: news.append((each.phase, each.done, each.total)))
    for line in (
        "Collecting motor",
        "  Downloading motor-1.0.whl (2.0 MB)",
        "  Downloading gears.whl (1 kB)",
    ):
        hear(line)
    assert news == [("download", 0, None), ("download", 2 * MIB, None)]


# -- commands


MIRROR = {"PIP_INDEX_URL": "https://mirror.invalid/simple"}


@pytest.mark.parametrize(
    ("given", "added"),
    [
        ({}, {}),
        (MIRROR, {"UV_DEFAULT_INDEX": MIRROR["PIP_INDEX_URL"]}),
        ({"PIP_NO_INDEX": "1"}, {}),
        ({**MIRROR, "UV_DEFAULT_INDEX": "x"}, {}),
        ({**MIRROR, "UV_INDEX_URL": "x"}, {}),
        ({"PIP_EXTRA_INDEX_URL": "a b"}, {"UV_INDEX": "a b", "UV_INDEX_STRATEGY": "unsafe-best-match"}),
        ({"PIP_EXTRA_INDEX_URL": "a", "UV_INDEX_STRATEGY": "first-index"}, {"UV_INDEX": "a"}),
        ({"PIP_FIND_LINKS": "/a https://b"}, {"UV_FIND_LINKS": "/a,https://b"}),
        ({"PIP_FIND_LINKS": "/a", "UV_FIND_LINKS": "/b"}, {}),
        ({"PIP_CERT": "/c"}, {"SSL_CERT_FILE": "/c"}),
    ],
)
def test_uv_is_told_what_pip_was_told_unless_it_was_told_something_else(
    given: dict[str, str], added: dict[str, str]
) -> None:
    assert UV.environment(given) == added


def test_a_path_of_pips_means_the_same_to_uv_wherever_it_runs() -> None:
    assert UV.environment({"PIP_FIND_LINKS": "wheels"}) == {"UV_FIND_LINKS": f"{Path.cwd()}/wheels"}


@pytest.mark.parametrize(
    ("accelerator", "environ", "asked"),
    [
        ("cpu", {}, True),
        ("cuda", {}, False),
        ("cpu", {"UV_TORCH_BACKEND": "auto"}, False),
        ("cpu", MIRROR, False),
        ("cpu", {"UV_INDEX": "x"}, False),
        ("cpu", {"PIP_FIND_LINKS": "/wheels"}, False),
        ("cpu", {"PIP_FIND_LINKS": "", "PIP_CACHE_DIR": "/c"}, True),
    ],
)
def test_pytorchs_index_is_asked_only_where_nobody_named_another_source(
    accelerator: str, environ: dict[str, str], asked: bool
) -> None:
    command = UV.install(recipe(accelerator=accelerator), Path("/folder"), environ)
    assert ("--torch-backend" in command) is asked


@pytest.mark.parametrize(("said", "asked"), [("1", True), ("True", True), ("0", False), ("", False)])
def test_uv_asks_no_index_where_pip_was_told_not_to(said: str, asked: bool) -> None:
    assert ("--no-index" in UV.install(recipe(), Path("/folder"), {"PIP_NO_INDEX": said})) is asked


def test_without_uv_it_is_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_tool() == UV
    monkeypatch.setenv("PATH", os.devnull)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert find_tool() == PIP
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert find_tool() == Tool("uv", (sys.executable, "-P", "-m", "uv"))


def test_what_is_unmet_is_told_for_what_is_there_alone() -> None:
    packages = {"motor": "1.0", "gears": "2.0rc1"}
    requires = {
        "motor": ("Gears>=2.0rc1", "gears<2", "oil; extra == 'smooth'", f"x; {NEVER}", "vision", "wheel_s")
    }
    found = Found(python_version="3.11", packages=packages, requires=requires, failed={})
    assert list(unmet(found, frozenset({"vision"}))) == [
        "motor requires gears<2, but 2.0rc1 is there",
        "motor requires wheel_s, which is not there",
    ]
