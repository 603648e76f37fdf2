"""Training files by reference (F01): uploaded ones, and those on web servers."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import itertools
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from tests.servers.web import Asked, Web, redirect, sends, web

from llmengine_core.engine import Engine
from llmengine_core.errors import BadRequestError, NotFoundError, ServerError
from llmengine_core.services.training_files import MOST_BYTES, TrainingFiles
from llmengine_core.testing.strategies import CsvFile, csvs
from llmengine_core.urls import UrlPolicy

HERE = UrlPolicy(("127.0.0.1",), lookup=lambda host: ["127.0.0.1"])
ROWS = b'\xef\xbb\xbfnote,response,prompt\r\n1,"A\nB",Which?\r\n2,C,"Who, ""you""?"\r\n'
FOUND = [{"prompt": "Which?", "response": "A\nB"}, {"prompt": 'Who, "you"?', "response": "C"}]
OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
async def server() -> AsyncIterator[Web]:
    async with web({"/rows.csv": ROWS}) as server:
        yield server


@pytest.fixture
def taking(shared: Engine) -> TrainingFiles:
    return TrainingFiles(shared.files, HERE)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "rows.jsonl"


async def uploaded(engine: Engine, content: bytes, caller: str = "root") -> str:
    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(content), 1 << 20):
            yield content[at : at + (1 << 20)]

    return (await engine.files.upload(pieces(), filename="rows.csv", caller=caller)).id


def rows_in(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def is_clean(target: Path) -> bool:
    """Whether nothing was left."""
    return list(target.parent.iterdir()) == []


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


async def test_f01_an_uploaded_file_is_taken_by_its_id(
    shared: Engine, taking: TrainingFiles, target: Path
) -> None:
    found = await taking.take(await uploaded(shared, ROWS), target)
    assert rows_in(target) == FOUND
    assert (found.path, found.rows, found.sha256) == (target, 2, hashlib.sha256(ROWS).hexdigest())
    assert mode_of(target) == 0o600
    assert list(target.parent.iterdir()) == [target]


async def test_f01_a_file_on_a_web_server_is_taken_by_its_url(
    server: Web, taking: TrainingFiles, target: Path
) -> None:
    server.files["/here"] = redirect("/rows.csv?x")
    found = await taking.take(server.url("/here?token=s3cret"), target)
    assert rows_in(target) == FOUND
    assert found.sha256 == hashlib.sha256(ROWS).hexdigest()


@given(csvs())
async def test_f01_what_was_written_is_what_is_kept(shared: Engine, file: CsvFile) -> None:
    target = shared.settings.home / "rows.jsonl"
    found = await TrainingFiles(shared.files, HERE).take(await uploaded(shared, file.content), target)
    kept = [(row["prompt"], row["response"]) for row in rows_in(target)]
    assert kept == list(file.rows)
    assert found.rows == len(file.rows)


async def test_f01_a_file_of_somebody_elses_isnt_there(
    shared: Engine, taking: TrainingFiles, target: Path
) -> None:
    file_id = await uploaded(shared, ROWS, caller="you")
    for reference in (file_id, "file-unknown"):
        with pytest.raises(NotFoundError):
            await taking.take(reference, target, caller="me")
    assert is_clean(target)


async def test_f01_what_is_wrong_is_said_with_field_and_row(
    shared: Engine, server: Web, taking: TrainingFiles, target: Path
) -> None:
    wrong = b"prompt,response\na,b\nc\n"
    server.files["/wrong"] = wrong
    file_id = await uploaded(shared, wrong)
    with pytest.raises(
        BadRequestError, match=rf"validation_file='{file_id}': row 2 \(line 3\): it has 1 fields"
    ):
        await taking.take(file_id, target, field="validation_file")
    with pytest.raises(BadRequestError, match=r"training_file='http://files\.test.*/wrong': row 2") as caught:
        await taking.take(server.url("/wrong?token=s3cret"), target)
    assert "s3cret" not in str(caught.value)
    assert is_clean(target)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://169.254.169.254/rows.csv", "training_file .* leads to 169.254.169.254"),
        ("file:///etc/passwd", "scheme 'file'"),
        ("ftp://a.example/rows.csv", "scheme 'ftp'"),
        ("s3://bucket/rows.csv", "scheme 's3'"),
        ("rows.csv", "scheme ''"),
        ("", "scheme ''"),
    ],
)
async def test_f01_only_public_web_servers_are_asked(
    taking: TrainingFiles, target: Path, url: str, why: str
) -> None:
    with pytest.raises(BadRequestError, match=why):
        await taking.take(url, target)
    assert is_clean(target)


async def test_f01_a_name_that_leads_inside_is_refused_with_the_field(shared: Engine, target: Path) -> None:
    inside = TrainingFiles(shared.files, UrlPolicy(lookup=lambda host: ["10.0.0.1"]))
    with pytest.raises(BadRequestError, match=r"validation_file 'http://a\.example/x' leads to 10\.0\.0\.1"):
        await inside.take("http://a.example/x", target, field="validation_file")


async def test_f01_a_server_that_refuses_or_leads_inside_is_told(
    server: Web, taking: TrainingFiles, target: Path
) -> None:
    server.files["/in"] = redirect("http://169.254.169.254/latest/meta-data/")
    with pytest.raises(BadRequestError, match=r"the redirect of .* leads to 169\.254"):
        await taking.take(server.url("/in"), target)
    with pytest.raises(BadRequestError, match=r"answered 404 \(Not Found\); it must be public"):
        await taking.take(server.url("/gone"), target)
    assert is_clean(target)


async def test_f01_a_fetch_that_breaks_off_begins_anew(
    server: Web, taking: TrainingFiles, target: Path
) -> None:
    server.break_after = [10, 30]
    assert (await taking.take(server.url("/rows.csv"), target)).rows == 2
    server.break_after = [10, 30, 40]
    absent = target.with_name("absent")
    with pytest.raises(ServerError, match="3 times in a row"):
        await taking.take(server.url("/rows.csv"), absent)
    assert list(target.parent.iterdir()) == [target]


async def test_f01_a_file_that_is_too_large_is_refused(
    server: Web, taking: TrainingFiles, target: Path
) -> None:
    server.files["/large"] = sends(OK + b"Content-Length: %d\r\n\r\n" % (MOST_BYTES + 1))
    with pytest.raises(BadRequestError, match="at most 1,073,741,824 are taken"):
        await taking.take(server.url("/large"), target)
    assert is_clean(target)


async def test_f01_a_wrong_row_ends_the_fetch(server: Web, taking: TrainingFiles, target: Path) -> None:
    async def endless(asked: Asked) -> None:
        await asked.send(OK + b"Transfer-Encoding: chunked\r\n\r\n")
        for number in itertools.count():
            line = b"a,b\n" * 5000 if number else b"prompt,response\na,b,c\n"
            await asked.send(b"%x\r\n%b\r\n" % (len(line), line))

    server.files["/endless"] = endless
    with pytest.raises(BadRequestError, match="row 1 "):
        await taking.take(server.url("/endless"), target)
    assert await asyncio.wait_for(server.hung_up.get(), 20) == "/endless"


async def test_f01_a_take_that_is_cancelled_leaves_nothing(
    server: Web, taking: TrainingFiles, target: Path
) -> None:
    asked = asyncio.Event()

    async def stall(exchange: Asked) -> None:
        await exchange.send(OK + b"Content-Length: 1000\r\n\r\nprompt,response\n")
        asked.set()
        await asyncio.Event().wait()

    server.files["/stall"] = stall
    task = asyncio.create_task(taking.take(server.url("/stall"), target))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert is_clean(target)


async def test_f01_a_disk_that_is_full_is_told_and_what_was_there_stays(
    server: Web, taking: TrainingFiles, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = await taking.take(server.url("/rows.csv"), target)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ServerError, match=r"can't be kept in .*: No space left on device"):
        await taking.take(server.url("/rows.csv"), target)
    assert list(target.parent.iterdir()) == [target]
    assert rows_in(found.path) == FOUND
