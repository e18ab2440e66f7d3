"""`python autoencoder.py`: arguments, progress, tables and plots of training a reducer and of comparing them."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config import Settings, add_setting_arguments, settings_from_arguments
from errors import ExportError, LookalikeError, ReducerError

if TYPE_CHECKING:
    from autoencoder import Epoch
    from comparing import Comparison, Line
    from reducing import LearnedProjection, Reduced

PROJECTION = "projection"
SETTINGS = ("rsc_files", "reducer", "reduced_dim", "index", "trees", "search_k")
EPILOG = """examples:
  python autoencoder.py                                        train the autoencoder (256 numbers) and use it
  python autoencoder.py --reducer pca --reduced-dim 0.95       PCA that keeps 95 % of the variance
  python autoencoder.py --reducer projection                   learn from labels: those given in the pages, else folders' names
  python autoencoder.py --reducer projection --labels FILE.csv … or those of a file
  python autoencoder.py --reducer none                         no reducer; what was trained stays on disk
  python autoencoder.py --compare                              what each would cost and find; changes nothing

With the autoencoder or PCA the index is built over smaller vectors and only proposes candidates: every answer is put in order by
the full ones. A projection puts answers in another order: that of vectors in which labelled kinds of image lie apart."""
EPOCHS_A_LINE = 10
COMPARISON_PLOT = "comparison.png"
PROJECTED_TEXT = (
    "full: an index over the vectors as they are; projected: over their principal components, as without a reducer."
)


def main(argv: Sequence[str]) -> int:
    """Run the command; return its exit status: 0 done, 1 failed with a message, 2 wrong arguments, 130 interrupted."""
    arguments = _parser().parse_args(argv)
    os.environ.setdefault(
        "TF_CPP_MIN_LOG_LEVEL", "3"
    )  # TensorFlow's talk of processors, which comes when it is imported
    try:
        settings = settings_from_arguments(arguments)
        if arguments.labels is not None and settings.reducer != PROJECTION:
            raise ReducerError("Only a projection learns from labels: --reducer projection --labels FILE.csv")
        if arguments.compare:
            return _compare(arguments, settings)
        return _learn(arguments, settings) if settings.reducer == PROJECTION else _reduce(arguments, settings)
    except KeyboardInterrupt:
        print("\nautoencoder.py: stopped; everything is as it was.", file=sys.stderr)
        return 130
    except LookalikeError as error:
        if arguments.json:
            print(json.dumps({"error": {"code": error.code, "message": str(error)}}))
        print(f"autoencoder.py: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="autoencoder.py",
        description="Make the vectors that the index is built over smaller, by an autoencoder or PCA trained on the collection; "
        "or better for your kinds of image, by a projection that labels teach.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--compare", action="store_true", help="measure full vectors, autoencoder and PCA on this collection, then stop"
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE.csv",
        help="labels for --reducer projection: a column of paths, or of their ends, and a column of labels",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    add_setting_arguments(parser, SETTINGS)
    return parser


def _reduce(arguments: argparse.Namespace, settings: Settings) -> int:
    from reducing import reduce_collection

    silent = arguments.quiet or arguments.json
    reduced = reduce_collection(
        settings,
        on_progress=_show_nothing if silent or settings.reducer == "pca" else _show_epoch,  # PCA has no epochs
        on_note=lambda note: print(f"NOTE: {note}", file=sys.stderr),
    )
    plot = None
    if reduced.path is not None and len(reduced.history) > 1:
        plot = reduced.path.with_suffix(".png")
        _plot_losses(reduced.history, plot)
    print(json.dumps(_report(reduced, plot), indent=2) if arguments.json else _report_text(reduced, plot, settings))
    return 0


def _learn(arguments: argparse.Namespace, settings: Settings) -> int:
    from reducing import learn_projection

    silent = arguments.quiet or arguments.json
    learned = learn_projection(
        settings,
        _labels(arguments.labels, settings),
        on_step=_show_nothing if silent else lambda step: print(step, file=sys.stderr, flush=True),
        on_note=lambda note: print(f"NOTE: {note}", file=sys.stderr),
    )
    if arguments.json:
        print(json.dumps(learned_report(learned), indent=2))
    else:
        print(learned_text(learned, settings))
    return 0


def _labels(file: Path | None, settings: Settings) -> dict[int, str]:
    """Return the labels of a CSV file, else those that people gave, else the folders' names, by image id."""
    from evaluation import read_labels
    from reducing import known_labels
    from store import open_store

    with contextlib.closing(open_store(settings.rsc_files)) as store:
        if file is None:
            return known_labels(store)
        records = [record for record in store.all_records() if record.error_code is None]
    labels, unknown = read_labels(file, records)
    if unknown:
        print(f"NOTE: {unknown:,} rows of {file} name no image of the collection.", file=sys.stderr)
    return {record.image_id: label for record, label in zip(records, labels, strict=True) if label is not None}


