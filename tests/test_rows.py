"""Rows of answers: numpy, text, pandas and files."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import numpy as np
import pytest

from ann import Neighbours
from errors import MissingPackageError
from search.rows import ROW_DTYPE, Rows, make_rows, open_rows, rows_text, rows_to_pandas, write_rows


@pytest.fixture
def rows() -> Rows:
    ids = np.array([[3, 1, 2], [2, -1, -1]], dtype=np.int64)
    distances = np.array([[0, 0.25, 0.5], [0.125, np.inf, np.inf]], dtype=np.float32)
    return make_rows(["möwe.jpg", 7], Neighbours(ids, distances), {1: "a\nb", 2: "鳥.jpg", 3: "möwe.jpg"})


def test_rows_are_in_order_of_the_queries_and_of_rank_without_padding(rows: Rows) -> None:
    assert rows.dtype == ROW_DTYPE
    assert rows.tolist() == [
        ("möwe.jpg", "möwe.jpg", 0.0, 1),
        ("möwe.jpg", "a\nb", 0.25, 2),
        ("möwe.jpg", "鳥.jpg", 0.5, 3),
        (7, "鳥.jpg", 0.125, 1),
    ]


def test_an_image_taken_out_since_leaves_no_gap_in_the_ranks() -> None:
    neighbours = Neighbours(np.array([[3, 1, 2]]), np.array([[0, 0.25, 0.5]], dtype=np.float32))
    assert make_rows(["q"], neighbours, {3: "c", 2: "b"}).tolist() == [("q", "c", 0.0, 1), ("q", "b", 0.5, 2)]
    assert len(make_rows(["q"], neighbours, {})) == 0


def test_the_table_keeps_its_columns_whatever_the_names_are(rows: Rows) -> None:
    assert rows_text(rows).splitlines() == [
        "query_label  reference_label  distance  rank",
        "möwe.jpg     möwe.jpg           0.0000     1",
        "möwe.jpg     a\\nb               0.2500     2",
        "möwe.jpg     鳥.jpg             0.5000     3",
        "7            鳥.jpg             0.1250     1",
    ]


def test_a_parquet_file_of_no_rows_has_the_types_of_one_with_rows(rows: Rows) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    empty, full = io.BytesIO(), io.BytesIO()
    with open_rows(empty, "parquet"):
        pass
    write_rows(rows, full, "parquet")
    assert parquet.read_table(empty).schema == parquet.read_table(full).schema


def test_rows_become_a_pandas_frame_or_say_what_is_missing(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    frame: Any = rows_to_pandas(rows)
    assert list(frame.columns) == list(ROW_DTYPE.names or ())
    assert frame["rank"].tolist() == [1, 2, 3, 1]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingPackageError, match=r"requirements/tables\.txt"):
        rows_to_pandas(rows)


def test_rows_are_written_with_labels_as_text(rows: Rows) -> None:
    stream = io.BytesIO()
    write_rows(rows, stream, "json")
    assert json.loads(stream.getvalue())[3] == {
        "query_label": "7",
        "reference_label": "鳥.jpg",
        "distance": 0.125,
        "rank": 1,
    }
