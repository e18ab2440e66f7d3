"""Who learns from which photographs: some are learnt from, some tell when to stop, some are held out to judge by.

Owns the split by class, and which other images of the collection are looked at without their labels. Equal contents were made
one before (`labelled.py`), so none is in two parts.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from errors import CollectionMissingError
from finetuning.training import Photograph
from store import Record, open_store
from vectors import Ids

UNSEEN = 1_000
"""Images of classes that were not learnt which the report looks at, at most, by chance."""


@dataclass(frozen=True)
class Parts:
    """Places of photographs, int64, ascending: each is in one of the three."""

    train: Ids
    validation: Ids
    held_out: Ids


@dataclass(frozen=True)
class Company:
    """Other images of the collection: `unlabelled` ones that training sees, `unseen` ones that the report judges by."""

    unlabelled: tuple[Photograph, ...]
    unseen: tuple[Photograph, ...]
    unseen_labels: tuple[str, ...]


def least_photographs(held_out: float) -> int:
    """Return how many photographs each class must have."""
    return 3 if held_out else 2


def split(labels: Sequence[str], *, validation: float, held_out: float, seed: int) -> Parts:
    """Split photographs by their `labels`: of each class the shares `validation` and `held_out`, at least one each, one left.

    With a `held_out` of 0 none is. The same labels and seed give the same parts. Raises `ValueError` for a class of too few.
    """
    names = np.array(labels)
    random = np.random.default_rng(seed)
    train: list[int] = []
    stop: list[int] = []
    judge: list[int] = []
    for name in np.unique(names):
        places = random.permutation(np.flatnonzero(names == name)).tolist()
        if len(places) < least_photographs(held_out):
            raise ValueError(f"{name!r} has {len(places)} photographs")
        judged = min(max(1, round(held_out * len(places))), len(places) - 2) if held_out else 0
        stopping = min(max(1, round(validation * len(places))), len(places) - judged - 1)
        judge += places[:judged]
        stop += places[judged : judged + stopping]
        train += places[judged + stopping :]
    return Parts(*(np.array(sorted(places), dtype=np.int64) for places in (train, stop, judge)))


def choose_company(
    folder: Path, photographs: Sequence[Photograph], classes: Sequence[str], *, unlabelled: int, seed: int
) -> Company:
    """Choose from the collection in `folder`, by chance, images that are none of `photographs`; none without a collection.

    Training sees `unlabelled` at most. Unseen are images of labels that are not among `classes`, others than training sees.
    """
    try:
        with contextlib.closing(open_store(folder)) as store:
            records = [record for record in store.all_records() if record.error_code is None]
    except CollectionMissingError:
        return Company((), (), ())
    labelled = {photograph.sha256 for photograph in photographs}
    others = list({record.sha256: record for record in records if record.sha256 not in labelled}.values())
    shuffled = [others[place] for place in np.random.default_rng(seed).permutation(len(others)).tolist()]
    strange = (record for record in shuffled if record.label not in {*classes, None} and _is_there(record))
    unseen = _judgeable(list(itertools.islice(strange, min(UNSEEN, len(others) // 2))))
    judged = {record.sha256 for record in unseen}
    rest = (record for record in shuffled if record.sha256 not in judged and _is_there(record))
    seen = list(itertools.islice(rest, unlabelled))
    return Company(_photographs(seen), _photographs(unseen), tuple(str(record.label) for record in unseen))


def _judgeable(records: Sequence[Record]) -> list[Record]:
    """Return `records` without those whose label no other has; none where one label is left."""
    counts = Counter(record.label for record in records)
    kept = [record for record in records if counts[record.label] > 1]
    return kept if len({record.label for record in kept}) > 1 else []


def _is_there(record: Record) -> bool:
    """Tell whether the file of an image is there, as far as its size tells: a time alone may change with a copy of the disk."""
    try:
        return record.has_file and os.stat(record.path).st_size == record.size
    except OSError:
        return False


def _photographs(records: Sequence[Record]) -> tuple[Photograph, ...]:
    return tuple(Photograph(record.path, record.sha256 or b"") for record in records)
