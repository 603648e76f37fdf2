"""Homes on a full disk, and homes that can't be written: what needs no room goes on, the rest says why."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.e2e.disks import MIB, can_mount, on_small_disk, read_only
from tests.e2e.program import Program

pytestmark = pytest.mark.engine

SAID = """
import io, resource
home = os.environ["LLMENGINE_HOME"]
def said(call):
    try:
        say("ok", call())
    except errors.ServerError as error:
        say(error.status_code, str(error))
def upload(content):
    return File.upload(io.BytesIO(content)).id
def create(name):
    return Model.create(name, MODEL, "latest", inference_framework="llama_cpp") and name
def objects():
    return sorted(name for _, _, names in os.walk(f"{home}/objects") for name in names)
def files():
    return [file.id for file in File.list().files]
"""

FULL = """
class Endless:
    name = "endless.bin"
    def read(self, size):
        return bytes(size)
if sys.argv[1] == "disk":
    def fill():
        with open(f"{home}/filler", "wb", buffering=0) as file:
            for piece in (bytes(4096), b"0"):
                try:
                    while True:
                        file.write(piece)
                except OSError:
                    pass
    def free():
        os.unlink(f"{home}/filler")
    def room():  # but for the database's own, whose journal keeps what it has grown to
        own = [os.stat(f"{home}/{name}").st_blocks for name in os.listdir(home) if name.startswith("state.db")]
        disk = os.statvfs(home)
        return disk.f_bavail * disk.f_frsize // 512 + sum(own)
else:
    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    def fill():
        limit(0)
    def free():
        limit(int(sys.argv[2]))
    def room():
        return None
    free()

ask()
first = upload(b"first")
before = room()
said(lambda: File.upload(Endless()))
say(files() == objects() == [first], room() == before)

fill()
said(lambda: ask().output.text)
said(lambda: upload(bytes(5000)))
said(lambda: upload(b""))
said(lambda: create("mine"))
say(files() == objects() == [first], File.download(first).content)
if os.fork() == 0:  # a program that begins when the disk is full
    said(lambda: ask().output.text)
    said(lambda: upload(bytes(5000)))
    os._exit(0)
os.wait()
say(files() == objects() == [first])

free()
said(lambda: create("mine"))
said(lambda: ask(model="mine").output.text)
second = upload(b"second")
say(sorted(files()) == objects() == sorted([first, second]), File.download(first).content)
"""

PARIS = ["ok", " Paris.\n"]


def is_explained(said: Sequence[object], *, mend: str) -> bool:
    """Whether it is a ``ServerError`` that says what would help."""
    status, reason = said
    assert status == 500
    return mend in str(reason)


@pytest.mark.parametrize("way", ["limit", *(["disk"] if can_mount() else [])])
def test_a_full_disk_loses_nothing_and_leaves_nothing(home: Path, way: str) -> None:
    home.mkdir()
    size = 8 * MIB
    program = Program(home, {"PYTHONWARNINGS": "ignore:This process:DeprecationWarning"})
    wrapper = on_small_disk(home, size) if way == "disk" else ()
    said = iter(program.run(SAID + FULL, way, str(size), wrapper=wrapper))

    assert is_explained(
        next(said), mend="free some space" if way == "disk" else "raise the limit of file sizes"
    )
    assert next(said) == [True, True]

    assert next(said) == PARIS
    for _ in range(3):
        assert is_explained(next(said), mend="free some space" if way == "disk" else "limit of file sizes")
    assert next(said) == [True, "first"]
    assert next(said) == PARIS
    assert is_explained(next(said), mend="free some space" if way == "disk" else "limit of file sizes")
    assert next(said) == [True]

    assert next(said) == ["ok", "mine"]
    assert next(said) == PARIS
    assert next(said) == [True, "first"]
    assert list(said) == []


WRITE = """
say(upload(b"first"))
said(lambda: create("mine"))
said(lambda: ask(model="mine").output.text)
"""
READ = """
said(lambda: ask().output.text)
said(lambda: upload(b"second"))
said(lambda: create("yours"))
"""
READ_AGAIN = """
say(files(), File.download(files()[0]).content)
said(lambda: ask(model="mine").output.text)
"""


@pytest.mark.parametrize("how", ["rights", *(["mount"] if can_mount() else [])])
def test_a_home_that_cannot_be_written_still_answers_and_loses_nothing(
    program: Program, home: Path, how: str
) -> None:
    (first,), created, answered = program.run(SAID + WRITE)
    assert (created, answered) == (["ok", "mine"], PARIS)
    shutil.rmtree(home / "weights")  # what was noted of them
    folders = [home, *(path for path in home.rglob("*") if path.is_dir())]
    files = [path for path in home.rglob("*") if path.is_file()]
    contents = {path: path.read_bytes() for path in files}
    if how == "rights":
        for path in folders + files:
            path.chmod(0o555 if path.is_dir() else 0o444)
    answered, *refused = program.run(SAID + READ, wrapper=read_only(home, how))
    for path in folders:
        path.chmod(0o755)
    for path in files:
        path.chmod(0o644)
    assert answered == PARIS
    for each in refused:
        assert is_explained(each, mend="give the user" if how == "rights" else "")
        assert str(home) in each[1]
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == contents
    assert program.run(SAID + READ_AGAIN) == [[[first], "first"], PARIS]


def test_a_home_that_cannot_be_made_is_an_error_that_names_the_setting(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    code = "from llmengine_core import home as home_engine\nsaid(lambda: ask().output.text)"
    ((status, reason),) = Program(closed / "home").run(SAID + code, wrapper=read_only(closed, "rights"))
    assert status == 500
    assert f"the state folder {closed}/home can't be made: Permission denied" in reason
    assert "LLMENGINE_HOME" in reason


def test_a_database_of_a_newer_version_is_refused_untouched_and_completions_go_on(
    program: Program, home: Path
) -> None:
    program.run("import io; File.upload(io.BytesIO(b'first'))")
    with sqlite3.connect(home / "state.db") as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    before = (home / "state.db").read_bytes()
    code = """
said(lambda: ask().output.text)
said(files)
said(lambda: create("mine"))
said(lambda: upload(b"second"))
say(len(objects()))
"""
    answered, *refused, count = program.run(SAID + code)
    assert answered == PARIS
    assert len(refused) == 3
    for each in refused:
        assert is_explained(each, mend="upgrade it (pip install --upgrade llmengine-sqlite)")
        assert "has version 99" in each[1]
    assert count == [1]
    assert (home / "state.db").read_bytes() == before
