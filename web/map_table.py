"""The map as its page reads it: one file of numbers for all points, so that 100,000 of them are there in a moment.

Owns how places, labels, colours and cells become bytes. Does not own where pictures stand (`views/map.py`), atlases
(`atlases.py`) or addresses (`web/map.py`).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from atlases import Atlases
from store import Record

NONE = 65_535
"""In a column of uint16: the picture has no label, or no cell in an atlas."""

MOST_LABELS = 65_535
NO_COLOUR = 255
GOLDEN = 0.618033988749895
"""Steps of the golden section keep the colours of neighbouring numbers far apart, however many there are."""

SHAPE_STEPS_AN_OCTAVE = 64

Ids = npt.NDArray[np.int64]
Places = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Column:
    """One array of the file: `count` numbers of `type` from byte `offset` on, little-endian."""

    name: str
    type: str
    offset: int
    count: int


@dataclass(frozen=True)
class PointTable:
    """All points as one file, its `columns`, the `labels` that its column of labels counts, and a `digest` of it all."""

    content: bytes
    columns: list[Column]
    labels: list[str]
    digest: str

    def column(self, name: str) -> npt.NDArray[Any]:
        """Return the numbers of one column."""
        there = next(column for column in self.columns if column.name == name)
        return np.frombuffer(self.content, np.dtype(there.type).newbyteorder("<"), there.count, there.offset)

    def ratios(self) -> npt.NDArray[np.float64]:
        """Return the width / height of each picture, float64 (n,)."""
        ratios: npt.NDArray[np.float64] = 2 ** ((self.column("shapes") - 128.0) / SHAPE_STEPS_AN_OCTAVE)
        return ratios


def point_table(
    ids: Ids,
    layouts: Mapping[str, Places],
    records: Sequence[Record],
    *,
    groups: Ids | None = None,
    atlases: Atlases | None = None,
) -> PointTable:
    """Return the file of the images `ids` int64 (n,), ascending, with their places float32 (n, 2) in 0…1 in each of `layouts`.

    Columns: `ids` uint32; `layout-<name>` uint16 x and y of 65,535ths; `labels` uint16; `cells` uint16; `colours` uint8, 255ths
    of the circle of hues; `shapes` uint8, 128 + 64 · log2(width / height). Colours are by label, where all labels are equal by
    `groups` int64 (n,), -1 for none.
    """
    labels, codes = _label_codes(records)
    shown = codes if len(labels) > 1 or groups is None else groups
    arrays: dict[str, npt.NDArray[np.unsignedinteger]] = {"ids": ids.astype("<u4")}
    for name, places in layouts.items():
        arrays[f"layout-{name}"] = np.rint(np.clip(places, 0, 1) * 65_535).astype("<u2").ravel()
    arrays["labels"] = np.where(codes < 0, NONE, codes).astype("<u2")
    arrays["cells"] = _cells(ids, atlases)
    arrays["colours"] = np.where(shown < 0, NO_COLOUR, (shown * GOLDEN % 1 * NO_COLOUR)).astype(np.uint8)
    arrays["shapes"] = _shapes(records)
    columns, content = [], bytearray()
    for name, array in arrays.items():
        columns.append(Column(name, array.dtype.name, len(content), len(array)))
        content += array.tobytes()
    digest = hashlib.sha256(bytes(content) + "\n".join(labels).encode()).hexdigest()[:16]
    return PointTable(bytes(content), columns, labels, digest)


def _label_codes(records: Sequence[Record]) -> tuple[list[str], Ids]:
    """Return the labels, the commonest first, and the place of each record's among them, int64 (n,), -1 for none."""
    counts = Counter(record.label for record in records if record.label)
    labels = sorted(counts, key=lambda label: (-counts[label], label))[:MOST_LABELS]
    places = {label: place for place, label in enumerate(labels)}
    return labels, np.array([places.get(record.label or "", -1) for record in records], dtype=np.int64)


def _cells(ids: Ids, atlases: Atlases | None) -> npt.NDArray[np.uint16]:
    cells = np.full(len(ids), NONE, dtype="<u2")
    if atlases is not None and len(ids):
        places = np.minimum(np.searchsorted(ids, atlases.ids), len(ids) - 1)
        there = ids[places] == atlases.ids
        cells[places[there]] = np.flatnonzero(there)
    return cells


def _shapes(records: Sequence[Record]) -> npt.NDArray[np.uint8]:
    ratios = np.array([(record.width or 4) / (record.height or 3) for record in records], dtype=np.float64)
    steps: npt.NDArray[np.float64] = np.rint(128 + SHAPE_STEPS_AN_OCTAVE * np.log2(ratios))
    return np.clip(steps, 0, 255).astype(np.uint8)
