"""Learning a projection of stored vectors from labels: linear discriminant analysis, joined with the vector itself.

Owns how the matrix is fitted, and how its strength is chosen and judged on photographs and classes that a fit did not see. Does
not own which labels there are (`reducing`), nor what becomes of the matrix (`autoencoder.Reducer`, `publishing`).

The discriminant axes of k classes are about k numbers, by which those classes are told apart and everything else is lost. So
they do not replace a vector x but stand beside it: [x, b·xA], A scaled so that labelled vectors have length 1 on average. b is
the *strength*. Photographs without a label take part as one more class, "none of these", so that the axes also tell the classes
from all else. Last, the heaviest axes of all stretched vectors are kept, about the origin as by PCA here. All of it is one
matrix.

The larger the strength, the better the classes are told apart and the worse everything that the fit never saw. So it is the one
by which photographs held out are found best while classes held out lose at most `MAY_LOSE`. docs/reducers.md has the figures.
Source: Fisher's discriminant analysis with a shrunk covariance, as scikit-learn's `LinearDiscriminantAnalysis` has it.

    python autoencoder.py --reducer projection
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from errors import LabelError
from vectors import Ids, Vectors

SHRINKAGE = 0.5
STRENGTHS = (0.25, 0.35, 0.5, 0.7, 0.85, 1.0, 1.2, 1.4, 1.7, 2.0)
USUAL_STRENGTH = 0.7
"""Where there are too few classes to hold any out, and no other labels."""
MAY_LOSE = 0.005
"""How much mAP classes that a fit did not see may lose, as measured; with a few hundred photographs twice as much is chance."""
FOLDS = 3
"""Each class is left out of one fit of three, and half of its photographs out of the two others."""
LEAST_CLASSES = 4
MOST_QUERIES = 500
MOST_AMONG = 5_000
"""So many photographs, by chance, are asked about, and among so many."""
SEED = 19_360_901

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Change:
    """mAP 0…1 of `images` photographs of `classes` classes that the fit did not see, by the vectors before and after."""

    before: float
    after: float
    images: int
    classes: int

    @property
    def gain(self) -> float:
        """How much the mAP rises; below 0 where it falls."""
        return self.after - self.before


@dataclass(frozen=True)
class Labelled:
    """What is learnt from: unit vectors float32 `vectors` (n, dim) with the numbers 0…k-1 of their `classes` (n,).

    `unlabelled` (m, dim), which may be none, are other images of the collection. Where something is known of those,
    `other_classes` (m,) has numbers of other classes, else -1: no fit sees these, they tell what becomes of all else.
    """

    vectors: Vectors
    classes: Ids
    unlabelled: Vectors
    other_classes: Ids


@dataclass(frozen=True)
class Learned:
    """A projection: `matrix` float32 (dim, at most the size asked for), its `strength`, and what it is worth (`reducing`)."""

    matrix: Vectors
    strength: float
    held_out: Change | None
    unseen: Change | None
    others: Change | None


def learn(labelled: Labelled, squares: npt.NDArray[np.float64], dim: int) -> Learned:
    """Fit a projection to `dim` numbers at most, of the strength that is best here; the same vectors give the same matrix.

    `squares` float64 (source_dim, source_dim) are the products VᵀV of the unit vectors of the collection, or of a sample: they
    say which axes are heavy. Raises `LabelError` where all photographs of each class are equal.
    """
    axes = _discriminant_axes(labelled.vectors, labelled.classes, labelled.unlabelled)
    heaviest = _matrix(np.empty((len(squares), 0), np.float32), 0.0, squares, dim)
    questions = list(_questions(labelled, axes))
    held_out, unseen, others = (_answers(questions, about, heaviest) for about in ("held_out", "unseen", "others"))
    place = _best_strength(held_out, [answers for answers in (unseen, others) if answers is not None])
    return Learned(
        _matrix(axes, STRENGTHS[place], squares, dim),
        STRENGTHS[place],
        *(None if answers is None else answers.at(place) for answers in (held_out, unseen, others)),
    )


def _discriminant_axes(vectors: Vectors, classes: Ids, unlabelled: Vectors) -> Vectors:
    """Return A float32 (dim, about k): what tells the classes apart, and from the `unlabelled`."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    both = np.concatenate([vectors, unlabelled])
    numbers = np.concatenate([classes, np.full(len(unlabelled), -1, dtype=np.int64)])
    try:
        fitted = LinearDiscriminantAnalysis(solver="eigen", shrinkage=SHRINKAGE).fit(both, numbers)
    except np.linalg.LinAlgError as error:
        raise LabelError(
            "All photographs of each label are equal, so nothing can be learnt of what they have in common. Give each label to "
            "several different photographs."
        ) from error
    axes = np.asarray(fitted.scalings_[:, : len(np.unique(numbers)) - 1], dtype=np.float32)
    scaled: Vectors = axes / np.linalg.norm(vectors @ axes, axis=1).mean()
    return scaled


