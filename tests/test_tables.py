"""Tables in blocks: three formats, exact numbers, and files that appear whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from errors import ExportError, MissingPackageError
from tables import FORMATS, open_table, whole_file

NAMES = ("name", "distance", "rank")
BLOCKS: list[dict[str, Any]] = [
    {"name": ['a, "b"', "ü\n雪"], "distance": np.array([0.1, np.nan], np.float32), "rank": np.array([1, 2**60])},
    {"name": [], "distance": np.empty(0, np.float32), "rank": np.empty(0, np.int64)},
    {"name": np.array(["\x01"], dtype=object), "distance": np.array([1e-9], np.float32), "rank": np.array([-1])},
]
ROWS = [('a, "b"', 0.1, 1), ("ü\n雪", None, 2**60), ("\x01", 1e-9, -1)]


def write(path: Path, table_format: str, blocks: list[dict[str, Any]]) -> None:
    with open_table(path, table_format, NAMES) as table:
        for block in blocks:
            table.write(block)


def read(path: Path) -> list[tuple[object, ...]]:
    if path.suffix == ".csv":
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return [(r["name"], float(r["distance"]) if r["distance"] else None, int(r["rank"])) for r in rows]
    if path.suffix == ".json":
        return [tuple(row[name] for name in NAMES) for row in json.loads(path.read_text(encoding="utf-8"))]
    import pyarrow.parquet

    rows = pyarrow.parquet.read_table(path).to_pylist()
    return [
        (r["name"], None if np.isnan(r["distance"]) else float(str(np.float32(r["distance"]))), r["rank"]) for r in rows
    ]


@pytest.mark.parametrize("table_format", FORMATS)
def test_what_was_written_in_blocks_reads_back_as_it_was(table_format: str, tmp_path: Path) -> None:
    path = tmp_path / f"table.{table_format}"
    write(path, table_format, BLOCKS)
    assert read(path) == ROWS


@pytest.mark.parametrize("table_format", FORMATS)
@pytest.mark.parametrize("blocks", [[], [BLOCKS[1]]])
def test_a_table_of_no_rows_is_a_table(table_format: str, blocks: list[dict[str, Any]], tmp_path: Path) -> None:
    path = tmp_path / f"table.{table_format}"
    write(path, table_format, blocks)
    assert read(path) == []


@pytest.mark.parametrize("table_format", FORMATS)
def test_a_stream_gets_what_a_file_gets_and_stays_open(table_format: str, tmp_path: Path) -> None:
    stream = io.BytesIO()
    with open_table(stream, table_format, NAMES) as table:
        table.write(BLOCKS[0])
    path = tmp_path / f"table.{table_format}"
    path.write_bytes(stream.getvalue())
    assert read(path) == ROWS[:2]


@pytest.mark.parametrize("table_format", FORMATS)
def test_a_table_that_breaks_off_leaves_what_was_there_before(table_format: str, tmp_path: Path) -> None:
    path = tmp_path / f"table.{table_format}"
    path.write_text("before")
    with pytest.raises(KeyError, match="distance"):
        write(path, table_format, [BLOCKS[0], {"name": []}])
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == [path.name]


def test_columns_of_unequal_length_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="zip"):
        write(tmp_path / "t.csv", "csv", [{"name": ["a"], "distance": np.empty(0, np.float32), "rank": np.array([1])}])


def test_a_format_that_is_none_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="xlsx"):
        write(tmp_path / "t.xlsx", "xlsx", [])


def test_parquet_without_its_package_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingPackageError, match=r"requirements/tables\.txt"):
        write(tmp_path / "t.parquet", "parquet", [])
    assert os.listdir(tmp_path) == []


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"missing/t\.csv cannot be written: No such file or directory"):
        write(tmp_path / "missing" / "t.csv", "csv", [])
    with pytest.raises(ExportError, match="it is no file"), whole_file(tmp_path):
        pytest.fail("a folder was opened as a file")


def test_a_link_goes_on_pointing_at_the_file_that_is_written(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with whole_file(tmp_path / "link") as stream:
        stream.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"new"


def test_a_stream_that_breaks_off_is_not_closed_and_does_not_look_whole() -> None:
    for table_format in ("csv", "json"):
        stream = io.BytesIO()
        with pytest.raises(KeyError), open_table(stream, table_format, NAMES) as table:
            table.write({"name": ["a"]})
        assert not stream.closed
        assert b"]" not in stream.getvalue()
