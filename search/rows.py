"""The rows that a search answers with, in Turi Create's form: query_label, reference_label, distance, rank.

Owns their numpy type, how they are made of neighbours, and how they become text, a pandas frame or a file. Does not own the
formats of files (`tables`) or the search. Source: `turicreate.image_similarity`, `query`.
"""

from __future__ import annotations

import contextlib
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ann import Neighbours
from errors import MissingPackageError
from indexes.index import DECIMALS
from search.sheet import printable
from tables import open_table

Rows = npt.NDArray[np.void]
"""Rows (n,) of `ROW_DTYPE`: what was asked for, what was found, their distance, and the place from 1."""

ROW_DTYPE = np.dtype(
    [("query_label", object), ("reference_label", object), ("distance", np.float32), ("rank", np.int64)]
)


def make_rows(query_labels: Sequence[object], neighbours: Neighbours, names: Mapping[int, str]) -> Rows:
    """Return the rows of q queries, in their order and by rank; `names` says what each image id found is called.

    Distances are rounded as they were for comparing: equal ones are equal. Places that a query has no neighbour for (id -1),
    and images that `names` does not have (taken out since), make no row.
    """
    known = np.isin(neighbours.ids, np.fromiter(names, dtype=np.int64, count=len(names)))
    queries, places = np.nonzero(known)
    rows = np.empty(len(queries), dtype=ROW_DTYPE)
    rows["query_label"] = [query_labels[query] for query in queries.tolist()]
    rows["reference_label"] = [names[image_id] for image_id in neighbours.ids[queries, places].tolist()]
    rows["distance"] = neighbours.distances[queries, places].round(DECIMALS)
    rows["rank"] = known.cumsum(axis=1)[queries, places]
    return rows


def rows_to_pandas(rows: npt.NDArray[Any]) -> Any:
    """Return any structured array (n,) as a pandas frame. Raises `MissingPackageError` where pandas is not installed."""
    try:
        import pandas
    except ImportError as error:
        raise MissingPackageError(
            "A pandas frame was asked for, but pandas is not installed: pip install -r requirements/tables.txt"
        ) from error
    return pandas.DataFrame({name: rows[name] for name in rows.dtype.names or ()})


def write_rows(rows: Rows, target: Path | BinaryIO, file_format: str) -> None:
    """Write rows as "csv", "json" (a list of objects) or "parquet". Labels become text."""
    with open_rows(target, file_format) as write:
        write(rows)


@contextlib.contextmanager
def open_rows(target: Path | BinaryIO, file_format: str) -> Iterator[Callable[[Rows], None]]:
    """Give what writes rows, in blocks, as `write_rows` does; columns have their types where no block comes, too."""
    names = ROW_DTYPE.names or ()
    with open_table(target, file_format, names) as table:

        def write(rows: Rows) -> None:
            table.write({name: rows[name] for name in names})

        write(np.empty(0, dtype=ROW_DTYPE))
        yield write


def rows_text(rows: Rows) -> str:
    """Return rows as a table for people, its columns aligned; nothing but the titles where there is no row."""
    lines = [tuple(ROW_DTYPE.names or ())]
    lines += [
        (printable(str(query)), printable(str(reference)), f"{distance:.4f}", f"{rank}")
        for query, reference, distance, rank in rows.tolist()
    ]
    widths = [max(_width(line[column]) for line in lines) for column in range(4)]
    return "\n".join(
        "  ".join(
            (
                line[0] + " " * (widths[0] - _width(line[0])),
                line[1] + " " * (widths[1] - _width(line[1])),
                line[2].rjust(widths[2]),
                line[3].rjust(widths[3]),
            )
        )
        for line in lines
    )


def _width(text: str) -> int:
    """Columns of a terminal that `text` takes: East Asian signs take two, marks upon letters none."""
    return sum(
        0 if unicodedata.combining(sign) else 2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text
    )
