"""``llmengine files``."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import time
from pathlib import Path

import pytest
from tests.cli.program import Program, Run

from llmengine.data_types.file import (
    DeleteFileResponse,
    GetFileContentResponse,
    GetFileResponse,
    ListFilesResponse,
    UploadFileResponse,
)
from llmengine_core.records import to_json
from llmengine_core.types.objects import FileRecord, FileStatus
from llmengine_localdisk.storage import LocalDiskStorage
from llmengine_sqlite.store import SqliteStore

BINARY = bytes(range(256)) * 5000


def uploaded(run: Run, content: bytes, name: str = "data.csv") -> str:
    """The id of a file with this content."""
    Path(name).write_bytes(content)
    done = run("files", "upload", name)
    assert (done.exit_code, done.stderr) == (0, "")
    return done.stdout.strip()


@pytest.mark.parametrize("content", [b"", b"prompt,response\n", BINARY], ids=["empty", "text", "binary"])
def test_l01_content_comes_back_byte_for_byte(run: Run, content: bytes) -> None:
    file_id = uploaded(run, content)
    assert run("files", "download", file_id).stdout_bytes == content
    assert run("files", "download", file_id, "--output", "copy").exit_code == 0
    assert Path("copy").read_bytes() == content
    answer = GetFileContentResponse.parse_obj(json.loads(run("files", "download", file_id, "--json").stdout))
    assert (base64.b64decode(answer.content) if content == BINARY else answer.content.encode()) == content


def test_l01_json_is_the_responses_of_the_api(run: Run) -> None:
    Path("data.csv").write_text("a,b\n")
    file_id = UploadFileResponse.parse_obj(json.loads(run("files", "upload", "data.csv", "--json").stdout)).id
    shown = json.loads(run("files", "show", file_id, "--json").stdout)
    assert shown == {"id": file_id, "filename": "data.csv", "size": 4}
    assert GetFileResponse.parse_obj(shown).dict() == shown
    listed = json.loads(run("files", "list", "--json").stdout)
    assert listed == {"files": [shown]}
    assert ListFilesResponse.parse_obj(listed).dict() == listed
    deleted = json.loads(run("files", "delete", file_id, "--json").stdout)
    assert DeleteFileResponse.parse_obj(deleted).deleted
    assert json.loads(run("files", "list", "--json").stdout) == {"files": []}


def test_l01_text_shows_what_there_is(run: Run) -> None:
    file_id = uploaded(run, b"x" * 1500)
    header, row = run("files", "list").stdout.splitlines()
    assert header.split() == ["ID", "SIZE", "UPLOADED", "NAME"]
    assert row.startswith(f"{file_id}  1.5 kB  ")
    assert row.endswith("  data.csv")
    assert "size      1500 bytes\n" in run("files", "show", file_id).stdout
    assert run("files", "delete", file_id).stdout == f"deleted {file_id}\n"
    assert run("files", "list").stdout == ""


def test_l01_another_name_can_be_shown(run: Run) -> None:
    Path("data.csv").write_text("a,b\n")
    file_id = run("files", "upload", "data.csv", "--filename", "mine.csv").stdout.strip()
    assert json.loads(run("files", "show", file_id, "--json").stdout)["filename"] == "mine.csv"


@pytest.mark.parametrize("command", ["show", "download", "delete"])
def test_l01_a_missing_file_ends_in_3(run: Run, command: str) -> None:
    done = run("files", command, "file-0")
    assert (done.exit_code, done.stdout) == (3, "")
    assert "'file-0'" in done.stderr


def test_a_path_that_is_missing_ends_in_2(run: Run) -> None:
    assert run("files", "upload", "missing.csv").exit_code == 2


def test_l01_standard_input_is_streamed(program: Program, run: Run) -> None:
    done = program("files", "upload", "-", stdin=BINARY)
    assert (done.returncode, done.stderr) == (0, b"")
    assert run("files", "download", done.stdout.decode().strip()).stdout_bytes == BINARY


def test_l01_a_copy_is_whole_or_not_there(run: Run) -> None:
    file_id = uploaded(run, b"new")
    Path("copy").write_text("old")
    (Path(os.environ["LLMENGINE_HOME"]) / "objects" / "files" / file_id).unlink()
    done = run("files", "download", file_id, "--output", "copy")
    assert done.exit_code == 1
    assert Path("copy").read_text() == "old"
    assert sorted(os.listdir()) == ["copy", "data.csv"]


def test_a_copy_goes_to_regular_files_only(run: Run) -> None:
    file_id = uploaded(run, b"new")
    os.mkfifo("pipe")
    done = run("files", "download", file_id, "--output", "pipe")
    assert done.exit_code == 2
    assert "pipe" in done.stderr
    assert Path("pipe").is_fifo()


def test_a_copy_keeps_a_link_a_link(run: Run) -> None:
    file_id = uploaded(run, b"new")
    Path("target").write_text("old")
    Path("link").symlink_to("target")
    assert run("files", "download", file_id, "--output", "link").exit_code == 0
    assert Path("link").is_symlink()
    assert Path("target").read_text() == "new"


def test_ctrl_c_ends_an_upload_that_waits_and_leaves_nothing(program: Program, run: Run) -> None:
    read, write = os.pipe()
    try:
        with program.running("files", "upload", "-", stdin=read) as process:
            os.write(write, b"x" * 100_000)  # more than a pipe holds: it has begun
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(5) == 130
    finally:
        os.close(read)
        os.close(write)
    assert run("files", "list").stdout == ""


def put_leftovers(home: Path) -> None:
    """What a killed upload, a killed deletion and an upload under way leave, each with an object."""

    async def put() -> None:
        store = SqliteStore(f"sqlite:///{home / 'state.db'}")
        storage = LocalDiskStorage((home / "objects").as_uri())
        for name, status, lease in (
            ("file-dead", FileStatus.ARRIVING, time.time() - 1),
            ("file-gone", FileStatus.LEAVING, None),
            ("file-live", FileStatus.ARRIVING, time.time() + 600),
        ):
            record = FileRecord(
                id=name, filename="a", size=0, owner="root", created_at=0.0,
                object_key=f"files/{name}", status=status, lease_until=lease,
            )  # fmt: skip
            await store.insert("files", name, to_json(record))
            await storage.put(record.object_key, b"x")
        await store.aclose()
        await storage.aclose()

    asyncio.run(put())


def test_l01_sweep_removes_what_is_left_and_nothing_else(run: Run) -> None:
    home = Path(os.environ["LLMENGINE_HOME"])
    assert run("files", "sweep").stdout == "removed: 0\n"
    kept = uploaded(run, b"kept")
    put_leftovers(home)

    def objects() -> list[str]:
        return sorted(path.name for path in (home / "objects" / "files").iterdir())

    would = json.loads(run("files", "sweep", "--dry-run", "--json").stdout)["swept"]
    assert [(each["id"], each["status"]) for each in would] == [
        ("file-dead", "ARRIVING"),
        ("file-gone", "LEAVING"),
    ]
    assert objects() == sorted([kept, "file-dead", "file-gone", "file-live"])
    done = run("files", "sweep")
    assert (done.exit_code, done.stderr) == (0, "")
    _, dead, gone, last = done.stdout.splitlines()
    assert dead.split()[:3] == ["file-dead", "an", "upload"]
    assert gone.split()[:3] == ["file-gone", "a", "deletion"]
    assert last == "removed: 2"
    assert objects() == sorted([kept, "file-live"])
    assert json.loads(run("files", "sweep", "--json").stdout) == {"swept": []}
    assert run("files", "download", kept).stdout == "kept"
