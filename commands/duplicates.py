"""`python duplicates.py`: arguments, progress and printing of finding duplicates, planning what to keep, applying, restoring."""

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

from commands.progress import Progress, say_step, show_progress, stopping_gently
from config import Settings, add_setting_arguments, settings_from_arguments
from errors import CollectionMissingError, LookalikeError, OptionError

if TYPE_CHECKING:
    from duplicates import DuplicateOptions
    from plans import Choice, DuplicateSet, Plan
    from quarantine import Applied, Restored
    from store import Generation, Store
    from views.duplicates import Duplicates

SETTINGS = ("rsc_files", "index", "trees", "search_k")
EPILOG = """examples:
  python duplicates.py                                       find them; look at them on the page /duplicates
  python duplicates.py --plan plan.csv                       and write down which files could go; nothing is moved
  python duplicates.py --plan plan.csv --keep oldest --protect archive
  python duplicates.py --plan plan.csv --new camera          only what is in camera and elsewhere too: camera's files go
  python duplicates.py --apply plan.csv                      move them into a hidden folder, which is printed
  python duplicates.py --restore photos/.lookalike-quarantine
                                                             bring all back that was moved into that folder

A plan is a table to be looked through: change `keep` and `remove` in it as you like. Nothing is ever deleted: when you are sure,
delete the hidden folder yourself."""
FINDING = ("neighbours", "burst_seconds", "min_similarity", "new", "plan", "keep", "protect", "bursts")
MODES = ("apply", "restore")
SHOWN = 20
OnProgress = Callable[[str, int, int], None]