def learned_report(learned: LearnedProjection) -> dict[str, Any]:
    """Return what was learnt from labels, for programs: `finetune.py --projection` says the same."""
    report = asdict(learned)
    generation = report.pop("generation")
    return {
        "reducer": PROJECTION,
        **report,
        "learnt_from": learned.learnt_from,
        "seconds": round(learned.seconds, 3),
        "images": generation.get("images"),
        "index": generation.get("index"),
    }


def learned_text(learned: LearnedProjection, settings: Settings) -> str:
    """Return what was learnt from labels, for people."""
    index, dim = learned.generation.get("index") or {}, learned.generation["reducer"]["dim"]
    how = "learnt now" if learned.trained else "learnt before from the same labels and vectors"
    lines = [
        f"Reducer:  projection to {dim} numbers, {how}",
        f"Labels:   {learned.learnt_from:,} photographs of {len(learned.classes):,} classes; strength {learned.strength:g}",
    ]
    for change, what in (
        (learned.held_out, "photographs left out of a fit"),
        (learned.unseen, "photographs of classes left out of a fit"),
        (learned.others, "images with other labels"),
    ):
        if change is not None:
            figures = f"mAP {change.before:.3f} before, {change.after:.3f} after"
            lines.append(f"Judged:   {figures} ({change.images:,} {what})")
    if learned.warning:
        lines.append(f"WARNING:  {learned.warning}")
    lines.append(f"Index:    {learned.generation.get('images', 0):,} images, {_index_text(index)}")
    lines.append(f"Time:     {learned.seconds:,.1f} s")
    lines.append(f"Search:   python app.py{_folder_option(settings)}")
    lines.append(f"Back:     python autoencoder.py --reducer none{_folder_option(settings)}")
    return "\n".join(lines)


def _show_nothing(shown: object) -> None:
    """No progress."""


def _show_epoch(epoch: Epoch) -> None:
    text = f"Epoch {epoch.number} of at most {epoch.of}: loss {epoch.loss:.4f}, held out {epoch.held_out_loss:.4f}"
    if sys.stderr.isatty():
        print(f"\r{text}", end="\n" if epoch.number == epoch.of else "", file=sys.stderr, flush=True)
    elif epoch.number % EPOCHS_A_LINE == 1:
        print(text, file=sys.stderr, flush=True)


def _report(reduced: Reduced, plot: Path | None) -> dict[str, Any]:
    reducer = reduced.reducer
    return {
        "reducer": reduced.kind,
        "source_dim": None if reducer is None else reducer.source_dim,
        "dim": None if reducer is None else reducer.dim,
        "file": None if reduced.path is None else str(reduced.path.absolute()),
        "trained": reduced.trained,
        "losses": [asdict(epoch) for epoch in reduced.history],
        "losses_plot": None if plot is None else str(plot.absolute()),
        "seconds": round(reduced.seconds, 3),
        "images": reduced.generation.get("images"),
        "index": reduced.generation.get("index"),
    }


