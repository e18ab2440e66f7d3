"""How far vectors are apart: the distances that can be asked for, and what each says where it is not defined.

Owns their names, and why others of scipy's are not offered. Does not own which vectors are compared (`index.py`) nor memory:
callers hand over blocks. Source: `scipy.spatial.distance.cdist`, with whose numbers these agree.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from errors import QueryError

Metric = Literal[
    "cosine",
    "euclidean",
    "sqeuclidean",
    "cityblock",
    "chebyshev",
    "canberra",
    "correlation",
    "braycurtis",
    "jensenshannon",
]
METRICS: tuple[Metric, ...] = get_args(Metric)
OF_SHARES = ("braycurtis", "jensenshannon")
"""What compares amounts, such as the scores of classes: numbers below 0 are none."""
UNDEFINED = 1.0
"""The distance where none is defined: of a vector of zeros by its direction, or of equal numbers by their correlation."""

_OF_YES_AND_NO = (
    *("dice", "hamming", "jaccard", "kulczynski1", "matching"),
    *("rogerstanimoto", "russellrao", "sokalmichener", "sokalsneath", "yule"),
)
_OF_THE_WHOLE = ("mahalanobis", "seuclidean")

_Wide = npt.NDArray[np.float64]


def check_metric(metric: str) -> None:
    """Raise `QueryError` unless `metric` is one of `METRICS`: it says why where scipy has a distance of that name."""
    if metric in METRICS:
        return
    said = f"The metric must be one of {', '.join(METRICS)}, not {str(metric)[:40]!r}"
    if metric in _OF_YES_AND_NO:
        raise QueryError(f"{said}, which compares vectors of yes and no: those of a network are numbers.")
    if metric in _OF_THE_WHOLE:
        raise QueryError(f"{said}, which needs the variances of the whole collection besides the two vectors.")
    if metric == "minkowski":
        raise QueryError(f"{said}, which needs an exponent: it is cityblock for 1, euclidean for 2.")
    raise QueryError(f"{said}.")


def distances_between(queries: npt.NDArray[Any], vectors: npt.NDArray[Any], metric: Metric) -> _Wide:
    """Return the distances float64 (q, m) of `queries` (q, dim) from `vectors` (m, dim), any real types, as scipy has them.

    Where scipy has none, it is `UNDEFINED`. Raises `QueryError` for numbers below 0 where `metric` is of shares.
    """
    from scipy.spatial.distance import cdist

    if metric in OF_SHARES:
        _check_shares(queries, "the query holds", metric)
        _check_shares(vectors, "this collection's hold", metric)
    if metric in ("cosine", "correlation"):
        apart: _Wide = 1 - _directions(queries, metric) @ _directions(vectors, metric).T
        return apart.clip(0, 2)
    measured: _Wide = cdist(queries, vectors, metric)
    if metric == "jensenshannon":
        measured[np.isnan(measured)] = 0  # of nearly equal vectors it is the root of what rounding may bring below 0
    measured[~np.isfinite(measured)] = UNDEFINED
    return measured


def distances_from(query: _Wide, vectors: _Wide, metric: Metric) -> _Wide:
    """Return the distances float64 (m,) of one `query` (dim,) from `vectors` (m, dim): the same wherever a vector stands.

    Raises `QueryError` as `distances_between` does.
    """
    apart: _Wide
    if metric in ("cosine", "correlation"):
        # Not `@`: its last digits depend on where in the block a vector stands.
        apart = 1 - np.einsum("ij,j->i", _directions(vectors, metric), _directions(query[None], metric)[0])
        return apart.clip(0, 2)
    apart = distances_between(query[None], vectors, metric)[0]
    return apart


def _directions(vectors: npt.NDArray[Any], metric: Metric) -> _Wide:
    """Return `vectors` (n, dim) at length 1 as float64; for correlations, those of how their numbers differ from their mean.

    What has no direction stays zero, and so is at distance 1 from everything.
    """
    wide = vectors.astype(np.float64)
    if metric == "correlation":
        constant = np.ptp(wide, axis=1) == 0  # else rounding would give it a direction
        wide -= wide.mean(axis=1, keepdims=True)
        wide[constant] = 0
    lengths = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    lengths[lengths == 0] = 1
    wide /= lengths[:, None]
    return wide


def _check_shares(vectors: npt.NDArray[Any], whose: str, metric: Metric) -> None:
    least = vectors.min(initial=0)
    if least < 0:
        raise QueryError(
            f"The distance {metric} compares vectors without numbers below 0, and {whose} {least:.4g}. Choose another distance, "
            "such as cosine or cityblock, or search by scores: `python img2vec.py --layer scores`, with a network that has them."
        )
