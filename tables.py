"""Columns written in blocks as CSV, JSON or Parquet; and files and folders that appear whole or not at all.

Owns the three formats and how a result reaches its place. Does not own what the columns mean. Memory is that of one block,
whatever the number of rows.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

import numpy as np
import numpy.typing as npt

from errors import ExportError, MissingPackageError

Column = npt.NDArray[Any] | Sequence[str]
"""One column of a block: an array of numbers, or texts (a list, or an array of them)."""

FORMATS = ("csv", "json", "parquet")


class Table(Protocol):
    """A table that is being written; `open_table` finishes and closes it."""

    def __init__(self, stream: BinaryIO, columns: Sequence[str]) -> None: ...

    def write(self, columns: Mapping[str, Column]) -> None:
        """Append a block: every column, each of the same length. Numbers are arrays, so that a block of no rows has types too."""
        ...

    def finish(self) -> None:
        """Write what comes after the last block."""
        ...

    def close(self) -> None:
        """Let go of the stream, and leave it open."""
        ...


@contextlib.contextmanager
def open_table(target: Path | BinaryIO, table_format: str, columns: Sequence[str]) -> Iterator[Table]:
    """Give a table to write blocks of `columns` to: into a file, which appears when the block ends well, or a binary stream.

    CSV has a line of titles; JSON is one list of objects, a line each; numbers that are not finite are empty, or null.
    Raises `ValueError` for a format that is none, `MissingPackageError` for Parquet without pyarrow, `ExportError` where
    the file cannot be written.
    """
    if table_format not in FORMATS:
        raise ValueError(f"There is no table format {table_format!r}, there are: {', '.join(FORMATS)}.")
    if table_format == "parquet":
        _check_pyarrow()
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(whole_file(target)) if isinstance(target, Path) else target
        table = _KINDS[table_format](stream, columns)
        stack.callback(table.close)
        yield table
        table.finish()


def _check_pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(
            "Parquet files need the package pyarrow, which is not installed: pip install -r requirements/tables.txt"
        ) from error


def _texts(values: Column) -> list[str]:
    """Return a column as texts; numbers in the fewest digits that read back as the same number, those not finite as ''."""
    if not isinstance(values, np.ndarray):
        return [str(value) for value in values]
    texts = [str(value) for value in values]
    if values.dtype.kind == "f":
        for place in np.flatnonzero(~np.isfinite(values)).tolist():
            texts[place] = ""
    return texts


class _Csv:
    def __init__(self, stream: BinaryIO, columns: Sequence[str]) -> None:
        self._text = io.TextIOWrapper(stream, encoding="utf-8", newline="", write_through=True)
        self._writer = csv.writer(self._text, lineterminator="\n")
        self._columns = columns
        self._writer.writerow(columns)

    def write(self, columns: Mapping[str, Column]) -> None:
        self._writer.writerows(zip(*(_texts(columns[name]) for name in self._columns), strict=True))

    def finish(self) -> None:
        self._text.flush()

    def close(self) -> None:
        self._text.detach()


class _Json:
    def __init__(self, stream: BinaryIO, columns: Sequence[str]) -> None:
        self._stream = stream
        self._columns = columns
        self._before = "[\n"

    def write(self, columns: Mapping[str, Column]) -> None:
        values = [self._tokens(name, columns[name]) for name in self._columns]
        lines = ["{" + ", ".join(row) + "}" for row in zip(*values, strict=True)]
        if lines:
            self._stream.write((self._before + ",\n".join(lines)).encode("utf-8"))
            self._before = ",\n"

    def _tokens(self, name: str, values: Column) -> list[str]:
        title = json.dumps(name) + ": "
        if isinstance(values, np.ndarray) and values.dtype.kind in "iuf":
            return [title + (text or "null") for text in _texts(values)]
        return [title + json.dumps(text, ensure_ascii=False) for text in _texts(values)]

    def finish(self) -> None:
        self._stream.write(b"[]\n" if self._before == "[\n" else b"\n]\n")

    def close(self) -> None:
        """Nothing is held."""


class _Parquet:
    def __init__(self, stream: BinaryIO, columns: Sequence[str]) -> None:
        self._stream = stream
        self._columns = columns
        self._writer: Any = None

    def write(self, columns: Mapping[str, Column]) -> None:
        import pyarrow
        import pyarrow.parquet

        table = pyarrow.table({name: _arrow(columns[name]) for name in self._columns})
        if self._writer is None:
            self._writer = pyarrow.parquet.ParquetWriter(self._stream, table.schema)
        self._writer.write_table(table)

    def finish(self) -> None:
        if self._writer is None:
            self.write({name: [] for name in self._columns})

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


_KINDS: dict[str, type[Table]] = {"csv": _Csv, "json": _Json, "parquet": _Parquet}


def _arrow(values: Column) -> Any:
    import pyarrow

    if isinstance(values, np.ndarray) and values.dtype.kind in "iuf":
        return pyarrow.array(values)
    return pyarrow.array(_texts(values), type=pyarrow.string())


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Give a stream whose bytes become the file `path` when the block ends well, in one step; else nothing is left of them.

    Raises `ExportError` when the file cannot be written.
    """
    target = Path(os.path.realpath(path))  # a link stays one
    if target.exists() and not target.is_file():
        raise ExportError(f"{path} cannot be written: it is no file. Name another one.")
    temporary = target.with_name(f".{target.name[:100]}.{os.getpid()}.tmp")
    with _reporting_unwritable(path):
        try:
            with open(temporary, "wb") as file:
                yield cast(BinaryIO, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give a folder to fill that becomes `path` when the block ends well, in one step; else nothing is left of it.

    Raises `ExportError` when it cannot be written, or is there already and not empty: nothing is mixed or overwritten.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ExportError(f"{path} is there already and is not an empty folder. Name another one, or remove it.")
    temporary = target.with_name(f".{target.name[:100]}.{os.getpid()}.tmp")
    with _reporting_unwritable(path):
        try:
            temporary.mkdir()
            yield temporary
            os.replace(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def _reporting_unwritable(path: Path) -> Iterator[None]:
    """Turn what the operating system says while `path` is written into `ExportError`."""
    try:
        yield
    except OSError as error:
        raise ExportError(f"{path} cannot be written: {error.strerror or error}. Nothing is left of it.") from error