def _report_text(reduced: Reduced, plot: Path | None, settings: Settings) -> str:
    index = reduced.generation.get("index") or {}
    lines = []
    if reduced.reducer is None:
        lines.append(f"Reducer:  none: {_searched_text(index)}")
    else:
        last = reduced.history[-1] if reduced.history else None
        how = "trained now" if reduced.trained else "trained before on the same vectors"
        lines.append(f"Reducer:  {reduced.kind}, {reduced.reducer.source_dim} -> {reduced.reducer.dim} numbers, {how}")
        if last is not None:
            best = min(reduced.history, key=lambda epoch: epoch.held_out_loss)
            when = "" if reduced.kind == "pca" else f", epoch {best.number}"
            lines.append(f"Losses:   {best.loss:.4f}, held out {best.held_out_loss:.4f} (1 - cosine){when}")
        lines.append(f"Lies in:  {reduced.path}")
    if plot is not None:
        lines.append(f"Plot:     {plot}")
    lines.append(f"Index:    {reduced.generation.get('images', 0):,} images, {_index_text(index)}")
    if reduced.reducer is not None and not index.get("reducer"):
        lines.append("NOTE:     exact search needs no smaller vectors, so the reducer is not used by this index.")
    lines.append(f"Time:     {reduced.seconds:,.1f} s")
    lines.append(f"Search:   python app.py{_folder_option(settings)}")
    return "\n".join(lines)


def _searched_text(index: dict[str, Any]) -> str:
    if index.get("kind") == "exact":
        return "exact search among the full vectors"
    dim = index.get("projected_dim")
    over = f"{dim} principal components of the full vectors" if dim else "the full vectors"
    return f"the index is built over {over}"


def _index_text(index: dict[str, Any]) -> str:
    test = index.get("self_test")
    text = str(index.get("kind"))
    if test and not index.get("reason"):
        text += f", {index['bytes'] / 1e6:,.1f} MB, finds {test['recall']:.1%} of the true {test['k']} nearest"
    return text + (f". {index['reason']}" if index.get("reason") else "")


def _folder_option(settings: Settings) -> str:
    return "" if settings.rsc_files == Settings.rsc_files else f" --rsc-files {shlex.quote(str(settings.rsc_files))}"


def _compare(arguments: argparse.Namespace, settings: Settings) -> int:
    from comparing import compare
    from store import open_store

    show: Callable[[str], None] = _show_nothing
    if not (arguments.quiet or arguments.json):
        show = lambda text: print(f"Measuring {text} …", file=sys.stderr, flush=True)  # noqa: E731
    with contextlib.closing(open_store(settings.rsc_files)) as store:
        comparison = compare(store, settings, on_progress=show)
    target = settings.rsc_files / "reducers" / comparison.vectors_key / COMPARISON_PLOT
    plot = _comparison_plot(comparison, target)
    if arguments.json:
        print(json.dumps({**asdict(comparison), "plot": plot and str(plot.absolute())}, indent=2))
    else:
        print(_comparison_text(comparison, plot))
    return 0


def _comparison_plot(comparison: Comparison, target: Path) -> Path | None:
    """Draw the plot into `target` and return it, or say why there is none and return None."""
    if not any(line.kind in ("autoencoder", "pca") for line in comparison.lines):
        print(f"NOTE: there is no plot: nothing smaller was made of {comparison.images:,} images.", file=sys.stderr)
        return None
    try:
        _plot_comparison(comparison, target)
    except (OSError, ExportError) as error:  # a collection that may only be read: the figures are there all the same
        print(f"NOTE: there is no plot: {error}", file=sys.stderr)
        return None
    return target


