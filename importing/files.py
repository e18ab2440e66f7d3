"""Reading files of vectors that other programs wrote: `image_vectors.npz`, and the Yale notebook's folders of text files.

Owns the two formats, in blocks of bounded memory, and what can be wrong with them. Nothing is ever unpickled. Does not own what
becomes of the vectors.

Sources: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html; `image_vectors.npz` (`X`, `Y`) is
Similar-Image-Recommender's; `image_vectors/<image name>.npz`, which is text, is the Yale DHLab's.
"""

from __future__ import annotations

import contextlib
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt

from errors import VectorsFileError
from vectors import Vectors

BLOCK = 1_024
"""Vectors that are held in memory at a time: 8 MB of 2048-d ones."""

ENDING = ".npz"
MAX_TEXT_BYTES = 16_000_000
SAMPLED_TEXTS = 11
"""Text files that vote on the dimension, so that a cut one at the beginning does not decide it."""

FLOAT16_SHARE = 0.01
"""How much of a vector's length rounding to float16 may change: a hundredth is twenty times what it does to usual numbers."""

_ORIGIN = ("backbone", "layer", "weights_sha256", "preprocessing")
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError)


@dataclass(frozen=True)
class Origin:
    """The network that a file says its vectors are of."""

    backbone: str
    layer: str
    weights_sha256: str
    preprocessing: str


@dataclass(frozen=True)
class Block:
    """Some vectors in order: float32 (m, dim), and why those at some places of it cannot be used."""

    vectors: Vectors
    reasons: Mapping[int, str]


class VectorsSource(Protocol):
    """A file or folder of vectors whose shapes are sound: `names`, `labels` (None: no label) and blocks have one order."""

    title: str
    names: list[str]
    labels: list[str | None]
    dim: int
    origin: Origin | None

    def blocks(self) -> Iterator[Block]:
        """Yield the vectors. Raises `VectorsFileError` where the file is damaged."""
        ...


def open_vectors(path: Path) -> VectorsSource:
    """Open a file or folder of vectors and check its shapes. Raises `VectorsFileError`."""
    return _TextVectors(path) if path.is_dir() else _NpzVectors(path)


