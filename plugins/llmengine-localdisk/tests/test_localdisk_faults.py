"""Disks that refuse, for real: the reason and the mend are told, and nothing is left behind."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import localdisk_fault
import pytest

from llmengine_core.interfaces.storage import StorageError
from llmengine_localdisk.storage import LocalDiskStorage

MOUNT = 'mount -t tmpfs -o size=4m none "$0" && exec "$@"'


def namespace(folder: Path) -> list[str] | None:
    """The command prefix that mounts a disk of 4 MiB over a folder; None where that isn't permitted."""
    for options in ("-rm", "-m"):
        prefix = ["unshare", options, "sh", "-c", MOUNT, str(folder)]
        try:
            if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0:
                return prefix
        except FileNotFoundError:
            break
    return None


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that any user can reach."""
    with tempfile.TemporaryDirectory(prefix="llmengine-") as path:
        Path(path).chmod(0o755)
        yield Path(path)


def errors(fault: str, folder: Path, prefix: list[str]) -> list[str]:
    command = [*prefix, sys.executable, localdisk_fault.__file__, fault, folder.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def left(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_file_that_grows_too_large_is_refused_and_leaves_nothing(folder: Path) -> None:
    found = errors("file size limit", folder, [])
    assert found[0].startswith(f"can't put 'large' in {folder}: File too large (EFBIG); raise the limit")
    assert len(found) == 2
    assert left(folder) == ["before/k"]


DISKS = ["small disk"] if namespace(Path(tempfile.gettempdir())) else []


@pytest.mark.parametrize("fault", DISKS)
def test_a_full_disk_is_refused_and_leaves_nothing(folder: Path, fault: str) -> None:
    prefix = namespace(folder)
    assert prefix is not None
    found = errors(fault, folder, prefix)
    assert found[0].startswith(
        f"can't put 'large' in {folder}: No space left on device (ENOSPC); free some space"
    )
    assert len(found) == 2


def test_a_read_only_folder_is_refused(folder: Path) -> None:
    (folder / "before").mkdir()
    (folder / "before" / "k").write_bytes(b"before")
    (folder / "before").chmod(0o555)
    folder.chmod(0o555)
    found = errors("read-only folder", folder, [])
    assert found[0].startswith(f"can't put 'large' in {folder}: Permission denied (EACCES); give the user")
    assert len(found) == 2
    folder.chmod(0o755)


def test_a_folder_that_nobody_may_make_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    storage = LocalDiskStorage((tmp_path / "file" / "below").as_uri())
    with pytest.raises(StorageError, match="Not a directory"):
        asyncio.run(storage.put("k", b""))


def test_segments_that_are_too_long_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    async def check() -> None:
        storage = LocalDiskStorage(tmp_path.as_uri())
        assert (await storage.put("é" * 127 + "x", b"")).size == 0
        assert await storage.delete("é" * 127 + "x")
        for key in ("é" * 128, "a/" + "x" * 256, "a/" + "x" * 256 + "/b", "x" * 256 + "/b"):
            with pytest.raises(StorageError, match=r"ENAMETOOLONG.*255 bytes"):
                await storage.put(key, b"")
            with pytest.raises(StorageError):
                await storage.head(key)

    asyncio.run(check())
    assert list(tmp_path.rglob("*")) == []
