"""Nearest neighbours of vectors: what other modules and users import, and `python ann.py`.

An index only proposes candidates; the answer's order and distances always come from the stored vectors themselves, so every
kind gives the same distances and differs only in which neighbours it may miss. Annoy takes no items after its build and numbers
them densely: answers come from *built index + exact scan of rows added since - deleted ids*.

Does not own vectors on disk (`store`), networks, or what a match looks like. The code lies in `indexes/`.
"""

from __future__ import annotations

from indexes.building import (
    IndexManifest,
    IndexOptions,
    Reduction,
    SelfTest,
    build_index,
    is_complete,
    load_index,
)
from indexes.distances import METRICS, Metric
from indexes.graph import Edges, similarity_graph
from indexes.index import Index, Neighbours
from indexes.kinds import available_kinds

__all__ = [
    "METRICS",
    "Edges",
    "Index",
    "IndexManifest",
    "IndexOptions",
    "Metric",
    "Neighbours",
    "Reduction",
    "SelfTest",
    "available_kinds",
    "build_index",
    "is_complete",
    "load_index",
    "similarity_graph",
]


if __name__ == "__main__":
    import sys

    from commands.ann import main

    sys.exit(main(sys.argv[1:]))
