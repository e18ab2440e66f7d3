"""What a training was worth: accuracy, each class, and how well photographs find their like before and after.

Owns the figures, their two pictures and their text. All are of photographs that were held out; those of classes that were never
learnt come from the collection, where there is one. Measures: `evaluation.py`. Does not own training (`training.py`).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from errors import BackboneError
from evaluation import rate_vectors
from finetuning.labelled import LeftOut
from finetuning.parts import Company, Parts
from finetuning.training import Epoch, Task, Trained
from vectors import Ids

MAY_FALL = 0.02
"""Photographs of classes that were never learnt may find each other by so much less mAP before it is warned of."""
LISTED = 20
ANNOTATED_CLASSES = 30
LONGEST_NAME = 24
REPORT, TEXT, CONFUSION, LOSSES = "report.json", "report.txt", "confusion.png", "losses.png"


@dataclass(frozen=True)
class ClassFigures:
    """One class: photographs learnt from and judged, the share of those called so that are (None: none was), and that found."""

    name: str
    learnt_from: int
    judged: int
    precision: float | None
    recall: float


@dataclass(frozen=True)
class Rates:
    """mAP 0…1 by one kind of `vectors`, by cosine; None where there are too few photographs to say.

    `among` is of the judged photographs among themselves, `chosen` of them among images of the collection too, `unseen` of those
    images, whose classes were never learnt.
    """

    vectors: str
    among: float | None
    chosen: float | None
    unseen: float | None


@dataclass(frozen=True)
class Report:
    """All figures of one training, JSON-able. `judged_by` is "held out" or, where none were, "validation".

    `confusion[i][j]` counts the judged photographs of class i that were taken for class j; `unseen` is how many images of other
    classes took part in `rates`, of which the first is by the base's vectors.
    """

    classes: list[ClassFigures]
    learnt_from: int
    stopped_by: int
    judged: int
    judged_by: str
    accuracy: float
    confusion: list[list[int]]
    unseen: int
    rates: list[Rates]
    warnings: list[str]
    epochs: list[Epoch]
    left_out: list[LeftOut]
    seconds: float


def make_report(task: Task, parts: Parts, company: Company, trained: Trained, left_out: Sequence[LeftOut]) -> Report:
    """Judge what was trained by the photographs that were held out, or by those that told when to stop where none were."""
    judged = parts.held_out if len(parts.held_out) else parts.validation
    labels = task.labels[judged]
    outputs = trained.run([*(task.photographs[place] for place in judged.tolist()), *company.unseen])
    confusion = confusion_of(labels, outputs["scores"][: len(judged)].argmax(axis=1), len(task.classes))
    names = [task.classes[number] for number in labels.tolist()] + list(company.unseen_labels)
    rates = [rate(kind, vectors, names, len(judged)) for kind, vectors in outputs.items()]
    return Report(
        classes=_class_figures(task, confusion),
        learnt_from=len(task.train),
        stopped_by=len(task.validation),
        judged=len(judged),
        judged_by="held out" if len(parts.held_out) else "validation",
        accuracy=float(np.trace(confusion) / len(judged)),
        confusion=confusion.tolist(),
        unseen=len(company.unseen),
        rates=rates,
        warnings=_warnings(rates, task.preset.layer),
        epochs=list(trained.history),
        left_out=list(left_out),
        seconds=round(trained.seconds, 1),
    )


def confusion_of(labels: Ids, found: Ids, classes: int) -> Ids:
    """Count how often a photograph of each class (row) was taken for each class (column), int64 (classes, classes)."""
    counts = np.bincount(labels * classes + found, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


def rate(kind: str, vectors: npt.NDArray[np.float32], names: Sequence[str], judged: int) -> Rates:
    """Rate `vectors` (n, dim) of images with `names`, of which the first `judged` are those that were held out."""
    return Rates(
        kind,
        among=_mean_average_precision(vectors[:judged], names[:judged], np.arange(judged)),
        chosen=_mean_average_precision(vectors, names, np.arange(judged)) if len(names) > judged else None,
        unseen=_mean_average_precision(vectors, names, np.arange(judged, len(names))),
    )


def _mean_average_precision(vectors: npt.NDArray[np.float32], names: Sequence[str], queries: Ids) -> float | None:
    numbers = np.unique(np.array(names, dtype=str), return_inverse=True)[1]
    if not (np.bincount(numbers, minlength=1)[numbers[queries]] > 1).any():
        return None
    return rate_vectors(vectors, names, queries=queries).mean_average_precision.value


def _class_figures(task: Task, confusion: Ids) -> list[ClassFigures]:
    learnt = np.bincount(task.labels[task.train], minlength=len(task.classes))
    judged, called = confusion.sum(axis=1), confusion.sum(axis=0)
    return [
        ClassFigures(
            name,
            int(learnt[number]),
            int(judged[number]),
            float(confusion[number, number] / called[number]) if called[number] else None,
            float(confusion[number, number] / judged[number]),
        )
        for number, name in enumerate(task.classes)
    ]


def _warnings(rates: Sequence[Rates], layer: str) -> list[str]:
    before = rates[0].unseen
    after = next((entry.unseen for entry in rates if entry.vectors == layer), None)
    if before is None or after is None or before - after <= MAY_FALL:
        return []
    return [
        f"Images of classes that it did not learn find each other worse by the vectors of {layer}: their mAP falls from "
        f"{before:.3f} to {after:.3f}. Search by this network for the classes it learnt, and by the other for the rest; or label "
        "images of more classes, or train fewer blocks (--blocks)."
    ]


# Text.


def report_text(report: Report, base: str, *, listed: int | None = LISTED) -> str:
    """Return the figures for people; of classes and files that were left out, `listed` at most."""
    return "\n".join([*_left_out_lines(report, listed), *_class_lines(report, listed), *_rate_lines(report, base)])


def _left_out_lines(report: Report, listed: int | None) -> Iterator[str]:
    if report.left_out:
        yield "Could not be used:"
        yield from (f"  {entry.path}: {entry.reason}" for entry in report.left_out[:listed])
        yield from _more(len(report.left_out), listed)


def _class_lines(report: Report, listed: int | None) -> Iterator[str]:
    held_out = f", {report.judged:,} were held out" if report.judged_by == "held out" else ", and judge: that flatters"
    learnt = f"{len(report.classes):,} classes from {report.learnt_from:,} photographs"
    yield f"Learnt:   {learnt}; {report.stopped_by:,} told when to stop{held_out}"
    yield f"Accuracy: {report.accuracy:.1%}"
    worst = sorted(report.classes, key=lambda entry: (entry.recall, entry.name))
    width = max(12, *(len(_short(entry.name)) for entry in worst[:listed]))
    yield f"  {'class':{width}}  learnt from  judged  precision  recall"
    for entry in worst[:listed]:
        precision = "-" if entry.precision is None else f"{entry.precision:.2f}"
        name = f"{_short(entry.name):{width}}"
        yield f"  {name}  {entry.learnt_from:>11,}  {entry.judged:>6,}  {precision:>9}  {entry.recall:>6.2f}"
    yield from _more(len(worst), listed)


def _rate_lines(report: Report, base: str) -> Iterator[str]:
    titles = [f"{base} (before)" if entry.vectors == "base" else entry.vectors for entry in report.rates]
    rows: list[tuple[str, ...]] = [
        ("mAP by the vectors of", "among themselves", f"among {report.unseen:,} others", "classes never learnt")
    ]
    for title, entry in zip(titles, report.rates, strict=True):
        figures = ("-" if figure is None else f"{figure:.3f}" for figure in (entry.among, entry.chosen, entry.unseen))
        rows.append((title, *figures))
    shown = rows if report.unseen else [row[:2] for row in rows]
    widths = [max(len(row[place]) for row in shown) for place in range(len(shown[0]))]
    for row in shown:
        yield "  " + "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
    yield from (f"WARNING:  {warning}" for warning in report.warnings)


def _more(count: int, listed: int | None) -> Iterator[str]:
    if listed is not None and count > listed:
        yield f"  … and {count - listed:,} more ({TEXT} and {REPORT} list them all)"


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


# Files.


def write_report(report: Report, base: str, folder: Path) -> None:
    """Write the figures, as text and as pictures, into `folder`."""
    (folder / REPORT).write_text(json.dumps(asdict(report), indent=2) + "\n", encoding="utf-8")
    (folder / TEXT).write_text(report_text(report, base, listed=None) + "\n", encoding="utf-8")
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Glyph .* missing from font"
        )  # a name in a script that the font lacks
        draw_confusion(report, folder / CONFUSION)
        draw_losses(report.epochs, folder / LOSSES)


def read_report(folder: Path) -> Report:
    """Return the figures that lie in the folder of a network. Raises `BackboneError` where they cannot be read."""
    try:
        values: dict[str, Any] = json.loads((folder / REPORT).read_text(encoding="utf-8"))
        return Report(
            **{
                **values,
                "classes": [ClassFigures(**entry) for entry in values["classes"]],
                "rates": [Rates(**entry) for entry in values["rates"]],
                "epochs": [Epoch(**entry) for entry in values["epochs"]],
                "left_out": [LeftOut(**entry) for entry in values["left_out"]],
            }
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BackboneError(
            f"This was trained before, but {folder / REPORT} cannot be read ({error}). The network can be used all the same; to "
            "train it again, give another --seed."
        ) from error


def draw_confusion(report: Report, path: Path) -> None:
    """Draw which classes were taken for which, as shares of each row; counts stand in the cells of up to 30 classes."""
    from matplotlib.figure import Figure  # not pyplot: no window, and no choice of a backend for the whole process

    counts = np.array(report.confusion, dtype=np.float64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    classes = len(counts)
    side = 4 + 0.22 * classes if classes > ANNOTATED_CLASSES else 3 + 0.4 * classes
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the photographs of a class", shrink=0.8)
    names = [_short(entry.name) for entry in report.classes]
    size = 9 if classes <= ANNOTATED_CLASSES else 7
    axes.set_xticks(range(classes), names, rotation=90, fontsize=size, parse_math=False)
    axes.set_yticks(range(classes), names, fontsize=size, parse_math=False)
    axes.set(
        xlabel="taken for", ylabel="is", title=f"{report.judged:,} photographs, {report.accuracy:.1%} told rightly"
    )
    if classes <= ANNOTATED_CLASSES:
        for row, column in np.argwhere(counts > 0).tolist():
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{counts[row, column]:.0f}", ha="center", va="center", fontsize=8, color=colour)
    figure.savefig(path, format="png", dpi=120)


def draw_losses(epochs: Sequence[Epoch], path: Path) -> None:
    """Draw loss and accuracy of each epoch: first those of the head alone, then those of the blocks too."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    numbers = np.arange(1, len(epochs) + 1)
    head = sum(epoch.stage == "head" for epoch in epochs)
    for axes, what in zip(figure.subplots(1, 2).flat, ("loss", "accuracy"), strict=True):
        axes.plot(numbers, [getattr(epoch, what) for epoch in epochs], label="learnt from")
        axes.plot(numbers, [getattr(epoch, f"validation_{what}") for epoch in epochs], label="validation")
        if 0 < head < len(epochs):
            axes.axvline(head + 0.5, color="grey", linestyle=":", label="from here on the blocks too")
        axes.set(xlabel="epoch", ylabel=what)
    figure.axes[0].legend()
    figure.savefig(path, format="png", dpi=120)