def _matrix(axes: Vectors, strength: float, squares: npt.NDArray[np.float64], dim: int) -> Vectors:
    """Return float32 (source_dim, at most dim): vectors stretched along `axes`, then turned onto their heaviest axes."""
    from scipy.linalg import eigh

    along = strength * axes.astype(np.float64)
    squared = squares @ along
    products = np.block([[squares, squared], [squared.T, along.T @ squared]])
    size = len(products)
    weights, turned = eigh(products, subset_by_index=[max(0, size - dim), size - 1])
    turned = turned[:, weights > weights.max() * 1e-10]
    turned *= np.where(turned[np.abs(turned).argmax(axis=0), np.arange(turned.shape[1])] < 0, -1, 1)
    both = turned[: len(axes)] + along @ turned[len(axes) :]
    return np.ascontiguousarray(both[:, ::-1][:, : len(axes)], dtype=np.float32)


# Judging.


@dataclass(frozen=True)
class _Question:
    """How well those at `asked` find others of their class among those at `among`, all of `vectors` with their `classes`.

    `axes` were fitted without those that are asked. Vectors of no class (-1) are wrong for all.
    """

    about: str
    axes: Vectors
    vectors: Vectors
    classes: Ids
    asked: Ids
    among: Ids


def _questions(labelled: Labelled, axes: Vectors) -> Iterator[_Question]:
    """Yield what a fit is judged by: photographs and classes left out of fits to the others, and labels that no fit saw."""
    random = np.random.default_rng(SEED)
    vectors, classes = labelled.vectors, labelled.classes
    for fitted, whole in _folds(classes, random):
        # One photograph of a class shows nothing in common.
        fitted &= np.bincount(classes[fitted], minlength=len(classes))[classes] > 1
        if len(np.unique(classes[fitted])) < 2:
            continue
        part = _discriminant_axes(vectors[fitted], classes[fitted], labelled.unlabelled)
        yield from _question("held_out", part, vectors, classes, ~fitted & ~whole, ~fitted, random)
        yield from _question("unseen", part, vectors, classes, whole, np.ones(len(vectors), dtype=bool), random)
    both = np.concatenate([labelled.unlabelled, vectors])
    numbers = np.concatenate([labelled.other_classes, np.full(len(vectors), -1)])
    yield from _question("others", axes, both, numbers, numbers >= 0, np.ones(len(both), dtype=bool), random)


def _folds(classes: Ids, random: np.random.Generator) -> Iterator[tuple[Bools, Bools]]:
    """Yield which of `classes` (n,) a fit is given, and which it is not given because their whole class is left out.

    Of fewer than four classes none is left out: what tells two from each other is no fit of the kind that is judged.
    """
    names = np.unique(classes)
    whole_of = np.full(len(names), -1) if len(names) < LEAST_CLASSES else random.permutation(len(names)) % FOLDS
    half = np.zeros(len(classes), dtype=np.int64)
    for name in names:
        places = random.permutation(np.flatnonzero(classes == name))
        half[places] = np.arange(len(places)) % 2
    for fold in range(FOLDS if len(names) >= LEAST_CLASSES else 2):
        whole = whole_of[np.searchsorted(names, classes)] == fold
        # The half of a class that is left out of one fit is given to the next.
        fitted = ~whole & (half == fold % 2)
        yield fitted, whole


