"""Rows of training files (F01): CSV with the columns ``prompt`` and ``response``, read piece by piece.

Memory is bounded whatever comes, and what is wrong is said with its row and line. The format is RFC 4180's, as Python
and spreadsheets write it: UTF-8 with or without a byte order mark, lines that end in LF, CRLF or CR, line ends and
doubled quotes inside quoted fields. Blank lines are passed over, other columns are left alone.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["MOST_ROWS", "RowError", "RowReader", "TrainingRow"]

MOST_ROWS = 100_000
LONGEST_FIELD = 1_000_000
"""Characters of one field."""
LONGEST_ROW = 4_000_000
"""Characters of one row."""
MOST_COLUMNS = 1000
AT_ONCE = 64 * 1024
"""Bytes that are gathered before they are looked at."""
PROMPT, RESPONSE = "prompt", "response"
FIELD_END = re.compile(r"[,\r\n]")
SHOWN = 40


class RowError(Exception):
    """Something is wrong with a training file; the message says in which row."""


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """One example to learn from."""

    prompt: str
    response: str


class RowReader:
    """Finds the rows in the bytes of a CSV file, however those are cut into pieces."""

    def __init__(self) -> None:
        self.count = 0
        """Rows so far, without the header."""
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._bytes = bytearray()
        self._text = ""
        self._line = 1
        self._header: list[str] | None = None

    def feed(self, piece: bytes) -> Iterator[TrainingRow]:
        """The rows that are complete now. Take all before feeding more. Raises ``RowError``."""
        self._bytes += piece
        if len(self._bytes) >= AT_ONCE:
            yield from self._rows(final=False)

    def end(self) -> Iterator[TrainingRow]:
        """The last rows, once there is no more. Raises ``RowError``, also where there was none at all."""
        yield from self._rows(final=True)
        if self._header is None:
            raise RowError(f"it is empty; the first line must name the columns {PROMPT} and {RESPONSE}")
        if not self.count:
            raise RowError("it has no rows below its header")

    def _rows(self, *, final: bool) -> Iterator[TrainingRow]:
        wrong = self._decode(final)
        at = 0
        while at < len(self._text) and (found := self._record(at, final and not wrong)) is not None:
            fields, stop = found
            row = self._taken(fields)
            self._line += _lines(self._text[at:stop])
            at = stop
            if row is not None:
                yield row
        self._text = self._text[at:]
        if wrong:
            self._line += _lines(self._text)
            raise self._wrong(wrong)
        if len(self._text) > LONGEST_ROW:
            raise self._wrong(
                f"it has more than {LONGEST_ROW:,} characters; is a quote not closed, that begins in it?"
            )

    def _decode(self, final: bool) -> str | None:
        """Have more text; what is wrong where it can't be had to its end."""
        held, self._bytes = bytes(self._bytes), bytearray()
        try:
            self._text += self._decoder.decode(held, final)
        except UnicodeDecodeError as error:
            self._text += error.object[: error.start].decode()
            if self._text.endswith("\r"):
                self._text += "\ufffd"  # what follows is no "\n": the line ends here
            return f"the byte 0x{error.object[error.start]:02x} in it is no UTF-8; save the file as UTF-8"
        return None

    def _record(self, at: int, final: bool) -> tuple[list[str], int] | None:
        """The fields of the record that begins at ``at``, and where the next one does; None where more must come."""
        text = self._text
        fields: list[str] = []
        while True:
            if text.startswith('"', at):
                stop = self._closing(at, final)
                if stop is None:
                    return None
                field = text[at + 1 : stop].replace('""', '"')
                at = stop + 1
                if at < len(text) and text[at] not in ",\r\n":
                    raise self._wrong(
                        f"{text[at]!r} follows the closing quote of field {len(fields) + 1}; write a quote in a quoted "
                        'field twice ("")'
                    )
            else:
                end = FIELD_END.search(text, at)
                if end is None and not final:
                    return None
                stop = len(text) if end is None else end.start()
                field = text[at:stop]
                at = stop
            if len(field) > LONGEST_FIELD:
                raise self._wrong(
                    f"field {len(fields) + 1} has {len(field):,} characters; at most {LONGEST_FIELD:,} are allowed"
                )
            fields.append(field)
            if len(fields) > MOST_COLUMNS:
                raise self._wrong(f"it has more than {MOST_COLUMNS} fields")
            if at == len(text):
                return fields, at
            if text[at] != ",":
                return self._ended(fields, at, final)
            at += 1

    def _closing(self, at: int, final: bool) -> int | None:
        """Where the quoted field that begins at ``at`` is closed; None where more must come."""
        text = self._text
        stop = at + 1
        while (stop := text.find('"', stop)) != -1:
            if stop + 1 == len(text):
                return stop if final else None
            if text[stop + 1] != '"':
                return stop
            stop += 2
        if final:
            raise self._wrong(
                'a quote that begins in it is never closed; write a quote in a quoted field twice ("")'
            )
        return None

    def _ended(self, fields: list[str], at: int, final: bool) -> tuple[list[str], int] | None:
        """Behind the end of a line."""
        if self._text[at] == "\r":
            if at + 1 == len(self._text) and not final:
                return None
            if self._text.startswith("\n", at + 1):
                return fields, at + 2
        return fields, at + 1

    def _taken(self, fields: list[str]) -> TrainingRow | None:
        """The row that a record is; None for the header and for blank lines."""
        if fields == [""]:
            return None
        if self._header is None:
            self._header = self._checked(fields)
            return None
        if self.count == MOST_ROWS:
            raise self._wrong(f"at most {MOST_ROWS:,} rows are allowed")
        if len(fields) != len(self._header):
            raise self._wrong(
                f"it has {len(fields)} fields, and the header has {len(self._header)}; put fields that hold commas or "
                "line ends into quotes"
            )
        named = dict(zip(self._header, fields, strict=True))
        for column in (PROMPT, RESPONSE):
            if not named[column]:
                raise self._wrong(f"its {column} is empty; give it a text, or leave the row out")
        self.count += 1
        return TrainingRow(named[PROMPT], named[RESPONSE])

    def _checked(self, header: list[str]) -> list[str]:
        """A header that has what it must."""
        for column in (PROMPT, RESPONSE):
            if header.count(column) == 1:
                continue
            shown = ", ".join(repr(each[:SHOWN]) for each in header[:10])
            many = "more than one" if column in header else "no"
            raise RowError(
                f"its header has {many} column {column!r}, but {shown}; "
                f"the first line must name the columns {PROMPT} and {RESPONSE}, with commas between"
            )
        return header

    def _wrong(self, what: str) -> RowError:
        where = "header" if self._header is None else f"row {self.count + 1:,}"
        return RowError(f"{where} (line {self._line:,}): {what}")


def _lines(text: str) -> int:
    """How many lines end in a text."""
    return text.count("\n") + text.count("\r") - text.count("\r\n")
