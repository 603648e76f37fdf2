"""Rows of training files (F01), held against the standard library's CSV reader."""

from __future__ import annotations

import csv
import io
import time
import tracemalloc
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmengine_core.testing.strategies import CsvFile, csvs
from llmengine_core.training_rows import (
    AT_ONCE,
    LONGEST_FIELD,
    LONGEST_ROW,
    MOST_ROWS,
    RowError,
    RowReader,
    TrainingRow,
)


def rows(*pieces: bytes) -> list[TrainingRow]:
    reader = RowReader()
    found = [row for piece in pieces for row in reader.feed(piece)]
    return found + list(reader.end())


def cut(content: bytes, cuts: Iterable[int]) -> list[bytes]:
    places = sorted({0, len(content), *(each % (len(content) + 1) for each in cuts)})
    return [content[start:stop] for start, stop in pairwise(places)]


def refused(content: bytes, match: str) -> None:
    with pytest.raises(RowError, match=match):
        rows(content)


class Eager(RowReader):
    """Looks at every piece at once, as small as it may be."""

    def feed(self, piece: bytes) -> Iterable[TrainingRow]:  # type: ignore[override]
        self._bytes += piece
        return self._rows(final=False)


@given(csvs(), st.lists(st.integers(0, 500), max_size=20))
def test_f01_rows_are_what_was_written_however_the_bytes_are_cut(file: CsvFile, cuts: list[int]) -> None:
    assert [(row.prompt, row.response) for row in rows(*cut(file.content, cuts))] == list(file.rows)
    eager = Eager()
    found = [row for piece in cut(file.content, cuts) for row in eager.feed(piece)]
    found += eager.end()
    assert [(row.prompt, row.response) for row in found] == list(file.rows)


def by_the_library(text: str) -> list[tuple[str, str]] | None:
    """What the standard library reads in it; None where a file is to be refused."""
    try:
        header, *found = [
            row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row not in ([], [""])
        ]
    except (csv.Error, ValueError):
        return None
    if header.count("prompt") != 1 or header.count("response") != 1 or not found:
        return None
    if any(len(row) != len(header) for row in found):
        return None
    pairs = [(row[header.index("prompt")], row[header.index("response")]) for row in found]
    return pairs if all(all(pair) for pair in pairs) else None


@given(st.text(st.sampled_from('ab",\r\n'), max_size=30), st.integers(0, 40))
@example('"a""b",c\r\n\r\nd,"e\r\n"', 7)
@example("a,b\r\rc,d", 3)
@example('a,"b"c', 3)
@example('a,"b', 3)
def test_f01_any_text_is_read_as_the_library_reads_it(body: str, at: int) -> None:
    text = "prompt,response\n" + body
    content = text.encode()
    expected = by_the_library(text)
    eager = Eager()
    try:
        found = [row for piece in (content[:at], content[at:]) for row in eager.feed(piece)]
        found += eager.end()
    except RowError:
        assert expected is None
    else:
        assert [(row.prompt, row.response) for row in found] == expected


