"""Learning a projection from labels: what it is worth, and that it says so."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from errors import LabelError
from evaluation import rate_vectors
from projection import MAY_LOSE, STRENGTHS, USUAL_STRENGTH, Change, Labelled, Learned, learn
from tests.labelled_collection import CLASSES, confusing_vectors
from vectors import Vectors, unit_vectors

Ids = npt.NDArray[np.int64]
TAUGHT = 6
"""Of the classes, those with labels."""
DIM = 16


@functools.cache
def material() -> tuple[Vectors, Ids, npt.NDArray[np.bool_]]:
    """Unit vectors, their classes, and which have labels: half of the images of the first classes."""
    vectors, classes = confusing_vectors(CLASSES * 24)
    return unit_vectors(vectors), classes, (classes < TAUGHT) & (np.arange(len(classes)) // CLASSES % 2 == 0)


def squares_of(units: Vectors) -> npt.NDArray[np.float64]:
    wide = units.astype(np.float64)
    return np.asarray(wide.T @ wide)


@functools.cache
def learned(*, others: bool = True) -> Learned:
    units, classes, known = material()
    rest = classes[~known]
    other = np.where(others & (rest >= TAUGHT), rest, -1)
    return learn(Labelled(units[known], classes[known], units[~known], other), squares_of(units), DIM)


def quality(vectors: Vectors, chosen: npt.NDArray[np.bool_]) -> float:
    """The mAP of the chosen images among themselves."""
    labels = [str(number) for number in material()[1][chosen]]
    return rate_vectors(vectors[chosen], labels).mean_average_precision.value


def test_labelled_kinds_are_told_apart_and_what_was_never_labelled_stays_as_it_was() -> None:
    units, classes, known = material()
    projected = unit_vectors(units @ learned().matrix)
    asked, unseen = (classes < TAUGHT) & ~known, classes >= TAUGHT
    assert projected.shape[1] == DIM
    assert quality(projected, asked) > quality(units, asked) + 0.05
    assert quality(projected, unseen) > quality(units, unseen) - 0.02


def test_the_report_is_of_photographs_and_classes_that_the_fit_did_not_see() -> None:
    units, classes, known = material()
    taught = learned()
    assert taught.strength in STRENGTHS
    assert taught.held_out is not None
    assert taught.unseen is not None
    assert taught.others is not None
    assert taught.held_out.gain > 0.05
    assert taught.unseen.images == known.sum()
    assert taught.others.classes == CLASSES - TAUGHT
    projected = unit_vectors(units @ taught.matrix)
    asked = (classes < TAUGHT) & ~known
    promised, kept = taught.held_out.gain, quality(projected, asked) - quality(units, asked)
    assert kept > promised / 2


def test_without_other_labels_the_left_out_classes_alone_decide() -> None:
    taught = learned(others=False)
    assert taught.others is None
    assert taught.unseen is not None
    assert taught.unseen.gain > -2 * MAY_LOSE


def test_the_same_labels_give_the_same_matrix() -> None:
    again = learn(*_arguments())
    assert np.array_equal(again.matrix, learned().matrix)
    assert again == Learned(
        again.matrix, *(getattr(learned(), n) for n in ("strength", "held_out", "unseen", "others"))
    )


def _arguments() -> tuple[Labelled, npt.NDArray[np.float64], int]:
    units, classes, known = material()
    rest = classes[~known]
    labelled = Labelled(units[known], classes[known], units[~known], np.where(rest >= TAUGHT, rest, -1))
    return labelled, squares_of(units), DIM


def test_two_classes_are_enough_and_then_no_class_is_left_out() -> None:
    units, classes, _ = material()
    two = classes < 2
    none = np.empty((0, units.shape[1]), np.float32), np.empty(0, np.int64)
    taught = learn(Labelled(units[two], classes[two], *none), squares_of(units[two]), 256)
    assert (taught.strength, taught.unseen, taught.others) == (USUAL_STRENGTH, None, None)
    assert taught.held_out is not None
    assert taught.held_out.gain > 0
    assert taught.matrix.shape == (units.shape[1], units.shape[1])


def test_two_photographs_of_each_class_teach_without_a_figure_to_judge_them_by() -> None:
    units, classes, _ = material()
    few = np.concatenate([np.flatnonzero(classes == number)[:2] for number in range(3)])
    rest = np.flatnonzero(classes >= 3)
    taught = learn(Labelled(units[few], classes[few], units[rest], np.full(len(rest), -1)), squares_of(units), DIM)
    assert (taught.held_out, taught.unseen) == (None, None)


def test_classes_of_equal_photographs_teach_nothing() -> None:
    vectors = unit_vectors(np.repeat(np.eye(3, 8), 4, axis=0))
    none = np.empty((0, 8), np.float32), np.empty(0, np.int64)
    with pytest.raises(LabelError, match="are equal"):
        learn(Labelled(vectors, np.repeat(np.arange(3), 4), *none), squares_of(vectors), 4)


def test_vectors_of_zeros_do_not_spoil_what_is_learnt() -> None:
    units, classes, known = material()
    spoilt = units.copy()
    spoilt[~known] = np.where(np.arange((~known).sum())[:, None] % 9, spoilt[~known], 0)
    rest = classes[~known]
    labelled = Labelled(spoilt[known], classes[known], spoilt[~known], np.where(rest >= TAUGHT, rest, -1))
    taught = learn(labelled, squares_of(spoilt), DIM)
    assert np.isfinite(taught.matrix).all()
    assert taught.others is not None
    assert np.isfinite(taught.others.after)


def test_a_gain_is_what_comes_after_less_what_was_before() -> None:
    assert Change(0.5, 0.75, 10, 2).gain == 0.25


def test_a_strength_by_which_other_kinds_would_lose_is_not_taken() -> None:
    units, classes, known = material()
    # Other kinds differ in those numbers alone that the labels say nothing about.
    told = np.random.default_rng(3).normal(size=(CLASSES, units.shape[1] // 2)).astype(np.float32)
    vectors = units.copy()
    other = classes >= TAUGHT
    vectors[other, : units.shape[1] // 2] = np.random.default_rng(4).normal(size=(other.sum(), 16)) / 6
    vectors[other, units.shape[1] // 2 :] += told[classes[other]] / 4
    vectors = unit_vectors(vectors)
    rest = classes[~known]
    labelled = Labelled(vectors[known], classes[known], vectors[~known], np.where(rest >= TAUGHT, rest, -1))
    taught = learn(labelled, squares_of(vectors), vectors.shape[1])
    freely = learn(replace(labelled, other_classes=np.full(len(rest), -1)), squares_of(vectors), vectors.shape[1])
    assert taught.others is not None
    assert (freely.strength, taught.strength) == (max(STRENGTHS), min(STRENGTHS)), taught
