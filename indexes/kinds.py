"""The libraries that propose candidates: Annoy and usearch, each over dense item numbers 0…n-1.

Owns how each is built, opened and asked. Does not own which images the numbers mean, nor the order of an answer (`index.py`).
Sources: Annoy (github.com/spotify/annoy), HNSW in usearch (github.com/unum-cloud/usearch).
"""

from __future__ import annotations

import importlib.util
import math
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from vectors import Ids, Vectors

SEED = 20_150_625


class Candidates(Protocol):
    """A built index over dense item numbers 0…n-1."""

    def search(self, query: Vectors, count: int, effort: float) -> Ids:
        """Return up to `count` item numbers, int64, for one unit vector float32 (dim,), with `effort` times the usual effort."""
        ...


class Annoy:
    """A forest of random projections."""

    EFFORTS = (1_000, 2_000, 5_000, 10_000, 15_000, 20_000, 30_000, 50_000)
    LOOKED_AT = 1
    """Vectors compared with the query for each unit of effort, about."""

    def __init__(self, path: Path, dim: int, search_k: int) -> None:
        from annoy import AnnoyIndex

        self._index = AnnoyIndex(dim, "angular")
        self._index.load(str(path))
        self.search_k = search_k

    def search(self, query: Vectors, count: int, effort: float) -> Ids:
        # search_k bounds how many items are looked at: asking for more of them must not find fewer of the nearest.
        search_k = max(int(effort * self.search_k), 2 * count) if self.search_k > 0 else -1
        return np.array(self._index.get_nns_by_vector(query, count, search_k), dtype=np.int64)

    @staticmethod
    def build(vectors: Iterator[Vectors], dim: int, path: Path, trees: int) -> None:
        from annoy import AnnoyIndex

        index = AnnoyIndex(dim, "angular")
        index.set_seed(SEED)
        index.on_disk_build(str(path))
        item = 0
        for block in vectors:
            for vector in block:
                index.add_item(item, vector)
                item += 1
        index.build(trees, n_jobs=1)  # n_jobs=-1 does not repeat exactly, whatever the seed


class Usearch:
    """A hierarchical graph of near neighbours (HNSW), its vectors in bfloat16."""

    EFFORTS = (64, 128, 256, 512)
    LOOKED_AT = 16

    def __init__(self, path: Path, dim: int, search_k: int) -> None:
        self._path, self._dim = path, dim
        self._effort = search_k or 128
        self._views: dict[int, Any] = {}
        self._opening = threading.Lock()
        self._view(self._effort)

    def _view(self, effort: int) -> Any:
        """Return the index, opened to be searched with `effort`. The effort is a property of the whole object: changing it would
        slow other threads, and every query after a large one."""
        with self._opening:
            if effort not in self._views:
                # OpenVINO first: usearch brings a C++ library of its own, after which OpenVINO could not read networks any
                # more (usearch 2.26, OpenVINO 2026.4). Without its telemetry, as in backbones/.
                sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
                import openvino  # noqa: F401
                from usearch.index import Index as Hnsw

                opened = Hnsw(ndim=self._dim, metric="cos", dtype="bf16", expansion_search=effort)
                opened.view(str(self._path))
                self._views[effort] = opened
            return self._views[effort]

    def search(self, query: Vectors, count: int, effort: float) -> Ids:
        # At least twice what is wanted, in steps of two, so that few are ever opened.
        steps = max(0, math.ceil(math.log2(2 * count / self._effort)))
        return np.asarray(self._view(self._effort * 2**steps).search(query, count).keys, dtype=np.int64)

    @staticmethod
    def build(vectors: Iterator[Vectors], dim: int, path: Path, trees: int) -> None:
        from usearch.index import Index as Hnsw

        index = Hnsw(ndim=dim, metric="cos", dtype="bf16", expansion_add=200)
        item = 0
        for block in vectors:
            # One thread: side by side, insertions now and then leave a cluster that few paths lead to, and nothing repeats.
            index.add(np.arange(item, item + len(block)), block, threads=1)
            item += len(block)
        index.save(str(path))


KINDS: dict[str, type[Annoy] | type[Usearch]] = {"annoy": Annoy, "usearch": Usearch}


def available_kinds() -> list[str]:
    """Return the kinds of index that can be built here, the preferred first."""
    return [kind for kind in KINDS if importlib.util.find_spec(kind) is not None] + ["exact"]
