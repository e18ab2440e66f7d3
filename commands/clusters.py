"""`python clusters.py`: arguments, progress and printing of groups, and which files are made of them."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commands.progress import say_nothing, say_step
from config import Settings, add_setting_arguments, settings_from_arguments
from errors import CollectionMissingError, LookalikeError, OptionError

if TYPE_CHECKING:
    from store import Store
    from views.group_links import LinkKind
    from views.grouping import Built, GroupOptions, TimeSource
    from views.groups import GroupList, Groups

SETTINGS = ("rsc_files",)
EPILOG = """examples:
  python clusters.py                                put the collection in groups, at a sim that is proposed
  python clusters.py --sim 0.6                      smaller groups: the same tree cut anew, at once
  python clusters.py --links groups                 a folder of links: groups/cluster_with_12/cluster_0/…
  python clusters.py --output groups.json --output groups.csv --picture groups.png --dendrogram tree.png
  python clusters.py --time auto --alpha 0.5        pictures of one moment, too: half content, half when they were taken
  python clusters.py --raw --sim 0.5 --components 0.95                            imagecluster's own way

The groups are then shown by python app.py, at /groups, where they can be cut at any sim and given names."""


def main(argv: Sequence[str]) -> int:
    """Run the command; return its exit status: 0 done, 1 failed with a message, 2 wrong arguments, 130 interrupted."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.links is None and (arguments.copy or arguments.hardlink or arguments.force):
        parser.error("--copy, --hardlink and --force say how --links makes its folder: name one")
    try:
        return _run(arguments, settings_from_arguments(arguments))
    except KeyboardInterrupt:
        print("\nclusters.py: stopped; the groups published before stay.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `… | head` has seen enough; without this Python complains again when it flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except LookalikeError as error:
        if arguments.json:
            print(json.dumps({"error": {"code": error.code, "message": str(error)}}))
        print(f"clusters.py: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="clusters.py",
        description="Put the images of a collection in groups of those that are alike.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--sim", type=float, metavar="S", help="0 one group … 1 every image alone (default: proposed from the tree)")
    add("--min-size", type=int, default=2, metavar="N", help="leave out groups of fewer images (default 2)")
    add(
        "--time",
        choices=("auto", "exif", "stat"),
        help="mix in when images were taken: the camera's time, else the file's",
    )
    add("--alpha", type=float, metavar="A", help="weight of time, 0…1 (default 0.3; alone it means --time auto)")
    add("--raw", action="store_true", help="of the raw vectors, as imagecluster, not of averages with the nearest")
    add("--method", default="average", help="how groups are linked, as scipy's linkage has it (default average)")
    add("--metric", default="euclidean", help="distance of two vectors (default euclidean)")
    add("--components", metavar="C", help="principal components first: so many, or a share of the variance (0.95)")
    add("--links", type=Path, metavar="FOLDER", help="make cluster_with_N/cluster_i/ of links to the pictures in it")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--copy", action="store_true", help="with --links: copies of the files")
    kind.add_argument("--hardlink", action="store_true", help="with --links: hard links")
    add("--force", action="store_true", help="with --links: beside whatever else the folder holds")
    add(
        *("--output",),
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help=".json: {size: [[file, …], …]}; .csv: a row an image; may be given again",
    )
    add("--picture", type=Path, metavar="FILE", help="a PNG of all groups, a column each")
    add("--dendrogram", type=Path, metavar="FILE", help="a PNG of the tree and where it is cut")
    add("--json", action="store_true", help="print the report as JSON")
    add("--quiet", action="store_true", help="no progress")
    add_setting_arguments(parser, SETTINGS)
    return parser


def _options(arguments: argparse.Namespace) -> GroupOptions:
    from views.grouping import GroupOptions

    times: TimeSource | None = arguments.time or ("auto" if arguments.alpha is not None else None)
    return GroupOptions(
        sim=arguments.sim,
        min_size=arguments.min_size,
        raw=arguments.raw,
        method=arguments.method,
        metric=arguments.metric,
        components=_components(arguments.components),
        alpha=0.3 if arguments.alpha is None else arguments.alpha,
        times=times,
    )


def _components(text: str | None) -> int | float | None:
    if text is None:
        return None
    try:
        return int(text) if text.isdecimal() else float(text)
    except ValueError:
        raise OptionError(
            f"components is {text!r}. Give a whole number from 1, or a share of the variance between 0 and 1."
        ) from None


def _run(arguments: argparse.Namespace, settings: Settings) -> int:
    from store import open_store, open_writer
    from views.group_files import check_targets
    from views.group_pictures import check_pictures
    from views.grouping import build_groups
    from views.groups import open_groups

    options = _options(arguments)
    check_targets(arguments.output)
    check_pictures([path for path in (arguments.picture, arguments.dendrogram) if path is not None])
    open_store(settings.rsc_files).close()  # a writer would make a collection where there is none
    with open_writer(settings.rsc_files, command="clusters.py") as writer:
        generation = writer.generation()
        if generation is None:
            raise CollectionMissingError(f"There is no index in {settings.rsc_files} yet: run `python img2vec.py`.")
        silent = arguments.quiet or arguments.json
        built = build_groups(writer, generation, options, on_step=say_nothing if silent else say_step)
    with contextlib.closing(open_store(settings.rsc_files)) as store:
        published = store.generation()
        if published is None:
            raise CollectionMissingError(f"The index in {settings.rsc_files} is gone: run `python img2vec.py`.")
        groups = open_groups(store, published)
        made = _make_files(arguments, store, groups)
    report = {**built.view.report, "options": built.view.options, "tree_kept": built.tree_kept, "made": made}
    print(json.dumps(report, indent=2) if arguments.json else _report_text(built, made, settings))
    return 0


# Files.


def _make_files(arguments: argparse.Namespace, store: Store, groups: Groups) -> dict[str, Any]:
    """Write what is asked for; return what was made, by its option, JSON-able."""
    from views.group_files import thumbnails_of, write_groups
    from views.group_pictures import draw_groups

    shown = groups.at()
    made: dict[str, Any] = {}
    for path in arguments.output:
        write_groups(store, shown, path)
        made.setdefault("output", []).append(str(path.absolute()))
    if arguments.links is not None:
        made["links"] = _make_links(arguments, store, shown)
    if arguments.picture is not None:
        report = draw_groups(arguments.picture, shown.members(), thumbnails_of(store))
        made["picture"] = {"file": str(arguments.picture.absolute()), **asdict(report)}
    if arguments.dendrogram is not None:
        groups.draw_tree(arguments.dendrogram)
        made["dendrogram"] = str(arguments.dendrogram.absolute())
    return made


def _make_links(arguments: argparse.Namespace, store: Store, shown: GroupList) -> dict[str, Any]:
    from views.group_files import group_paths
    from views.group_links import write_links

    kind: LinkKind = "copy" if arguments.copy else "hardlink" if arguments.hardlink else "symlink"
    report = write_links(arguments.links, group_paths(store, shown), kind=kind, force=arguments.force)
    return {"folder": str(arguments.links.absolute()), "kind": kind, **asdict(report)}


# What is printed.


def _report_text(built: Built, made: dict[str, Any], settings: Settings) -> str:
    report, options = built.view.report, built.view.options
    shown = f"{_count(report['groups'], 'group')} of {_count(report['grouped'], 'image')}"
    lines = [
        f"Made of:   {_count(report['images'], 'image')}, {_recipe_text(report, options['tree'])}",
        f"Tree:      {_tree_text(built)}",
        f"sim:       {report['sim']:.8g}, {_sim_text(report, options)}",
        f"Groups:    {shown}; {_alone_text(report['alone'], options['min_size'])}",
    ]
    if report["without_time"]:
        lines.append(
            f"NOTE:      {_count(report['without_time'], 'image')} without a time; content alone says where they belong."
        )
    if report["sizes"]:
        lines += ["", "#images : #clusters", *(f"{size:>7} : {count}" for size, count in report["sizes"].items())]
        lines += [f"#images in clusters total: {report['grouped']}", ""]
    lines += _made_lines(made)
    lines.append(f"See them:  python app.py{_folder_option(settings)}, then /groups")
    return "\n".join(lines)


def _recipe_text(report: dict[str, Any], tree: dict[str, Any]) -> str:
    text = {
        "raw": "their raw vectors",
        "averages": "each averaged with those nearest to it",
        "plain": "their vectors as directions",
    }[report["made_of"]]
    text += "" if tree["components"] is None else f", {tree['components']} principal components"
    return text + ("" if tree["times"] is None else f", times ({tree['times']}) with the weight {tree['alpha']:g}")


def _alone_text(alone: int, min_size: int) -> str:
    are = f"{alone:,} {'is' if alone == 1 else 'are'}"
    return f"{are} alone" if min_size <= 2 else f"{are} in groups of fewer than {min_size}"


def _count(many: int, what: str) -> str:
    return f"{many:,} {what}{'' if many == 1 else 's'}"


def _tree_text(built: Built) -> str:
    tree = built.view.options["tree"]
    over = {"full": "over all distances", "graph": "over the graph of nearest neighbours"}[built.view.report["how"]]
    text = f"{tree['method']} linkage, {tree['metric']}, {over}"
    if not built.tree_kept:
        return text
    return text + (
        "; it was there already and is only cut" if built.published else "; nothing changed since the last run"
    )


def _sim_text(report: dict[str, Any], options: dict[str, Any]) -> str:
    if options["sim"] is None:
        return (
            "the middle: at no sim do groups stand apart"
            if report["unclear"]
            else "proposed: its groups stand apart best"
        )
    return f"as you asked ({report['proposed_sim']:.8g} is {'the middle' if report['unclear'] else 'proposed'})"


def _made_lines(made: dict[str, Any]) -> list[str]:
    lines = [f"Written:   {path}" for path in made.get("output", [])]
    if "links" in made:
        links = made["links"]
        gone = f"; {_count(links['without_file'], 'image')} without a file" if links["without_file"] else ""
        lines.append(f"Links:     {links['links']:,} ({links['kind']}) in {links['folder']}{gone}")
    if "picture" in made:
        picture = made["picture"]
        lines.append(f"Picture:   {picture['file']}{_left_out(picture)}")
    if "dendrogram" in made:
        lines.append(f"Tree:      {made['dendrogram']}")
    return lines


def _left_out(picture: dict[str, Any]) -> str:
    if picture["images_shown"] == picture["images"]:
        return ""
    return (
        f": {picture['images_shown']:,} of {picture['images']:,} images, the most central of the "
        f"{picture['groups_shown']:,} largest of {picture['groups']:,} groups; all would be too large a picture"
    )


def _folder_option(settings: Settings) -> str:
    return "" if settings.rsc_files == Settings.rsc_files else f" --rsc-files {shlex.quote(str(settings.rsc_files))}"