def unusable(vectors: npt.NDArray[Any]) -> dict[int, str]:
    """Return why some of `vectors` (m, dim) cannot be kept, which is as float16, by place."""
    wide = np.asarray(vectors, dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        lost = wide.astype(np.float16).astype(np.float64) - wide
        kept = np.linalg.norm(lost, axis=1) <= FLOAT16_SHARE * np.linalg.norm(wide, axis=1)
    finite = np.isfinite(wide).all(axis=1)
    reasons = dict.fromkeys(np.flatnonzero(~finite).tolist(), "The vector has NaN or infinite numbers.")
    for place in np.flatnonzero(finite & ~kept).tolist():
        greatest = np.abs(wide[place]).max()
        reasons[place] = (
            f"Vectors are kept as float16, which cannot hold this one: its greatest number is {greatest:.3g}, and float16 ends "
            "at 65,504 and is exact from about 0.0001. Scale all vectors by the same factor."
        )
    return reasons


class ArrayVectors:
    """Vectors (n, dim) held in memory, as a source."""

    def __init__(self, title: str, names: Sequence[str], vectors: npt.NDArray[Any]) -> None:
        if vectors.ndim != 2 or 0 in vectors.shape:
            raise VectorsFileError(
                f"The vectors have the shape {vectors.shape}, but must have one a row: (n, dimension)."
            )
        self.title = title
        self.names = list(names)
        self.labels: list[str | None] = [None] * len(vectors)
        self.dim = int(vectors.shape[1])
        self.origin: Origin | None = None
        self._vectors = vectors

    def blocks(self) -> Iterator[Block]:
        for start in range(0, len(self._vectors), BLOCK):
            yield checked(self._vectors[start : start + BLOCK])


class _NpzVectors:
    def __init__(self, path: Path) -> None:
        self._path = path
        self.title = path.stem
        with self._archive() as archive:
            members = self._members(archive)
            self._x = _Array(archive, "X")
            self._count, self.dim = self._shape()
            self._x.check_kind("fiub", "numbers")
            self.names = [name or "" for name in self._strings(archive, "Y")]
            self.labels: list[str | None] = (
                self._strings(archive, "label") if "label" in members else [None] * self._count
            )
            self.origin: Origin | None = self._origin(archive) if members.issuperset(_ORIGIN) else None

    @contextlib.contextmanager
    def _archive(self) -> Iterator[zipfile.ZipFile]:
        try:
            with zipfile.ZipFile(self._path) as archive:
                yield archive
        except FileNotFoundError as error:
            raise VectorsFileError(f"{self._path} is not there. Check the spelling.") from error
        except _ZIP_ERRORS as error:
            raise VectorsFileError(
                f"{self._path} cannot be read as an .npz file, as numpy.savez writes it ({error}). Copy or save it again."
            ) from error

    def _members(self, archive: zipfile.ZipFile) -> set[str]:
        members = {name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")}
        if not {"X", "Y"} <= members:
            raise VectorsFileError(
                f"{self._path} has {', '.join(sorted(members)) or 'no arrays'}, but needs the arrays X (one vector a row) and "
                "Y (the images' names): numpy.savez(file, X=vectors, Y=names)."
            )
        return members

    def _shape(self) -> tuple[int, int]:
        """(n, dim), also of shapes such as (n, 1, 1, dim), as networks give them."""
        shape = self._x.shape
        sides = [side for side in shape[1:] if side != 1] or [1]
        if len(shape) < 2 or len(sides) != 1:
            raise VectorsFileError(
                f"X in {self._path} has the shape {shape}, but must have one vector a row: (n, dimension)."
            )
        if 0 in shape:
            raise VectorsFileError(f"{self._path} is empty: X has the shape {shape}.")
        return shape[0], sides[0]

    def _strings(self, archive: zipfile.ZipFile, name: str) -> list[str | None]:
        """Return an array of texts (or whole numbers), one an image; None for empty ones."""
        array = _Array(archive, name)
        array.check_kind("USiu", "texts")
        if array.size != self._count:
            raise VectorsFileError(
                f"X in {self._path} has {self._count:,} vectors, but {name} has the shape {array.shape}: each vector needs one."
            )
        texts: list[str | None] = []
        for block in array.blocks(archive, self._count, 1):
            values = block[:, 0].tolist()
            texts += [
                (v.decode("utf-8", "backslashreplace") if isinstance(v, bytes) else str(v)) or None for v in values
            ]
        return texts

    def _origin(self, archive: zipfile.ZipFile) -> Origin:
        texts = []
        for name in _ORIGIN:
            array = _Array(archive, name)
            array.check_kind("U", "a text")
            if array.size != 1:
                raise VectorsFileError(f"{name} in {self._path} has the shape {array.shape}, but must be one text.")
            texts.append(str(next(array.blocks(archive, 1, 1))[0, 0]))
        return Origin(*texts)

    def blocks(self) -> Iterator[Block]:
        with self._archive() as archive:
            for block in self._x.blocks(archive, self._count, self.dim):
                yield checked(block)


def checked(block: npt.NDArray[Any]) -> Block:
    """Return vectors (m, dim) of any type of number as a block."""
    reasons = unusable(block)
    with np.errstate(over="ignore"):
        return Block(np.ascontiguousarray(block, dtype=np.float32), reasons)


class _Array:
    """One array of an archive: its header, and its rows in blocks. Errors are those of `_ZIP_ERRORS`."""

    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        self.name = name
        self._member = archive.getinfo(f"{name}.npy")
        with archive.open(self._member) as stream:
            self.shape, self._is_fortran, self.dtype = _read_header(stream)
            self._start = stream.tell()
        self.size = int(np.prod(self.shape, dtype=object))
        if self._member.file_size - self._start != self.size * self.dtype.itemsize and not self.dtype.hasobject:
            raise ValueError(f"{name} is cut off, or longer than it says")

    def check_kind(self, kinds: str, wanted: str) -> None:
        if self.dtype.hasobject:
            raise VectorsFileError(
                f"{self.name} is an array of Python objects, which would have to be unpickled: that can run any program and is "
                f"never done. Save {wanted} instead: {self.name}=numpy.array(list({self.name}))."
            )
        if self.dtype.kind not in kinds:
            raise VectorsFileError(f"{self.name} has the type {self.dtype}, but must be {wanted}.")

    def blocks(self, archive: zipfile.ZipFile, rows: int, columns: int) -> Iterator[npt.NDArray[Any]]:
        """Yield the array as `rows` x `columns`. One in Fortran's order lies column by column: it is read as a whole."""
        step = rows if self._is_fortran else BLOCK
        with archive.open(self._member) as stream:
            stream.read(self._start)
            for start in range(0, rows, step):
                shape = (min(step, rows - start), columns)
                content = _exactly(stream, shape[0] * columns * self.dtype.itemsize)
                yield np.ndarray(shape, self.dtype, content, order="F" if self._is_fortran else "C")


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    return np.lib.format.read_array_header_2_0(stream)


def _exactly(stream: IO[bytes], count: int) -> bytes:
    content = stream.read(count)
    if len(content) < count:
        raise EOFError("it ends too early")
    return content


class _TextVectors:
    """A file an image, called after it, one number a line, in a folder or folders of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.title = folder.resolve().name
        self.origin: Origin | None = None
        self._files = sorted(
            os.path.relpath(os.path.join(parent, name), folder)
            for parent, _, names in os.walk(folder)
            for name in names
            if name.endswith(ENDING)
        )
        self.names = [
            os.fsencode(file).decode("utf-8", "backslashreplace").removesuffix(ENDING) for file in self._files
        ]
        self.labels: list[str | None] = [None] * len(self._files)
        self.dim = self._usual_dimension()

    def _usual_dimension(self) -> int:
        if not self._files:
            raise VectorsFileError(
                f"{self._folder} has no file whose name ends in {ENDING}: a folder of vectors holds a text file for each "
                f"image, called <image name>{ENDING}, with one number a line."
            )
        step = -(-len(self._files) // SAMPLED_TEXTS)
        read = [self._read(file) for file in self._files[::step]]
        lengths = Counter(len(vector) for vector in read if not isinstance(vector, str))
        if not lengths:
            raise VectorsFileError(f"{self._folder} holds no vectors. {self._files[0]}: {read[0]}")
        return lengths.most_common(1)[0][0]

    def _read(self, file: str) -> npt.NDArray[np.float64] | str:
        """Return the numbers of one file, or why there are none."""
        try:
            with open(self._folder / file, "rb") as stream:
                content = stream.read(MAX_TEXT_BYTES + 1)
            if len(content) > MAX_TEXT_BYTES:
                return f"The file has more than {MAX_TEXT_BYTES:,} bytes."
            vector = np.array([float(number) for number in content.split()], dtype=np.float64)
        except OSError as error:
            return f"The file cannot be read: {error.strerror}."
        except ValueError:
            return "The file is not text with one number a line."
        return vector if len(vector) else "The file is empty."

    def blocks(self) -> Iterator[Block]:
        for start in range(0, len(self._files), BLOCK):
            files = self._files[start : start + BLOCK]
            vectors = np.zeros((len(files), self.dim))
            refused: dict[int, str] = {}
            for place, file in enumerate(files):
                read = self._read(file)
                if isinstance(read, str):
                    refused[place] = read
                elif len(read) != self.dim:
                    refused[place] = f"The vector has {len(read):,} numbers, the others have {self.dim:,}."
                else:
                    vectors[place] = read
            block = checked(vectors)
            yield Block(block.vectors, {**block.reasons, **refused})
