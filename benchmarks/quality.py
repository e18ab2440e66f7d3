"""How well similar images are found: precision at 10 and mean average precision, where labels say what is similar."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vectors import unit_vectors


def precision_and_map(vectors: npt.NDArray[np.float32], labels: Sequence[str]) -> tuple[float, float]:
    """Return P@10 and mAP of cosine search: each of `vectors` (n, dim) is a query, itself left out.

    P@10 is the share of the ten nearest that have the query's label; mAP is over the full rankings, queries whose label nobody
    shares left out. Both 0…1.
    """
    units = unit_vectors(vectors)
    names = np.asarray(labels)
    precisions, averages = [], []
    for place, similarities in enumerate(units @ unit for unit in units):
        order = np.argsort(-similarities, kind="stable")
        relevant = (names == names[place])[order[order != place]]
        precisions.append(relevant[:10].mean())
        ranks = np.flatnonzero(relevant) + 1
        if len(ranks):
            averages.append((np.arange(1, len(ranks) + 1) / ranks).mean())
    return float(np.mean(precisions)), float(np.mean(averages))
