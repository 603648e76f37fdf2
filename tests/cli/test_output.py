"""JSON, tables and sizes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmengine_core.cli.output import as_json, count_text, fields_of, size_text, table
from llmengine_core.types.models import ModelStatus
from llmengine_core.types.progress import Progress

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(plain, st.sampled_from([None, 2]))
def test_plain_values_come_back(value: object, indent: int | None) -> None:
    assert json.loads(as_json(value, indent=indent)) == value


def test_the_types_of_the_core_have_a_form() -> None:
    value = {
        "p": Progress("a", "load", 1),
        "s": frozenset({"b", "a"}),
        "f": Path("x"),
        "e": ModelStatus.READY,
    }
    assert json.loads(as_json(value)) == {
        "p": {"subject": "a", "phase": "load", "done": 1, "total": None, "unit": ""},
        "s": ["a", "b"],
        "f": "x",
        "e": "READY",
    }


def test_what_has_no_form_is_an_error() -> None:
    with pytest.raises(TypeError, match="object"):
        as_json(object())


words = st.text(st.characters(categories=["L", "N"]), min_size=1)


@given(st.lists(st.tuples(words, words, words), min_size=1))
def test_every_row_keeps_its_cells_in_line(rows: list[tuple[str, str, str]]) -> None:
    lines = list(table(("A", "B", "C"), rows))
    assert [line.split() for line in lines] == [["A", "B", "C"], *map(list, rows)]
    starts = [lines[0].index(letter) for letter in "ABC"]
    for line, row in zip(lines[1:], rows, strict=True):
        assert all(line[start:].startswith(cell) for start, cell in zip(starts, row, strict=True))


def test_a_table_without_rows_is_nothing() -> None:
    assert list(table(("A",), [])) == []


def test_names_command_no_terminal() -> None:
    evil = "a\x1b[31mb\n\x9bc"
    assert list(table(("A",), [(evil,)])) == ["A", "a?[31mb??c"]
    assert list(fields_of({"name": evil})) == ["name  a?[31mb\n?c"]


def test_fields_without_a_value_are_left_out() -> None:
    assert list(fields_of({"name": "n", "reason": None, "id": 0})) == ["name    n", "id      0"]


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (94_600_000, "94.6 MB"),
        (5e9, "5.0 GB"),
        (7e15, "7000.0 TB"),
    ],
)
def test_sizes_are_for_people(size: float, text: str) -> None:
    assert size_text(size) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(134_515_008, "135M"), (999e6, "999M"), (999_600_000, "1B"), (6_738_415_616, "6.74B"), (1.2e12, "1.2T")],
)
def test_parameters_are_counted_in_millions_and_billions(count: float, text: str) -> None:
    assert count_text(count) == text