def main(argv: Sequence[str]) -> int:
    """Run the command; return its exit status: 0 done, 1 a message says what failed, 2 wrong arguments, 130 interrupted."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    _check(parser, arguments)
    try:
        settings = settings_from_arguments(arguments)
        if arguments.apply:
            return _apply(arguments, settings)
        return _restore(arguments, settings) if arguments.restore else _find(arguments, settings)
    except KeyboardInterrupt:
        print("\nduplicates.py: stopped.", file=sys.stderr)
        return 130
    except LookalikeError as error:
        if arguments.json:
            print(json.dumps({"error": {"code": error.code, "message": str(error)}}))
        print(f"duplicates.py: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="duplicates.py",
        description="Find the duplicates of a collection, plan which files to keep, move the others out of the way and back.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--plan", type=Path, metavar="FILE", help="write what to keep and what to remove into a .csv or .json file")
    add("--keep", default="largest", metavar="{largest,oldest,format,shortest}", help="what to keep of each set")
    add("--protect", action="append", default=[], metavar="FOLDER", help="never propose to remove what lies in it")
    add("--bursts", action="store_true", help="plan to keep one shot of each burst as well")
    add("--new", type=Path, metavar="FOLDER", help="compare this folder with all others only; only its files may go")
    add("--neighbours", type=int, metavar="N", help="how many nearest images of each are looked at (default 15)")
    add("--burst-seconds", type=float, metavar="S", help="how near in time shots of a burst are (default 4, 0: none)")
    add("--min-similarity", type=float, metavar="C", help="cosine from which on two pictures are similar")
    add("--apply", type=Path, metavar="PLAN", help="move the files that a plan removes into quarantine")
    add(
        "--quarantine",
        type=Path,
        metavar="FOLDER",
        help="where to, on the disk of the files (default: a hidden folder in the folder that they share)",
    )
    add("--restore", type=Path, metavar="FOLDER", help="bring back what was moved into this quarantine, or by one run")
    add("--json", action="store_true", help="print the report as JSON")
    add("--quiet", action="store_true", help="no progress")
    add_setting_arguments(parser, SETTINGS)
    return parser


def _check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """End the program with a message where options do not go together, so that none is left out silently."""

    def given(names: Sequence[str]) -> list[str]:
        found = [name for name in names if getattr(arguments, name) not in ([], parser.get_default(name))]
        return ["--" + name.replace("_", "-") for name in found]

    modes = given(MODES)
    if len(modes) > 1:
        parser.error("--apply and --restore are done on their own: leave one to another run")
    if modes and given(FINDING):
        parser.error(f"{modes[0]} has no use for {', '.join(given(FINDING))}")
    if arguments.quarantine is not None and not arguments.apply:
        parser.error("--quarantine is an option of --apply")
    planning = given(("keep", "protect", "bursts"))
    if planning and arguments.plan is None:
        parser.error(f"{planning[0]} is an option of a plan: name one with --plan FILE")


def _progress(arguments: argparse.Namespace) -> OnProgress:
    """Return what shows progress step by step: each begins with its name and has a bar of its own."""
    shown: dict[str, Progress] = {}

    def show(step: str, done: int, total: int) -> None:
        if arguments.quiet or arguments.json:
            return
        if step not in shown:
            say_step(f"{step} …")
            shown[step] = show_progress("files" if step in ("Checking", "Moving", "Bringing back") else "images")
        shown[step](done, total)

    return show


# Finding and planning.


def _find(arguments: argparse.Namespace, settings: Settings) -> int:
    from plans import make_plan, plan_format, write_plan

    if arguments.plan is not None:
        plan_format(arguments.plan)  # before anything takes long
    with contextlib.closing(_opened(settings)) as store:
        choice = _choice(arguments, store)
        found = _found(arguments, settings, store)
        review = _review(store, found)
        report = _report(review, choice)
        plan = None
        if arguments.plan is not None:
            sets: list[DuplicateSet] = [*review.sets("same"), *(review.sets("burst") if arguments.bursts else ())]
            plan = make_plan(sets, choice)
            write_plan(plan, arguments.plan)
            report["plan"] = _plan_report(plan, arguments.plan)
    print(json.dumps(report, indent=2) if arguments.json else _report_text(report, choice, arguments, settings))
    return 0


def _opened(settings: Settings) -> Store:
    from store import open_store

    store = open_store(settings.rsc_files)
    if store.generation() is None:
        store.close()
        raise CollectionMissingError(f"There is no index in {settings.rsc_files} yet: run `python img2vec.py`.")
    return store


def _options(arguments: argparse.Namespace) -> DuplicateOptions:
    from duplicates import DuplicateOptions

    names = ("neighbours", "burst_seconds", "min_similarity")
    return DuplicateOptions(**{name: value for name in names if (value := getattr(arguments, name)) is not None})


def _choice(arguments: argparse.Namespace, store: Store) -> Choice:
    """Return how to choose. Raises `OptionError` for a folder that holds no image: what is misspelt would protect nothing."""
    from plans import Choice
    from store import Filter

    protect = tuple(_folder(Path(folder)) for folder in arguments.protect)
    new = () if arguments.new is None else (_folder(arguments.new),)
    for folder in (*protect, *new):
        if not len(store.matching_ids(Filter(folder=folder), key="")):
            raise OptionError(
                f"No image of the collection lies in {folder!a}. Check the spelling, or index it first: python img2vec.py"
            )
    return Choice(arguments.keep, protect, new)


def _folder(folder: Path) -> str:
    """Return a folder as the catalog has it, by its real path; one that is not there may be a name anywhere in a path."""
    return os.path.realpath(folder) if folder.is_dir() or folder.is_absolute() else str(folder)


def _found(arguments: argparse.Namespace, settings: Settings, store: Store) -> Duplicates:
    """Return the duplicates as they were published, where they still hold; else find them anew."""
    from store import open_writer
    from views.duplicates import compare_images, find_duplicates, images_under

    options, show = _options(arguments), _progress(arguments)
    generation = _generation(store)
    if arguments.new is not None:
        new = images_under(store, Path(_folder(arguments.new)))
        return compare_images(store, generation, options, new=new, on_progress=show)
    published = _published(store, generation, options)
    if published is not None:
        return published
    with open_writer(settings.rsc_files, command="duplicates.py") as writer:
        return find_duplicates(writer, _generation(writer), options, on_progress=show)


def _generation(store: Store) -> Generation:
    generation = store.generation()
    if generation is None:
        raise CollectionMissingError(f"There is no index in {store.folder} any more: run `python img2vec.py`.")
    return generation


def _published(store: Store, generation: Generation, options: DuplicateOptions) -> Duplicates | None:
    """Return the published duplicates where they were found by these options among the images that are there now, else None."""
    from publishing import is_current, view_of
    from views.duplicates import VIEW, open_duplicates

    view = view_of(generation, VIEW)
    if view is None or not is_current(generation, VIEW, view):
        return None
    wanted = {name: value for name, value in asdict(options).items() if value is not None}
    if not wanted.items() <= view.options.items():
        return None
    found = open_duplicates(store, generation)
    return None if len(found.not_compared) else found


def _review(store: Store, found: Duplicates) -> Any:
    from views.reviews import Review

    return Review(store, found)


def _report(review: Any, choice: Choice) -> dict[str, Any]:
    from duplicates import TIERS

    return {
        "tiers": {
            tier: {"pairs": review.count(tier)} if tier == "similar" else asdict(review.totals(tier, choice))
            for tier in TIERS
        },
        "keep": choice.rule,
        "images_not_compared": len(review.duplicates.not_compared),
        "created_at": review.duplicates.created_at,
    }


def _plan_report(plan: Plan, path: Path) -> dict[str, Any]:
    return {
        "file": str(path.absolute()),
        "sets": len(plan.groups),
        "removed": len(plan.removed),
        "removed_bytes": plan.bytes_won,
        "left_out": len(plan.left_out),
    }


def _report_text(report: dict[str, Any], choice: Choice, arguments: argparse.Namespace, settings: Settings) -> str:
    from plans import RULES

    tiers, here = report["tiers"], _folder_option(settings)
    same = tiers["same"]
    lines = [
        f"Identical files:   {_sets_text(tiers['identical'])}",
        f"The same picture:  {_sets_text(same)} (with the identical ones)",
        f"Bursts:            {_sets_text(tiers['burst'])}",
        f"Merely similar:    {tiers['similar']['pairs']:,} pairs",
    ]
    if not same["removed"]:
        lines.append("No file could go: nothing is there twice.")
    else:
        kept = f"of each set is kept {RULES[choice.rule].text}"
        if choice.protect:
            kept = f"of each set is kept what lies in {', '.join(choice.protect)}, else {RULES[choice.rule].text}"
        if choice.new:
            kept = "all is kept but what is new"
        lines.append(f"Could go:          {same['removed']:,} files, {_size(same['removed_bytes'])}, where {kept}")
    plan = report.get("plan")
    if plan is not None:
        lines.append(
            f"Plan:              {arguments.plan}: {plan['removed']:,} files of {plan['sets']:,} sets to be removed, "
            f"{_size(plan['removed_bytes'])}. Nothing has been moved."
        )
        if plan["left_out"]:
            lines.append(
                f"NOTE:              {plan['left_out']:,} files are gone or others than were indexed, and not in it."
            )
        lines.append(f"Apply it:          python duplicates.py --apply {shlex.quote(str(arguments.plan))}{here}")
    elif same["removed"]:
        lines.append(f"Look at them:      python app.py{here}, page /duplicates")
        lines.append(f"Plan:              python duplicates.py --plan duplicates-plan.csv{here}")
    return "\n".join(lines)


def _sets_text(totals: dict[str, int]) -> str:
    return f"{totals['sets']:,} sets of {totals['images']:,} images" if totals["sets"] else "none"


def _size(count: int) -> str:
    return f"{count / 1e9:,.2f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def _folder_option(settings: Settings) -> str:
    return "" if settings.rsc_files == Settings.rsc_files else f" --rsc-files {shlex.quote(str(settings.rsc_files))}"


# Applying and restoring.


def _apply(arguments: argparse.Namespace, settings: Settings) -> int:
    from plans import read_plan
    from quarantine import apply_to_collection

    plan = read_plan(arguments.apply)
    with stopping_gently() as stop:
        applied = apply_to_collection(plan, arguments.quarantine, settings, on_progress=_progress(arguments), stop=stop)
    if arguments.json:
        print(json.dumps(_paths_as_text(asdict(applied)), indent=2))
    else:
        print(_applied_text(applied, arguments, settings))
    return 130 if applied.interrupted else 0


def _applied_text(applied: Applied, arguments: argparse.Namespace, settings: Settings) -> str:
    lines = []
    if applied.already:
        lines.append(f"{applied.already:,} files of the plan had been moved before.")
    if applied.run is not None:
        lines.append(f"{applied.moved:,} files, {_size(applied.moved_bytes)}, were moved to {applied.run}")
    elif not applied.already:
        lines.append("There is nothing to do: the plan removes no file.")
    if applied.images_taken_out:
        lines.append(f"The collection in {settings.rsc_files} is without them now; a service that runs takes that up.")
    elif applied.moved:
        lines.append(
            f"NOTE: No collection in {settings.rsc_files} held them. If another one does, apply the plan again with --rsc-files, "
            "so that it is without them too."
        )
    for run in applied.runs:
        lines.append(f"Bring them back:  python duplicates.py --restore {shlex.quote(str(run))}")
    if applied.run is not None:
        lines.append("The disk has no more room than before: when you are sure, delete that folder yourself.")
    if applied.interrupted:
        lines.append("Interrupted. Apply the plan again to go on.")
    return "\n".join(lines)


def _restore(arguments: argparse.Namespace, settings: Settings) -> int:
    from quarantine import restore_to_collections

    with stopping_gently() as stop:
        restored = restore_to_collections(arguments.restore, settings, on_progress=_progress(arguments), stop=stop)
    if arguments.json:
        print(json.dumps(_paths_as_text(asdict(restored)), indent=2))
    else:
        print(_restored_text(restored))
    return 1 if restored.problems else 130 if restored.interrupted else 0


def _restored_text(restored: Restored) -> str:
    from pipeline import show_path

    lines = [f"{restored.restored:,} files are back at their places, with their times."]
    if restored.already:
        lines.append(f"{restored.already:,} files had been back already.")
    if restored.problems:
        lines.append(f"{len(restored.problems):,} files could not be brought back; they stay in quarantine:")
        lines += [f"  {show_path(path)} {why}" for path, why in restored.problems[:SHOWN]]
        if len(restored.problems) > SHOWN:
            lines.append(f"  … and {len(restored.problems) - SHOWN:,} more (--json lists them all)")
    if restored.not_searchable:
        lines.append(
            f"NOTE: {restored.not_searchable:,} of these images are not searched now, since their collection was compacted or "
            "moved meanwhile. Index them again: python img2vec.py"
        )
    if restored.interrupted:
        lines.append("Interrupted. Restore again to go on.")
    return "\n".join(lines)


def _paths_as_text(value: Any) -> Any:
    """Return a report with its paths as texts that JSON takes."""
    from pipeline import show_path

    if isinstance(value, dict):
        return {name: _paths_as_text(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_paths_as_text(one) for one in value]
    if isinstance(value, Path):
        return show_path(os.fsencode(value))
    return show_path(value) if isinstance(value, bytes) else value
