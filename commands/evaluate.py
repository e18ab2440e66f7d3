"""`python ann.py --evaluate`: how good the answers of a collection are, as a table or JSON. Owns arguments and printing alone."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from config import Settings
from errors import CollectionMissingError, EmptyCollectionError, RequestError

if TYPE_CHECKING:
    from evaluation import Evaluation, Interval

ORDERS = {"plain": "plain cosine", "kind": "by kind"}
FORMATS = ("table", "json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the options of the evaluation."""
    parser.add_argument(
        "--evaluate",
        action="store_true",
        help="print how good the answers are, then stop: recall of the index; P@10, mAP, R-precision by labels (folders)",
    )
    parser.add_argument(
        "--labels", type=Path, metavar="FILE", help="with --evaluate: labels from a CSV: path, or its end, and label"
    )


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Evaluate the published generation, print a table, or JSON with `--format json`, and return the exit status.

    Raises `CollectionError` where there is nothing to evaluate, `RequestError` for labels that cannot be used,
    `ExportError` for a file that cannot be written.
    """
    from evaluation import evaluate, read_labels
    from publishing import open_index
    from ranking import load_kind_ranking
    from store import Record, open_store
    from tables import whole_file

    if arguments.format not in FORMATS:
        raise RequestError(f"--evaluate prints {' or '.join(FORMATS)}, not {arguments.format}.")
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(contextlib.closing(open_store(settings.rsc_files)))
        generation = store.generation()
        if generation is None:
            raise CollectionMissingError(f"There is no index in {settings.rsc_files} yet: run `python img2vec.py`.")
        index = open_index(store, generation)
        if not len(index.snapshot):
            raise EmptyCollectionError(
                f"The collection in {settings.rsc_files} holds no image that could be searched for."
            )
        # Opened before anything is measured, which takes long.
        output = None if arguments.output is None else stack.enter_context(whole_file(arguments.output))
        kind = load_kind_ranking(index.snapshot, generation.folder, generation.manifest.get("ranking"))
        by_id = store.records(index.snapshot.ids.tolist())
        taken_out = Record(b"", 0, 0)  # since the snapshot, a moment ago
        records = [by_id.get(image_id, taken_out) for image_id in index.snapshot.ids.tolist()]
        labels, unused = [record.label for record in records], 0
        if arguments.labels is not None:
            labels, unused = read_labels(arguments.labels, records)
        result = evaluate(index, kind, labels, on_progress=_say)
        if unused:
            result.notes.append(f"{unused:,} rows of {arguments.labels} name no image of the collection.")
        text = json.dumps(asdict(result), indent=2, ensure_ascii=False) if arguments.format == "json" else table(result)
        if output is not None:
            output.write((text + "\n").encode())
    if arguments.output is None:
        print(text)
    return 0


def _say(step: str) -> None:
    print(f"ann.py: measuring {step} …", file=sys.stderr, flush=True)


def table(result: Evaluation) -> str:
    """Return the figures in lines for people."""
    groups = "" if result.group_size is None else f", half of them in groups of at least {result.group_size:,}"
    lines = [
        f"{result.images:,} images, {result.labelled:,} with a label{groups}; pages are in {result.default_order} order.",
        "Each figure with its 95 % confidence interval.",
        "",
    ]
    lines += [
        f"recall@{row.k:<3} of the index  {_shown(row.recall)}  {row.queries:,} queries" for row in result.recalls
    ]
    if result.qualities:
        lines += ["", f"{'queries':<18} {'order':<13} {'P@10':<20} {'mAP':<20} {'R-precision':<20}".rstrip()]
    for row in result.qualities:
        figures = (row.precision, row.mean_average_precision, row.r_precision)
        shown = " ".join(f"{_shown(figure):<20}" for figure in figures)
        lines.append(f"{row.queries:>7,} {row.asked:<10} {ORDERS[row.order]:<13} {shown}".rstrip())
    return "\n".join([*lines, *(f"\n{note}" for note in result.notes)])


def _shown(figure: Interval) -> str:
    return f"{figure.value:.3f} ({figure.low:.3f}–{figure.high:.3f})"
