"""`python img2vec.py --import-vectors …`, `--export-vectors …`, `--export-labels …`: arguments and printing of exchanges."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commands.progress import say_nothing, say_step, show_progress, stopping_gently
from config import Settings

if TYPE_CHECKING:
    from importing import ImportReport

OPTIONS = ("import_vectors", "export_vectors", "export_labels")
SETTINGS_OF_INDEX = ("index",)
LISTED = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the options of exchanges."""
    add = parser.add_argument
    add(
        "--import-vectors",
        metavar="FILE",
        help="take in vectors made elsewhere: an .npz of X and Y, or a folder of text vectors",
    )
    add(
        "--pictures",
        metavar="FOLDER",
        help="with --import-vectors: look for the pictures below this folder, by their names",
    )
    add(
        "--export-vectors",
        metavar="FILE",
        help="write all vectors into an .npz of X and Y, or a folder/ of text vectors",
    )
    add("--export-labels", metavar="FILE", help="write the predicted labels of all images into a JSON file")


def is_wanted(arguments: argparse.Namespace) -> bool:
    """Tell whether an exchange is asked for."""
    return any(getattr(arguments, name) is not None for name in (*OPTIONS, "pictures"))


def check(parser: argparse.ArgumentParser, arguments: argparse.Namespace, *, other_work: Sequence[str]) -> None:
    """End the program with a message where options do not go together."""
    if arguments.pictures is not None and arguments.import_vectors is None:
        parser.error("--pictures says where the pictures of --import-vectors FILE lie")
    others = [name.replace("_", "-") for name in other_work if name not in SETTINGS_OF_INDEX]
    if others:
        wanted = next(name.replace("_", "-") for name in OPTIONS if getattr(arguments, name) is not None)
        parser.error(f"--{wanted} is done on its own: leave {', '.join(others)} to another run")


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Import, then export, what is asked for; return the exit status."""
    done: dict[str, Any] = {}
    lines: list[str] = []
    if arguments.import_vectors is not None:
        report = _import(arguments, settings)
        done, lines = asdict(report), _report_lines(report)
    interrupted = done.get("interrupted", False)
    if not interrupted and (arguments.export_vectors is not None or arguments.export_labels is not None):
        done["exported"] = _export(arguments, settings)
        lines += [f"{count:,} images are in {name}" for name, count in done["exported"].items()]
    print(json.dumps(done, indent=2) if arguments.json else "\n".join(lines))
    return 130 if interrupted else 0


def _import(arguments: argparse.Namespace, settings: Settings) -> ImportReport:
    from importing import ImportJob, import_vectors

    with stopping_gently() as stop:
        job = ImportJob(
            settings,
            Path(arguments.import_vectors),
            None if arguments.pictures is None else Path(arguments.pictures),
            on_progress=show_progress("images", silent=arguments.quiet or arguments.json),
            on_note=lambda note: print(f"\nNOTE: {note}\n", file=sys.stderr),
            on_step=say_nothing if arguments.quiet or arguments.json else say_step,
            stop=stop,
        )
        return import_vectors(job)


def _report_lines(report: ImportReport) -> list[str]:
    lines = []
    if report.bad:
        lines.append("Vectors that cannot be used:")
        lines += [f"  {failure.path}: {failure.reason}" for failure in report.failures[:LISTED]]
        if report.bad > LISTED:
            lines.append(f"  … and {report.bad - LISTED:,} more (--json lists them all)")
    if report.interrupted:
        lines.append("Interrupted. Everything counted here is saved; run the same command again to go on.")
    lines.append(
        f"Images:   {report.new:,} new, {report.changed:,} changed, {report.unchanged:,} unchanged, {report.bad:,} with a bad "
        f"vector; {report.with_picture:,} have their picture"
    )
    lines.append(f"Vectors:  {report.dim}-d, {report.backbone}, layer {report.layer}")
    if report.index:
        lines.append(f"Index:    {report.images:,} images, {report.index['kind']}")
    lines.append(f"Lies in:  {report.rsc_files}")
    return lines


def _export(arguments: argparse.Namespace, settings: Settings) -> dict[str, int]:
    """Return how many images were written, by the names of files and folders."""
    from exporting import export_labels, export_vectors, vectors_format
    from store import open_store

    silent = arguments.quiet or arguments.json
    exported = {}
    with contextlib.closing(open_store(settings.rsc_files)) as store:
        if arguments.export_vectors is not None:
            target = Path(arguments.export_vectors)
            file_format = vectors_format(target, is_folder=arguments.export_vectors.endswith("/"))
            show = show_progress("images", silent=silent)
            exported[arguments.export_vectors] = export_vectors(store, target, file_format, on_progress=show)
        if arguments.export_labels is not None:
            show = show_progress("images", silent=silent)
            exported[arguments.export_labels] = export_labels(store, Path(arguments.export_labels), on_progress=show)
    return exported
