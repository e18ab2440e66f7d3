"""`python finetune.py "labelled/*"`: arguments, progress and printing of learning from labelled photographs."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commands.progress import say_nothing, say_step, show_progress, stopping_gently
from config import Settings, add_setting_arguments, settings_from_arguments
from errors import LookalikeError

if TYPE_CHECKING:
    from finetune import Finetuned, Job
    from finetuning.training import Epoch, Progress

SETTINGS = ("rsc_files", "weights", "threads", "gpus")
EPILOG = """examples:
  python finetune.py "labelled/*"                    a folder a class: trains a network and calls it mine
  python img2vec.py --backbone mine                  … which then makes the collection's vectors (the old ones stay)
  python finetune.py --labels labels.csv             the columns path and label
  python finetune.py --given                         what was said in the pages
  python finetune.py --given --projection            no new network: a projection of the vectors that are there, in seconds
  python finetune.py "labelled/*" --preset article --base inception_v3 --name article
  python finetune.py --dataset cifar10 --preset article

A run that was stopped or killed goes on when the same command is given again."""
OF_NETWORKS = ("name", "preset", "base", "blocks", "layer", "epochs", "seed", "held_out")
EPOCHS_A_LINE = 5
"""Of the head, whose epochs take a moment."""


def main(argv: Sequence[str]) -> int:
    """Run the command; return its exit status: 0 done, 1 failed with a message, 2 wrong arguments, 130 interrupted."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    sources = (arguments.patterns, arguments.labels, arguments.given, arguments.dataset)
    if sum(map(bool, sources)) != 1:
        parser.error("labels come from one of: folders, --labels FILE, --given, --dataset cifar10")
    useless = [name for name in OF_NETWORKS if getattr(arguments, name) != parser.get_default(name)]
    if arguments.projection and useless:
        parser.error(
            f"--projection trains no network and has no use for --{useless[0].replace('_', '-')}: leave it out"
        )
    os.environ.setdefault(
        "TF_CPP_MIN_LOG_LEVEL", "3"
    )  # TensorFlow's talk of processors, which comes when it is imported
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # … and of functions that it compiles for each size
    try:
        settings = settings_from_arguments(arguments)
        return _project(arguments, settings) if arguments.projection else _train(arguments, settings)
    except KeyboardInterrupt:
        after = "everything is as it was" if arguments.projection else "the same command goes on"
        print(f"\nfinetune.py: stopped; {after}.", file=sys.stderr)
        return 130
    except LookalikeError as error:
        if arguments.json:
            print(json.dumps({"error": {"code": error.code, "message": str(error)}}))
        print(f"finetune.py: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="finetune.py",
        description="Learn from labelled photographs: a network of your own, to search by.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "patterns",
        nargs="*",
        metavar="PATTERN",
        help="folders or globs; the folder that a photograph lies in is its label",
    )
    add("--labels", type=Path, metavar="FILE", help="a CSV of paths and labels; paths from its folder or from here")
    add("--given", action="store_true", help="the labels that were given in the pages of the collection")
    add("--dataset", choices=("cifar10",), help="a published data set, which Keras downloads")
    add("--per-class", type=int, default=200, metavar="N", help="pictures of each class of the data set (default 200)")
    add("--projection", action="store_true", help="train no network, but a projection of the collection's vectors")
    add("--name", default="mine", help="what the network is to be called (default mine)")
    add("--preset", default="default", metavar="{default,article}", help="the recipe (default default)")
    add("--base", metavar="NAME", help="published network to begin with (default: the collection's, else inception_v3)")
    add("--blocks", type=int, metavar="N", help="top blocks of it that are trained, 0 for the new layers alone")
    add("--layer", metavar="NAME", help="vector that searching takes: avg_pool, dense (preset article) or scores")
    add("--epochs", type=int, metavar="N", help="at most so often is each photograph seen while blocks are trained")
    add("--held-out", type=float, default=0.2, metavar="X", help="share of the photographs to judge by (default 0.2)")
    add("--seed", type=int, default=20_080_707, help="the same seed and photographs give the same network")
    add("--json", action="store_true", help="print the report as JSON")
    add("--quiet", action="store_true", help="no progress")
    add_setting_arguments(parser, SETTINGS)
    return parser


