"""`python map2d.py`: arguments, progress and printing of maps, and which files are made of them."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commands.progress import say_step, show_progress
from config import Settings, add_setting_arguments, settings_from_arguments
from errors import CollectionMissingError, LookalikeError

if TYPE_CHECKING:
    from publishing import View
    from store import Generation, Store
    from views.map import Map, MapOptions

SETTINGS = ("rsc_files", "threads")
EPILOG = """examples:
  python map2d.py                                   lay out by likeness (t-SNE), as a grid, and by date
  python map2d.py --layout umap                     by UMAP as well: pip install -r requirements/umap.txt
  python map2d.py --poster map.png                  one large picture of the map with all thumbnails
  python map2d.py --poster grid.png --layout grid --size 12000
  python map2d.py --output map.csv --yale map.json

The map is then shown by python app.py, at /map. What comes into the collection afterwards lies among what is like it, and moves
nothing; python map2d.py lays all out anew."""


def main(argv: Sequence[str]) -> int:
    """Run the command; return its exit status: 0 done, 1 failed with a message, 2 wrong arguments, 130 interrupted."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.size is not None and arguments.poster is None:
        parser.error("--size is that of a poster: name its file with --poster")
    # t-SNE's threads wait for one another thousands of times; by spinning they took twice the processor time (docs/maps.md).
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        return _run(arguments, settings_from_arguments(arguments))
    except KeyboardInterrupt:
        print("\nmap2d.py: stopped; the map published before stays.", file=sys.stderr)
        return 130
    except LookalikeError as error:
        if arguments.json:
            print(json.dumps({"error": {"code": error.code, "message": str(error)}}))
        print(f"map2d.py: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="map2d.py",
        description="Lay the images of a collection out in the plane, near to what is like them.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--layout",
        action="append",
        metavar="{tsne,umap,grid,date}",
        help="may be given again (default tsne, grid and date); the first is that of --poster and --yale",
    )
    add("--seed", type=int, default=0, metavar="N", help="another seed gives another map, equally good (default 0)")
    add("--again", action="store_true", help="compute also what nothing has changed for")
    add(
        "--output",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help=".csv, .json or .parquet: a row an image, all layouts; may be given again",
    )
    add("--yale", type=Path, metavar="FILE", help="JSON as the Yale DHLab's: {name: {x, y, idx}}")
    add("--poster", type=Path, metavar="FILE", help="a PNG of the map with all thumbnails")
    add("--size", type=int, metavar="PIXELS", help="the poster's longer side (default 8000)")
    add("--json", action="store_true", help="print the report as JSON")
    add("--quiet", action="store_true", help="no progress")
    add_setting_arguments(parser, SETTINGS)
    return parser


def _run(arguments: argparse.Namespace, settings: Settings) -> int:
    from store import open_store
    from views.map import MapOptions, is_current, open_map
    from views.map_files import check_target

    for path in arguments.output:
        check_target(path)
    options = MapOptions(tuple(arguments.layout or MapOptions.layouts), arguments.seed)
    with contextlib.closing(open_store(settings.rsc_files)) as store:
        # Only what has to be computed needs the writer's lock: files are made of a map also while a job runs.
        computed: list[str] = []
        if arguments.again or not is_current(store, _generation(store, settings), options):
            computed = _compute(arguments, settings, options)
        opened = open_map(store, _generation(store, settings))
        made = _make_files(arguments, store, opened, options.layouts[0])
    report = {**opened.view.report, "options": opened.view.options, "computed": computed, "made": made}
    print(json.dumps(report, indent=2) if arguments.json else _report_text(opened.view, computed, made, settings))
    return 0


def _generation(store: Store, settings: Settings) -> Generation:
    generation = store.generation()
    if generation is None:
        raise CollectionMissingError(f"There is no index in {settings.rsc_files} yet: run `python img2vec.py`.")
    return generation


def _compute(arguments: argparse.Namespace, settings: Settings, options: MapOptions) -> list[str]:
    from store import open_writer
    from views.map import build_map

    told = _Told(silent=arguments.quiet or arguments.json)
    with open_writer(settings.rsc_files, command="map2d.py") as writer:
        _, computed = build_map(
            writer,
            _generation(writer, settings),
            options,
            threads=settings.cpu_threads,
            again=arguments.again,
            on_step=told.step,
            on_progress=told.progress,
        )
    return computed


class _Told:
    """Says what is begun, and of each step how far it is."""

    def __init__(self, *, silent: bool) -> None:
        self._silent = silent
        self._show = show_progress("", silent=True)

    def step(self, text: str) -> None:
        """Say what is begun."""
        if not self._silent:
            say_step(text)
            self._show = show_progress("steps")

    def progress(self, done: int, total: int) -> None:
        """Say how far what was begun last is."""
        self._show(done, total)


def _make_files(arguments: argparse.Namespace, store: Store, opened: Map, layout: str) -> dict[str, Any]:
    """Write what is asked for; return what was made, by its option, JSON-able."""
    from views.map_files import write_map, write_yale
    from views.poster import SIZE, save_poster

    made: dict[str, Any] = {}
    for path in arguments.output:
        write_map(store, opened, path)
        made.setdefault("output", []).append(str(path.absolute()))
    if arguments.yale is not None:
        write_yale(store, opened, layout, arguments.yale)
        made["yale"] = str(arguments.yale.absolute())
    if arguments.poster is not None:
        progress = show_progress("pictures", silent=arguments.quiet or arguments.json)
        size = SIZE if arguments.size is None else arguments.size
        width, height = save_poster(store, opened, layout, arguments.poster, size=size, on_progress=progress)
        made["poster"] = {"file": str(arguments.poster.absolute()), "width": width, "height": height}
    return made


def _report_text(view: View, computed: list[str], made: dict[str, Any], settings: Settings) -> str:
    lines = [f"Map of:    {view.report['images']:,} images, {view.report['components']} principal components"]
    for name, row in view.report["layouts"].items():
        lines.append(f"{name + ':':<10} {_layout_text(name, row, name in computed)}")
    if not computed:
        lines.append("Nothing changed since it was computed. Compute it all the same: --again")
    lines += [f"Written:   {path}" for path in [*made.get("output", []), *filter(None, [made.get("yale")])]]
    if "poster" in made:
        poster = made["poster"]
        lines.append(f"Poster:    {poster['file']}, {poster['width']:,} × {poster['height']:,} pixels")
    folder = "" if settings.rsc_files == Settings.rsc_files else f" --rsc-files {shlex.quote(str(settings.rsc_files))}"
    lines.append(f"See it:    python app.py{folder}, then /map")
    return "\n".join(lines)


def _layout_text(name: str, row: dict[str, Any], computed: bool) -> str:
    if name == "date":
        return (
            f"{row['dated']:,} images by {row['unit']}; no other has a time" if row["dated"] else "no image has a time"
        )
    text = f"{row['seconds']:,.1f} s" + ("" if computed else " when it was computed")
    if row["trustworthiness"] is None:
        return text
    return f"{text}, trustworthiness {row['trustworthiness']:.3f}"
