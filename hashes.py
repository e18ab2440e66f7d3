"""Perceptual hashes of pictures in all eight orientations, and the pairs whose hashes are nearly equal, by table.

A picture that was turned or mirrored is often not among the nearest by vector: of photographs turned by 90° or more a third is
(`docs/duplicates.md`). Its hash in one of eight orientations is that of the original, but for a bit or two. Hashes are cut into
four bands of 16 bits; those that differ by up to three bits have an equal band, which a sorted table finds: no comparison of all
pairs.

Owns hashes. Sources: the library imagehash (phash: signs of the lowest 8 × 8 cosine frequencies against their median); Norouzi,
Punjani and Fleet 2012, "Fast search in Hamming space with multi-index hashing".
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from alignment import ORIENTATIONS, Greys, oriented
from vectors import Ids

Hashes = npt.NDArray[np.uint64]

BANDS, BAND_BITS = 4, 16
MOST_BITS = BANDS - 1
"""Two hashes that differ by no more bits have at least one band in common."""
MOST_IN_BAND = 500
"""More pictures than these in a place of the table are alike in what says nothing (drawings on white); vectors find them."""
AT_A_TIME = 1_000_000


def hash_orientations(small: Greys) -> Hashes:
    """Return the hashes of one small grey (32, 32) in its eight orientations, uint64 (8,); the first is as it stands."""
    import imagehash
    from PIL import Image

    found = []
    for number in range(ORIENTATIONS):
        picture = Image.fromarray(np.ascontiguousarray(oriented(small, number)))
        found.append(np.packbits(imagehash.phash(picture).hash.ravel()).view(">u8")[0])
    return np.array(found, dtype=np.uint64)


def hash_distances(hashes: Hashes, first: Ids, second: Ids) -> npt.NDArray[np.int16]:
    """Return the least number of bits by which any orientation of one differs from the other, int16 (p,)."""
    return np.asarray(np.bitwise_count(hashes[first] ^ hashes[second][:, :1]).min(axis=1), dtype=np.int16)


def nearly_equal(hashes: Hashes, places: Ids) -> Iterator[tuple[Ids, Ids]]:
    """Yield pairs of `places` (rows of `hashes` (n, 8)), the lower first, whose hashes differ by up to three bits.

    A pair may come more than once. Pictures that lie with more than 500 others in a band of the table are not looked up there.
    """
    wanted = hashes[places]
    for band in range(BANDS):
        keys = (wanted >> np.uint64(BAND_BITS * band)).astype(np.uint16)
        order = np.argsort(keys[:, 0], kind="stable")
        table = keys[order, 0]
        for number in range(ORIENTATIONS):
            low = np.searchsorted(table, keys[:, number], "left")
            counts = np.searchsorted(table, keys[:, number], "right") - low
            counts[counts > MOST_IN_BAND] = 0
            for start, stop in _portions(counts):
                asked = np.repeat(np.arange(start, stop), counts[start:stop])
                offsets = np.arange(len(asked)) - np.repeat(
                    np.cumsum(counts[start:stop]) - counts[start:stop], counts[start:stop]
                )
                found = order[low[asked] + offsets]
                near = np.bitwise_count(wanted[asked, number] ^ wanted[found, 0]) <= MOST_BITS
                first, second = places[asked[near]], places[found[near]]
                kept = first != second
                yield np.minimum(first, second)[kept], np.maximum(first, second)[kept]


def _portions(counts: Ids) -> Iterator[tuple[int, int]]:
    """Cut a sequence into slices (start, stop) whose `counts` come to about `AT_A_TIME`."""
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + AT_A_TIME, "right")))
        yield start, stop
        start = stop