def _job(arguments: argparse.Namespace, settings: Settings) -> Job:
    from finetune import Choices, Job, Sources

    silent = arguments.quiet or arguments.json
    return Job(
        settings,
        Sources(
            patterns=tuple(arguments.patterns),
            csv=arguments.labels,
            pages=arguments.given,
            cifar10=arguments.dataset == "cifar10",
            per_class=arguments.per_class,
        ),
        Choices(**{name: getattr(arguments, name) for name in OF_NETWORKS}),
        on_progress=(lambda progress: None) if silent else _shower(),
        on_step=say_nothing if silent else say_step,
        on_note=lambda note: print(f"NOTE: {note}", file=sys.stderr),
    )


def _shower() -> Callable[[Progress], None]:
    """Return what shows photographs as bars and epochs as lines."""
    bars: list[Callable[[int, int], None]] = []

    def shown(progress: Progress) -> None:
        if progress.epoch is not None:
            if progress.stage == "blocks" or progress.done % EPOCHS_A_LINE == 0 or progress.done == progress.total:
                print(_epoch_text(progress.epoch, progress.total), file=sys.stderr, flush=True)
            return
        if not bars:  # not before: a bar counts the seconds from its making
            bars.append(show_progress("photographs"))
        bars[0](progress.done, progress.total)
        if progress.done == progress.total:
            bars.clear()

    return shown


def _epoch_text(epoch: Epoch, total: int) -> str:
    what = "New layers" if epoch.stage == "head" else "Top blocks"
    return (
        f"{what}, epoch {epoch.number} of {total}: loss {epoch.loss:.3f}, right {epoch.accuracy:.1%}; validation "
        f"{epoch.validation_loss:.3f}, {epoch.validation_accuracy:.1%}"
    )


# A network.


def _train(arguments: argparse.Namespace, settings: Settings) -> int:
    from finetune import finetune

    with stopping_gently() as stop:
        finetuned = finetune(replace(_job(arguments, settings), stop=stop))
    if finetuned is None:
        print("Stopped. What was finished is kept; the same command goes on.", file=sys.stderr)
        return 130
    if arguments.json:
        print(json.dumps(_network_json(finetuned), indent=2))
    else:
        print(_network_text(finetuned, settings, arguments.layer))
    return 0


def _network_json(finetuned: Finetuned) -> dict[str, Any]:
    network = finetuned.network
    return {
        "name": network.name,
        "base": network.base,
        "layer": network.default_layer,
        "layers": dict(network.layers),
        "weights_sha256": network.weights_sha256,
        "trained": finetuned.trained,
        "folder": str(finetuned.folder.absolute()),
        **asdict(finetuned.report),
    }


def _network_text(finetuned: Finetuned, settings: Settings, layer: str | None) -> str:
    from finetuning.report import CONFUSION, TEXT, report_text

    network, report = finetuned.network, finetuned.report
    option = _folder_option(settings)
    # A network that was trained before keeps its usual layer.
    asked = "" if layer in (None, network.default_layer) else f" --layer {layer}"
    lines = [report_text(report, network.base)]
    if not finetuned.trained:
        lines.append("Nothing has changed since it was trained, so nothing was done.")
    lines += [
        f"Network:  {network.name}, begun as {network.base}; layer {network.default_layer} of {', '.join(network.layers)}",
        f"Time:     {report.seconds:,.1f} s of training",
        f"Lies in:  {finetuned.folder} ({CONFUSION}, {TEXT})",
        f"Use it:   python img2vec.py --backbone {network.name}{asked}{option}",
        f"Go back:  python img2vec.py --backbone {network.base}{option}",
    ]
    return "\n".join(lines)


# A projection.


def _project(arguments: argparse.Namespace, settings: Settings) -> int:
    from commands.autoencoder import learned_report, learned_text
    from finetune import project

    projected = project(_job(arguments, settings))
    if projected.not_there:
        print(
            f"NOTE: {projected.not_there:,} labelled photographs are not in the collection and were left out.",
            file=sys.stderr,
        )
    learned = projected.learned
    print(json.dumps(learned_report(learned), indent=2) if arguments.json else learned_text(learned, settings))
    return 0


def _folder_option(settings: Settings) -> str:
    return "" if settings.rsc_files == Settings.rsc_files else f" --rsc-files {shlex.quote(str(settings.rsc_files))}"