HEAD = b"prompt,response\n"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is empty; the first line must name"),
        (b"\xef\xbb\xbf\n\n", "it is empty"),
        (HEAD, "no rows below its header"),
        (b"prompt;response\na;b\n", "no column 'prompt', but 'prompt;response'.*with commas between"),
        (b"input,output\na,b\n", "no column 'prompt', but 'input', 'output'"),
        (b"Prompt,response\na,b\n", "no column 'prompt'"),
        (b"prompt,answer\na,b\n", "no column 'response'"),
        (b"prompt,response,prompt\na,b,c\n", "more than one column 'prompt'"),
        (b'{"prompt": "a", "response": "b"}\n', "no column 'prompt'"),
        (HEAD + b"a,b\nc\n", r"row 2 \(line 3\): it has 1 fields, and the header has 2"),
        (HEAD + b"a,b\n\n\nc,d,e\n", r"row 2 \(line 5\): it has 3 fields"),
        (HEAD + b'"a\n\na",b\nc,\n', r"row 2 \(line 5\): its response is empty"),
        (HEAD + b',"b"\n', r"row 1 \(line 2\): its prompt is empty"),
        (HEAD + b'a,"b"c\n', r"row 1 \(line 2\): 'c' follows the closing quote of field 2"),
        (HEAD + b'a,b\nc,"d\ne,f\n', r"row 2 \(line 3\): a quote that begins in it is never closed"),
        (HEAD + b"a,b\nc,\xe9\n", r"row 2 \(line 3\): the byte 0xe9 in it is no UTF-8"),
        (HEAD + b"a,b\r\xe9,d\n", r"row 2 \(line 3\): the byte 0xe9"),
        (b"\xef\xbb\xbf" + HEAD + b"a,b\nc,\xe9\n", r"row 2 \(line 3\): the byte 0xe9"),
        (HEAD + b"a,b\nc,\xc3", r"row 2 \(line 3\): the byte 0xc3"),
        ("prompt,response\na,b\n".encode("utf-16"), r"header \(line 1\): the byte 0xff in it is no UTF-8"),
        (HEAD + b"a,\xed\xa0\x80\n", "row 1"),
        (
            HEAD + b"a," + b"x" * (LONGEST_FIELD + 1) + b"\n",
            r"row 1 \(line 2\): field 2 has 1,000,001 characters",
        ),
        (
            HEAD + b"a,b\n" * 5 + b'"' + b"x\n" * LONGEST_ROW,
            r"row 6 \(line 7\): it has more than 4,000,000 characters",
        ),
        (HEAD + b"," * 2000 + b"\n", r"row 1 \(line 2\): it has more than 1000 fields"),
        (HEAD + b"a,b\n" * (MOST_ROWS + 1), r"row 100,001 \(line 100,002\): at most 100,000 rows"),
    ],
)
def test_f01_what_is_wrong_is_said_with_its_row(content: bytes, why: str) -> None:
    refused(content, why)


@given(csvs(min_rows=1), st.data())
def test_f01_a_byte_that_is_no_utf8_is_found_in_its_row(file: CsvFile, data: st.DataObject) -> None:
    content = file.content.removeprefix(b"\xef\xbb\xbf")
    at = data.draw(
        st.integers(0, len(content)).filter(lambda at: at == len(content) or content[at] & 0xC0 != 0x80)
    )
    before = list(csv.reader(io.StringIO(content[:at].decode() + "x", newline="")))
    with pytest.raises(RowError, match="0xff in it is no UTF-8") as caught:
        rows(content[:at] + b"\xff" + content[at:])
    row = len(before) - 1
    where = f"row {row}" if row else "header"
    line = content[:at].decode().replace("\r\n", "\n").replace("\r", "\n").count("\n") + 1
    assert f"{where} (line {line})" in str(caught.value)


def test_f01_many_rows_are_read_in_bounded_memory() -> None:
    row = b'"what is ""it"", and\nwhy","' + b"because " * 100 + b'"\r\n'
    reader = RowReader()
    tracemalloc.start()
    try:
        count = sum(1 for piece in [HEAD] for _ in reader.feed(piece))
        for _ in range(100):
            count += sum(1 for _ in reader.feed(row * 100))
        count += sum(1 for _ in reader.end())
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert count == reader.count == 10_000


def test_f01_a_field_that_drips_in_costs_no_more_than_it_is_long() -> None:
    reader = RowReader()
    list(reader.feed(HEAD + b'a,"'))
    began = time.process_time()
    for _ in range(LONGEST_FIELD // 4):
        assert list(reader.feed(b"abcd")) == []
    assert time.process_time() - began < 20
    assert [len(row.response) for row in [*reader.feed(b'"\n'), *reader.end()]] == [LONGEST_FIELD]
    assert AT_ONCE < LONGEST_FIELD
