"""Training files: CSV text, and what it says."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import Literal

from hypothesis import strategies as st

from llmengine_core.testing.strategies.requests import texts

__all__ = ["CsvFile", "csvs"]


@dataclass(frozen=True, slots=True)
class CsvFile:
    """A training file as rule F01 has it, and its rows."""

    content: bytes
    """UTF-8, with or without a byte order mark; quoted line ends and other columns may be in it."""
    rows: tuple[tuple[str, str], ...]
    """(prompt, response) in order."""


@st.composite
def csvs(draw: st.DrawFn, *, min_rows: int = 1, max_rows: int = 20) -> CsvFile:
    """Sound CSV files with the columns ``prompt`` and ``response``, in any order and among others."""
    columns = draw(
        st.permutations(["prompt", "response", *draw(st.sampled_from([[], ["note"], ["id", "note"]]))])
    )
    cell = texts(max_size=20).map(lambda text: text.replace("\r", "\n")).filter(bool)
    rows = draw(st.lists(st.tuples(cell, cell), min_size=min_rows, max_size=max_rows))
    out = io.StringIO()
    ends = draw(st.sampled_from(["\n", "\r\n"]))
    quoting: Literal[0, 1] = csv.QUOTE_ALL if draw(st.booleans()) else csv.QUOTE_MINIMAL
    writer = csv.DictWriter(out, columns, restval="-", lineterminator=ends, quoting=quoting)
    writer.writeheader()
    writer.writerows({"prompt": prompt, "response": response} for prompt, response in rows)
    mark = draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    return CsvFile(mark + out.getvalue().encode(), tuple(rows))
