"""The folder of sockets: private, short, and swept of what a crash left."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmengine_core.rundir import LONGEST, RuntimeFolder, user_root

# Takes a folder, leaves a socket in it, says where, and waits to be killed.
HOLDER = """
import signal, socket, sys
from pathlib import Path
from llmengine_core.rundir import RuntimeFolder
folder = RuntimeFolder(Path(sys.argv[1]))
server = socket.socket(socket.AF_UNIX)
server.bind(str(folder.new_socket()))
(folder.path / "more").mkdir()
print(folder.path, flush=True)
signal.pause()
"""


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a path that leaves room for sockets."""
    with tempfile.TemporaryDirectory(prefix="r") as folder:
        yield Path(folder)


def hold(root: Path) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(root)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def end(process: subprocess.Popen[str]) -> None:
    with process:
        process.send_signal(signal.SIGKILL)


def test_a_folder_is_private_and_its_sockets_can_be_listened_on(short: Path) -> None:
    with RuntimeFolder(short / "root") as folder:
        for path in (folder.root, folder.path):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700
        paths = [folder.new_socket() for _ in range(50)]
        assert len(set(paths)) == 50
        assert all(path.parent == folder.path for path in paths)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(paths[0]))
    assert list(folder.root.iterdir()) == []
    folder.close()


def test_the_longest_root_that_is_taken_still_gives_a_socket_that_binds(short: Path) -> None:
    room = LONGEST - len(os.fsencode(short)) - len("//0123abcd/0123456789abcdef.sock")
    with RuntimeFolder(short / ("x" * room)) as folder, socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder.new_socket()))
    problem = f"is too long .* {LONGEST + 1} bytes, {LONGEST} are allowed; set XDG_RUNTIME_DIR"
    with pytest.raises(OSError, match=problem):
        RuntimeFolder(short / ("x" * (room + 1)))


def test_what_a_crash_left_is_swept_by_the_next_start_and_what_lives_is_not(short: Path) -> None:
    killed, left = hold(short)
    living, held = hold(short)
    try:
        end(killed)
        assert left.exists()
        (short / "stray file").touch()
        with RuntimeFolder(short) as folder:
            assert set(short.iterdir()) == {held, folder.path, short / "stray file"}
            assert list(held.glob("*.sock"))
    finally:
        end(living)


def test_a_link_is_never_followed(short: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    (short / "link").symlink_to(tmp_path)
    with RuntimeFolder(short):
        assert (tmp_path / "precious").exists()
    with pytest.raises(OSError, match="it is not a folder; remove it"):
        RuntimeFolder(short / "link")


def test_starts_at_once_never_sweep_each_other(short: Path) -> None:
    folders: list[RuntimeFolder] = []
    threads = [threading.Thread(target=lambda: folders.append(RuntimeFolder(short))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {folder.path for folder in folders} == set(short.iterdir())
    assert len(folders) == 20
    for folder in folders:
        folder.close()
    assert list(short.iterdir()) == []


def test_a_root_that_others_can_enter_is_refused(short: Path) -> None:
    short.chmod(0o755)
    with pytest.raises(OSError, match=rf"its mode is 755, 700 is allowed; chmod 700 {short}"):
        RuntimeFolder(short)


def test_a_root_that_is_somebody_elses_is_refused(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: short.stat().st_uid + 1)
    with pytest.raises(OSError, match=r"it belongs to user \d+; set XDG_RUNTIME_DIR"):
        RuntimeFolder(short)


def test_the_session_s_runtime_folder_is_used_where_it_can_be(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fallback = Path(tempfile.gettempdir(), f"llmengine-{os.geteuid()}")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
    assert user_root() == short / "llmengine"
    for unfit in (str(short / "missing"), "relative", "", str(short / ("x" * 80))):
        monkeypatch.setenv("XDG_RUNTIME_DIR", unfit)
        assert user_root() == fallback
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert user_root() == fallback
