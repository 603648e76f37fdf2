"""Files through the facade: L01."""

from __future__ import annotations

import base64
import gzip
import io
import os
import tempfile
from pathlib import Path
from typing import IO, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmengine import File
from llmengine.errors import BadRequestError, NotFoundError
from llmengine.uploads import PIECE, Upload

pytestmark = pytest.mark.usefixtures("engine")

CONTENT = "prompt,response\r\nhällo,wörld\n".encode()


def stored(file: Any) -> bytes:
    """What was uploaded, as bytes."""
    response = File.download(File.upload(file).id)
    try:
        return base64.b64decode(response.content, validate=True)
    except ValueError:
        return response.content.encode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "training dataset.csv"
    found.write_bytes(CONTENT)
    return found


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("rb", {}),
        ("rb", {"buffering": 0}),
        ("r+b", {}),
        ("r", {}),
        ("r", {"encoding": "utf-8"}),
        ("r", {"encoding": "utf-8-sig"}),
        ("r", {"encoding": "latin-1", "newline": ""}),
        ("r+", {"encoding": "utf-8"}),
    ],
)
def test_l01_an_open_file_is_uploaded_as_the_bytes_it_has(
    path: Path, mode: str, options: dict[str, Any]
) -> None:
    with open(path, mode, **options) as file:
        file_id = File.upload(file).id
        assert not file.closed
    assert file_id.startswith("file-")
    response = File.get(file_id)
    assert (response.id, response.filename, response.size) == (file_id, "training dataset.csv", len(CONTENT))
    assert File.download(file_id).content == CONTENT.decode()


def test_l01_a_text_file_is_uploaded_from_where_it_was_read_to(path: Path) -> None:
    with open(path, encoding="utf-8", newline="") as file:
        assert file.readline() == "prompt,response\r\n"
        assert file.read(2) == "hä"
        assert stored(file) == "llo,wörld\n".encode()
    with open(path, "rb") as binary:
        binary.seek(7)
        assert stored(binary) == CONTENT[7:]


@given(
    st.text(max_size=200), st.integers(0, 200), st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"])
)
def test_l01_any_position_of_a_text_file_is_kept_or_refused(text: str, read: int, encoding: str) -> None:
    raw = text.encode(encoding, errors="replace")
    with tempfile.TemporaryFile("w+b") as binary:
        binary.write(raw)
        binary.seek(0)
        with io.TextIOWrapper(binary, encoding=encoding, newline="") as file:
            before = file.read(read)
            try:
                upload = Upload(file)
            except BadRequestError:
                return
            rest = b"".join(iter(upload._piece, b""))
            assert before + rest.decode(
                encoding.replace("-sig", "").replace("utf-16", "utf-16-le")
            ) == raw.decode(encoding) or (not before and rest == raw)


@pytest.mark.parametrize(
    "file",
    [io.BytesIO(CONTENT), io.StringIO(CONTENT.decode(), newline=""), io.BufferedReader(io.BytesIO(CONTENT))],
)
def test_l01_files_in_memory_are_files(file: IO[Any]) -> None:
    file_id = File.upload(file).id
    assert File.get(file_id).filename == "file"
    assert File.download(file_id).content == CONTENT.decode()


def test_l01_a_compressed_file_is_uploaded_as_it_reads(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(CONTENT))
    with gzip.open(path, "rt", encoding="utf-8") as file:
        assert stored(file) == CONTENT


def test_l01_a_pipe_is_a_file() -> None:
    reader, writer = os.pipe()
    os.write(writer, CONTENT)
    os.close(writer)
    with open(reader, encoding="utf-8") as file:
        assert stored(file) == CONTENT


@pytest.mark.parametrize("size", [0, 1, PIECE, PIECE + 1, 3 * PIECE])
def test_l01_any_size_is_stored_in_full(size: int) -> None:
    file_id = File.upload(io.BytesIO(b"a" * size)).id
    assert File.get(file_id).size == size
    assert File.download(file_id).content == "a" * size


def test_l01_a_file_is_read_piece_by_piece() -> None:
    class Endless(io.RawIOBase):
        asked: list[int] = []  # noqa: RUF012 - one test's

        def readable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            self.asked.append(size)
            return b"a" * size if len(self.asked) <= 5 else b""

    file = Endless()
    assert File.get(File.upload(file).id).size == 5 * PIECE  # type: ignore[arg-type]
    assert set(file.asked) == {PIECE}


@given(st.binary(max_size=100))
def test_l01_what_is_not_utf8_is_downloaded_as_base64(content: bytes) -> None:
    downloaded = File.download(File.upload(io.BytesIO(content)).id).content
    try:
        assert downloaded == content.decode()
    except UnicodeDecodeError:
        assert base64.b64decode(downloaded, validate=True) == content


class Named(io.BytesIO):
    def __init__(self, name: object) -> None:
        super().__init__(b"a")
        self.name = name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a.csv", "a.csv"),
        ("/etc/passwd", "passwd"),
        ("C:\\data\\a.csv", "a.csv"),
        (Path("b") / "a.csv", "a.csv"),
        (b"b/a.csv", "a.csv"),
        ("../..", "file"),
        ("a/", "file"),
        (".", "file"),
        ("", "file"),
        (3, "file"),
        (None, "file"),
        ("a\n\x1b[31mb\udcff.csv", "a[31mb.csv"),
        ("a" * 300, "a" * 255),
    ],
)
def test_l01_a_filename_is_for_display_only(name: object, shown: str) -> None:
    assert File.get(File.upload(Named(name)).id).filename == shown


@pytest.mark.parametrize("file", ["a.csv", b"a", Path("a.csv"), None, 5])
def test_l01_what_is_no_open_file_is_refused(file: Any) -> None:
    with pytest.raises(BadRequestError, match=r"file is .*open\("):
        File.upload(file)


def test_l01_a_file_that_cannot_be_read_is_refused(path: Path) -> None:
    with open(path, "rb") as file:
        pass
    with pytest.raises(BadRequestError, match="closed"):
        File.upload(file)
    with open(path, "a", encoding="utf-8") as writing, pytest.raises(BadRequestError, match="writing"):
        File.upload(writing)
    with open(path, encoding="utf-8") as iterated:
        next(iterated)
        with pytest.raises(BadRequestError, match="telling position"):
            File.upload(iterated)


class Breaking(io.RawIOBase):
    """Breaks after its first piece."""

    def __init__(self, failure: Exception | str | None) -> None:
        self.pieces: list[Any] = [b"a", failure]

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> Any:
        piece = self.pieces.pop(0)
        if isinstance(piece, Exception):
            raise piece
        return piece


@pytest.mark.parametrize("failure", [OSError("the disk is gone"), None, "a lone \ud800"])
def test_l01_an_upload_that_breaks_off_leaves_nothing(failure: Any) -> None:
    before = File.list().files
    with pytest.raises(BadRequestError, match="can't be read"):
        File.upload(Breaking(failure))  # type: ignore[arg-type]
    assert File.list().files == before


def test_l01_list_and_delete() -> None:
    file_id = File.upload(io.BytesIO(b"a")).id
    assert file_id in [file.id for file in File.list().files]
    assert File.delete(file_id).deleted is True
    assert file_id not in [file.id for file in File.list().files]
    for call in (File.get, File.download, File.delete):
        with pytest.raises(NotFoundError, match=file_id):
            call(file_id)


@pytest.mark.parametrize("file_id", ["", None, 5, "\ud800"])
def test_l01_an_id_is_a_text(file_id: Any) -> None:
    for call in (File.get, File.download, File.delete):
        with pytest.raises(BadRequestError, match="file_id"):
            call(file_id)