def _comparison_text(comparison: Comparison, plot: Path | None) -> str:
    titles = (
        "vectors",
        "numbers",
        "index",
        "MB",
        "build s",
        "query ms",
        "recall@10",
        "re-ordered",
        "needed",
        "P@10",
        "mAP",
    )
    rows = [titles, *(_cells(line) for line in comparison.lines)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(titles))]
    text = [
        f"{comparison.images:,} images, vectors of {comparison.vectors_key}; {comparison.queries:,} are queries, "
        f"{comparison.labelled:,} of them share a label with another image.",
        "",
        *(
            "  ".join(
                cell.ljust(w) if p in (0, 2) else cell.rjust(w)
                for p, (cell, w) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ),
        "",
        "recall@10: of the full vectors' ten nearest, found by the smaller ones alone; re-ordered: by the best ten, by full",
        "vectors, of a hundred candidates; needed: candidates for 99 %. P@10 and mAP are of the smaller vectors alone.",
        *(PROJECTED_TEXT for line in comparison.lines if line.kind == "projected"),
        *(f"{line.kind} {line.dim}: {line.note}" for line in comparison.lines if line.note),
        *comparison.notes,
        *([] if plot is None else [f"Plot: {plot}"]),
    ]
    return "\n".join(text)


def _cells(line: Line) -> tuple[str, ...]:
    labelled = ["-" if value is None else f"{value:.3f}" for value in (line.precision, line.mean_average_precision)]
    return (
        line.kind,
        str(line.dim),
        line.index,
        f"{line.bytes / 1e6:,.1f}",
        f"{line.build_s:,.1f}",
        f"{line.query_ms:.2f}",
        f"{line.recall_alone:.3f}",
        f"{line.recall_reordered:.4f}",
        "-" if line.candidates is None else str(line.candidates),
        *labelled,
    )


def _plot_losses(history: Sequence[Epoch], path: Path) -> None:
    from matplotlib.figure import Figure  # not pyplot: no window, and no choice of a backend for the whole process

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    numbers = [epoch.number for epoch in history]
    axes.plot(numbers, [epoch.loss for epoch in history], label="vectors trained on")
    axes.plot(numbers, [epoch.held_out_loss for epoch in history], label="vectors held out")
    axes.set(xlabel="epoch", ylabel="1 - cosine of a vector and what its code gives back", yscale="log")
    axes.legend()
    _save_figure(figure, path)


def _plot_comparison(comparison: Comparison, path: Path) -> None:
    from matplotlib.figure import Figure

    panels: list[tuple[str, Callable[[Line], float | None]]] = [
        ("recall@10 alone", lambda line: line.recall_alone),
        ("recall@10, re-ordered", lambda line: line.recall_reordered),
        ("P@10", lambda line: line.precision),
        ("mAP", lambda line: line.mean_average_precision),
        ("index, MB", lambda line: line.bytes / 1e6),
        ("query, ms", lambda line: line.query_ms),
    ]
    figure = Figure(figsize=(11, 6), layout="constrained")
    for axes, (title, value) in zip(figure.subplots(2, 3).flat, panels, strict=True):
        drawn = False
        for kind, style in (("autoencoder", "o-"), ("pca", "s--")):
            points = [(line.dim, value(line)) for line in comparison.lines if line.kind == kind]
            known = [(dim, number) for dim, number in points if number is not None]
            axes.plot([dim for dim, _ in known], [number for _, number in known], style, label=kind)
            drawn = drawn or bool(known)
        full = value(comparison.lines[0])
        if full is not None:
            axes.axhline(full, color="grey", linestyle=":", label=f"full ({comparison.lines[0].dim})")
        if drawn:  # without labels there is no P@10 and no mAP
            axes.set_xscale("log", base=2)
        axes.set(title=title, xlabel="numbers a vector")
    figure.axes[0].legend()
    _save_figure(figure, path)


def _save_figure(figure: Any, path: Path) -> None:
    from tables import whole_file

    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        figure.savefig(file, format="png", dpi=120)