def _question(
    about: str, axes: Vectors, vectors: Vectors, classes: Ids, asked: Bools, among: Bools, random: np.random.Generator
) -> Iterator[_Question]:
    """Yield the question, or none where nobody asked has another of its class among the others; of many, some by chance."""
    near = np.sort(random.permutation(np.flatnonzero(among))[:MOST_AMONG])
    answers = np.bincount(classes[near][classes[near] >= 0], minlength=int(classes.max(initial=0)) + 1)
    places = np.flatnonzero(asked)
    places = places[answers[classes[places]] > np.isin(places, near)]
    if len(places):
        yield _Question(about, axes, vectors, classes, np.sort(random.permutation(places)[:MOST_QUERIES]), near)


@dataclass(frozen=True)
class _Answers:
    """The mAP of all questions about one thing: `before`, and `after` float64 (s,) with each of `STRENGTHS`."""

    before: float
    after: npt.NDArray[np.float64]
    images: int
    classes: int

    def at(self, place: int) -> Change:
        """Return what the strength at `place` changes."""
        return Change(round(self.before, 4), round(float(self.after[place]), 4), self.images, self.classes)


def _answers(questions: Sequence[_Question], about: str, heaviest: Vectors) -> _Answers | None:
    """Return what came of the questions `about` something, each image that asked counting as often; None where none did.

    `heaviest` (dim, size) are the axes of the vectors before they are stretched: those after it, for each fit and strength, would
    take as long to find as the fits, and differ little.
    """
    asked = [question for question in questions if question.about == about]
    if not asked:
        return None
    weights = [len(question.asked) for question in asked]
    figures = np.average([_figures(question, heaviest) for question in asked], axis=0, weights=weights)
    classes = np.concatenate([question.classes[question.asked] for question in asked])
    return _Answers(float(figures[0]), figures[1:], sum(weights), len(np.unique(classes)))


def _figures(question: _Question, heaviest: Vectors) -> npt.NDArray[np.float64]:
    """Return the mAP of a question before, and with each of `STRENGTHS`: float64 (1 + s,)."""
    asked, among = question.vectors[question.asked], question.vectors[question.among]
    asked_axes, among_axes = asked @ question.axes, among @ question.axes
    figures = [_mean_average_precision(question, asked @ among.T)]
    asked, among = asked @ heaviest, among @ heaviest
    plain, along = asked @ among.T, asked_axes @ among_axes.T
    squared, squared_axes = np.vecdot(among, among), np.vecdot(among_axes, among_axes)
    squared[squared == 0] = 1  # a vector of zeros is alike to nothing
    for b in STRENGTHS:
        scores = (plain + b * b * along) / np.sqrt(squared + b * b * squared_axes)
        figures.append(_mean_average_precision(question, scores))
    return np.array(figures)


def _best_strength(held_out: _Answers | None, never_seen: Sequence[_Answers]) -> int:
    """Return the place of the strength by which what was held out is found best, of those by which nothing loses too much."""
    if not never_seen:
        return STRENGTHS.index(USUAL_STRENGTH)
    lost = np.max([answers.before - answers.after for answers in never_seen], axis=0)
    found = np.array(STRENGTHS) if held_out is None else held_out.after
    return int(np.argmax(np.where(lost <= MAY_LOSE, found, -1))) if lost.min() <= MAY_LOSE else 0


def _mean_average_precision(question: _Question, scores: Vectors) -> float:
    """Return the mAP of `scores` (asked, among), an image itself left out; of equal scores the wrong ones count as nearer."""
    averages = []
    for place, row in zip(question.asked, scores, strict=True):
        right = question.classes[question.among] == question.classes[place]
        itself = question.among == place
        best = np.sort(row[right & ~itself])[::-1]
        ranks = itself.size - itself.sum() - np.searchsorted(np.sort(row[~itself]), best)
        averages.append((np.arange(1, len(ranks) + 1) / ranks).mean())
    return float(np.mean(averages))
