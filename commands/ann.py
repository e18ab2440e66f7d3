"""`python ann.py PICTURE…`: arguments and printing of searches, of the graph of all images and of the index's self-test."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commands import evaluate
from commands.progress import show_progress
from commands.sheets import SHEETS, Sheets
from config import Settings, add_setting_arguments, settings_from_arguments
from errors import (
    CollectionMissingError,
    LookalikeError,
    NotAnImageError,
    QueryError,
    SettingsError,
    UnreadableFileError,
)

if TYPE_CHECKING:
    from search import Box, Example, Filter, Query, SearchResult, SearchService
    from search.loaded import Loaded
    from search.rows import Rows

SETTINGS = (
    *("rsc_files", "test_folder", "index", "trees", "search_k"),
    *("backbone", "layer", "weights", "engine", "precision", "threads", "gpus", "max_bytes", "max_pixels"),
)
FILTERS = {
    "folder": "only images in this folder (a path, or the name of one anywhere in the path)",
    "label": "only images of this label",
    "tag": "only images that were given this tag",
    "looks_like": "only images that the network takes for this, such as: cat",
    "taken_from": "only images taken at this time or later, such as 2019-08-03",
    "taken_until": "only images taken at this time or earlier",
    "min_side": "only images whose shorter side has so many pixels",
    "max_side": "only images whose longer side has no more pixels",
    "orientation": "only landscape, portrait or square images",
}
EPILOG = """examples:
  python ann.py cat.jpg                                  the 5 most similar images, and a contact sheet of them
  python ann.py "holiday/*.jpg" --sheet sheets           many pictures, ten matches each, a sheet for each in a folder
  python ann.py --image-id 17 --metric euclidean --sheet ten.png
  python ann.py --image-id 17 --folder 2019 --no-sheet   like image 17, among those in the folder 2019
  python ann.py cat.jpg dog.jpg --together --unlike car.jpg
  python ann.py cat.jpg --box 0,0,0.5,1                  like the left half of it
  python ann.py cat.jpg --radius 0.2 --format csv        everything that is near, for other programs
  python ann.py                                          every picture of the folder that the setting test_folder names
  python ann.py --graph neighbours.parquet -k 10         the nearest of every image; also .csv, .json, .graphml, or a folder/
  python ann.py --evaluate                               how good the answers are, by the folders as labels
  python ann.py --self-test --index usearch              build the index anew, and see how well it answers

A picture that is in the collection is left out of its own matches. Order is as on the pages unless --ranking says otherwise."""
OF_INDEX = ("index", "trees", "search_k")
OF_SEARCH = (
    *("pictures", "image_id", "unlike", "together", "box", "k", "radius", "metric", "ranking", *FILTERS),
    *("format", "output", "sheet"),
)
WORKS: Mapping[str, Sequence[str]] = {
    "graph": ("k", "radius", "metric"),
    "evaluate": ("format", "output"),
    "self_test": (),
}
"""What is done instead of a search, and which of the options of a search it uses."""
DEFAULT_K = 5
YALE_K = 30
PICTURES_AT_ONCE = 8
"""Files held in memory at a time."""
FORMATS = ("table", "csv", "json", "parquet")


def main(argv: Sequence[str]) -> int:
    """Run the command; return its exit status: 0 done, 1 a message says what failed, 2 wrong arguments."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    _check(parser, arguments)
    try:
        settings = settings_from_arguments(arguments)
        if arguments.self_test:
            return _self_test(arguments, settings)
        if arguments.evaluate:
            return evaluate.run(arguments, settings)
        return _graph(arguments, settings) if arguments.graph else _search(arguments, settings)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `… | head` has seen enough; without this Python complains again when it flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except LookalikeError as error:
        print(f"ann.py: {error}", file=sys.stderr)
        return 1


def _check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """End the program with a message where options do not go together, so that none is left out silently."""

    def given(names: Iterable[str]) -> list[str]:
        """Return the options among `names` that were given, as they are written."""
        options = [name for name in names if getattr(arguments, name) not in ([], parser.get_default(name))]
        return [
            name if name == "pictures" else "-k" if name == "k" else "--" + name.replace("_", "-") for name in options
        ]

    if arguments.pictures and arguments.image_id:
        parser.error(f"name pictures ({arguments.pictures[0]}) or --image-id {arguments.image_id[0]}, not both")
    if not arguments.self_test and given(OF_INDEX):
        parser.error(f"{given(OF_INDEX)[0]} builds the index anew: give it with --self-test")
    works = given(WORKS)
    if len(works) > 1:
        parser.error(f"{' and '.join(works)} are done on their own: leave one to another run")
    if arguments.labels is not None and not arguments.evaluate:
        parser.error("--labels names the labels of --evaluate")
    if arguments.include_self and not arguments.graph:
        parser.error("--include-self is an option of --graph")
    if works:
        used = WORKS[works[0][2:].replace("-", "_")]
        others = given(name for name in OF_SEARCH if name not in used)
        if others:
            parser.error(
                f"{works[0]} has no use for {', '.join(others)}: leave {'it' if len(others) == 1 else 'them'} out"
            )
    if arguments.sheet is not None and arguments.no_sheet:
        parser.error("give --sheet or --no-sheet, not both")


def _parser() -> argparse.ArgumentParser:
    from ann import METRICS
    from search.sheet import SHEET_K

    parser = argparse.ArgumentParser(
        prog="ann.py",
        description="Find the images of a collection that are similar to a picture.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("pictures", nargs="*", metavar="PICTURE", help="files, folders (searched through) or globs; each is a query")
    add(
        "--image-id",
        type=int,
        action="append",
        metavar="ID",
        help="search by an image of the collection; each is a query",
    )
    add("--unlike", action="append", default=[], metavar="PICTURE", help="a picture that matches should not be like")
    add("--together", action="store_true", help="all pictures are one query: what is like all of them")
    add("--box", metavar="L,T,R,B", help="only this part of each picture, as shares 0…1 of its width and height")
    add("-k", metavar="N", help=f"how many matches, or all (default {DEFAULT_K}; with --radius all within it)")
    add("--radius", type=float, metavar="D", help="the largest distance, inclusive")
    add(
        "--metric",
        default="cosine",
        metavar="NAME",
        help=f"distance: {', '.join(METRICS)} (default cosine: 1 - cosine)",
    )
    add("--ranking", metavar="{kind,plain}", help="order of matches (default: the collection's own)")
    for name, text in FILTERS.items():
        kind = int if name.endswith("_side") else str
        add("--" + name.replace("_", "-"), type=kind, metavar=name.rpartition("_")[2].upper(), help=text)
    add("--format", choices=FORMATS, default="table", help="how matches are printed (default table)")
    add("--output", type=Path, metavar="FILE", help="write them into a file instead")
    add("--sheet", metavar="PLACE", help=f"a sheet of {SHEET_K} matches: a .png file, or a folder (default {SHEETS}/)")
    add("--no-sheet", action="store_true", help="write no contact sheet")
    add("--graph", metavar="PLACE", help="write the nearest images of every image into a file or folder, then stop")
    add("--include-self", action="store_true", help="with --graph: each image is its own first neighbour")
    text = "print how well the index answers, then stop; --index, --trees and --search-k build it anew before"
    add("--self-test", action="store_true", help=text)
    evaluate.add_arguments(parser)
    add_setting_arguments(parser, SETTINGS)
    return parser


# Searching.


@dataclass(frozen=True)
class _Asked:
    """One query: what it is called in the rows, and on the sheet, and the images (ids) and files (paths) that it is for.

    `found`: it was met in a folder or by a glob, and so may be no picture at all.
    """

    label: str
    name: str
    likes: tuple[int | bytes, ...]
    found: bool = False


def _search(arguments: argparse.Namespace, settings: Settings) -> int:
    from search import SearchService

    # What the owner of a machine names on its command line is no upload.
    settings = replace(settings, upload_max_bytes=settings.max_bytes, upload_max_pixels=settings.max_pixels)
    with contextlib.closing(SearchService(settings, load_network=False)) as service:
        asked, problems = _asked(arguments, settings, service)
        sheets = None if arguments.no_sheet else Sheets(arguments.sheet, len(asked))
        answers = _answers(arguments, service, asked)
        pictures = False
        with _printing(arguments) as show:
            for one, query, answer in answers:
                if isinstance(answer, LookalikeError):
                    if not (one.found and isinstance(answer, NotAnImageError)):
                        problems.append(f"{one.label}: {answer}")
                    continue
                pictures = True
                show(_rows(service, one.label, answer), answer)
                if sheets is not None:
                    sheets.write(service, one.name, query, answer)
    if not pictures and not problems:
        named = arguments.pictures or [str(settings.test_folder)]
        problems = [f"there is no picture in {', '.join(named)}: nothing was searched for."]
    for problem in problems:
        print(f"ann.py: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _asked(arguments: argparse.Namespace, settings: Settings, service: SearchService) -> tuple[list[_Asked], list[str]]:
    """Return the queries that the arguments mean, and what is wrong with the others."""
    from pipeline import show_path

    loaded = service.ready()
    if arguments.image_id:
        by_id = [_one(show_path(loaded.store.record(image_id).path), image_id) for image_id in arguments.image_id]
        return _joined(arguments, by_id), []
    patterns = arguments.pictures or ([str(settings.test_folder)] if settings.test_folder is not None else [])
    if not patterns:
        raise SettingsError(
            "No picture is named. Name one (python ann.py cat.jpg), or a folder of them by the setting test_folder: "
            "--test-folder, LOOKALIKE_TEST_FOLDER or lookalike.toml."
        )
    problems: list[str] = []
    queries = [
        query for pattern in patterns for query in _meant(os.fsencode(pattern), loaded, settings.rsc_files, problems)
    ]
    return _joined(arguments, queries), problems


def _joined(arguments: argparse.Namespace, queries: list[_Asked]) -> list[_Asked]:
    """Return each query once, or, where --together is given, the one that they are."""
    if arguments.together and queries:
        both = tuple(like for query in queries for like in query.likes)
        labels, names = zip(*((query.label, query.name) for query in queries), strict=True)
        return [_Asked(", ".join(labels), ", ".join(names), both)]
    return list(dict.fromkeys(queries))


def _one(label: str, like: int | bytes, *, found: bool = False) -> _Asked:
    return _Asked(label, os.path.basename(label), (like,), found)


def _meant(pattern: bytes, loaded: Loaded, rsc_files: Path, problems: list[str]) -> Iterator[_Asked]:
    """Yield a query for each picture that a pattern means; what it means nothing by goes to `problems`."""
    from images import find_images
    from pipeline import show_path
    from search.looking import find_record, known_id

    record = find_record(loaded, pattern)
    image_id = known_id(loaded, pattern)
    if record is not None and image_id is not None:  # perhaps one without a file
        yield _one(show_path(record.path), image_id)
        return
    files = find_images([pattern], exclude=[rsc_files])
    problems += [f"nothing matches {show_path(os.fsencode(name))}" for name in files.unmatched]
    problems += [f"{show_path(os.fsencode(name))} cannot be read" for name in files.unreadable]
    for path in files.paths:
        image_id = known_id(loaded, path)
        yield _one(show_path(path), path if image_id is None else image_id, found=path != os.path.realpath(pattern))


def _answers(
    arguments: argparse.Namespace, service: SearchService, asked: Sequence[_Asked]
) -> Iterator[tuple[_Asked, Query, SearchResult | LookalikeError]]:
    """Answer the queries in their order, a few at a time. Raises at once what is wrong with the options, and so with all."""
    from search import Example

    box = _box(arguments.box)
    usual = _query(arguments, [Example(0)], _unlike(arguments, service), _filter(arguments))
    return _answered(service, asked, usual, box)


def _answered(
    service: SearchService, asked: Sequence[_Asked], usual: Query, box: Box | None
) -> Iterator[tuple[_Asked, Query, SearchResult | LookalikeError]]:
    for start in range(0, len(asked), PICTURES_AT_ONCE):
        queries: list[Query] = []
        failed: dict[int, LookalikeError] = {}
        block = asked[start : start + PICTURES_AT_ONCE]
        for place, one in enumerate(block):
            try:
                likes = [_example(like, box) for like in one.likes]
            except UnreadableFileError as error:
                failed[place] = error
            else:
                queries.append(replace(usual, like=tuple(likes)))
        answers = iter(zip(queries, service.search_many(queries), strict=True))
        yield from (
            (one, usual, failed[place]) if place in failed else (one, *next(answers)) for place, one in enumerate(block)
        )


def _unlike(arguments: argparse.Namespace, service: SearchService) -> list[Example]:
    """Look once at the pictures not to be like. Raises what is wrong with one: without it every answer would be another."""
    from search import Example
    from search.looking import look

    seen = look(service.ready(), service.settings, [os.fsencode(path) for path in arguments.unlike])
    for error in seen.errors.values():
        raise error
    return [Example(v if i is None else i) for i, v in zip(seen.ids, seen.vectors, strict=True)]


def _example(source: int | bytes, box: Box | None) -> Example:
    from search import Example

    if isinstance(source, int):
        return Example(source, box)
    try:
        with open(source, "rb") as file:
            return Example(file.read(), box)
    except OSError as error:
        raise UnreadableFileError(f"The file cannot be read: {error.strerror}.") from error


def _query(arguments: argparse.Namespace, likes: list[Example], away: list[Example], where: Filter | None) -> Query:
    from search import Query
    from search.sheet import SHEET_K

    return Query(
        tuple(likes),
        tuple(away),
        k=_count(arguments, DEFAULT_K if arguments.sheet is None else SHEET_K),
        radius=arguments.radius,
        metric=arguments.metric,
        ranking=arguments.ranking,
        where=where,
    )


def _count(arguments: argparse.Namespace, default: int) -> int | None:
    """Return how many matches are wanted, None for all."""
    if arguments.k is None:
        return default if arguments.radius is None else None
    if arguments.k == "all":
        return None
    try:
        return int(arguments.k)
    except ValueError:
        raise QueryError(f"-k is {arguments.k!r}, but must be a whole number or the word all.") from None


def _filter(arguments: argparse.Namespace) -> Filter | None:
    from search import Filter

    given = {name: getattr(arguments, name) for name in FILTERS if getattr(arguments, name) is not None}
    return Filter(**given) if given else None


def _box(text: str | None) -> Box | None:
    from search import Box

    if text is None:
        return None
    try:
        left, top, right, bottom = map(float, text.split(","))
    except ValueError:
        raise QueryError(f"--box is {text!r}, but must be four numbers from 0 to 1: left,top,right,bottom.") from None
    return Box(left, top, right, bottom)


def _rows(service: SearchService, label: str, answer: SearchResult) -> Rows:
    import numpy as np

    from ann import Neighbours
    from pipeline import show_path
    from search.rows import make_rows

    ids = [match.image.image_id for match in answer.matches]
    distances = [match.distance for match in answer.matches]
    found = Neighbours(np.array([ids], dtype=np.int64), np.array([distances], dtype=np.float32))
    records = service.ready().store.records(ids)
    return make_rows([label], found, {image_id: show_path(record.path) for image_id, record in records.items()})


@contextlib.contextmanager
def _printing(arguments: argparse.Namespace) -> Iterator[Callable[[Rows, SearchResult], None]]:
    """Give what prints the rows of one query, or writes them into the file of --output."""
    from search.rows import open_rows, rows_text
    from tables import whole_file

    with contextlib.ExitStack() as stack:
        stream: Any = sys.stdout.buffer
        if arguments.output is not None:
            stream = stack.enter_context(whole_file(arguments.output))
        elif arguments.format == "parquet" and sys.stdout.isatty():
            raise SettingsError("A Parquet file is nothing for a terminal: name a file by --output.")
        if arguments.format == "table":

            def show(rows: Rows, answer: SearchResult) -> None:
                stream.write((rows_text(rows) + _remark(answer) + "\n\n").encode())
                stream.flush()

        else:
            write = stack.enter_context(open_rows(stream, arguments.format))

            def show(rows: Rows, answer: SearchResult) -> None:
                write(rows)

        yield show
        stream.flush()


def _remark(answer: SearchResult) -> str:
    """Return what a person should know of an answer besides its rows."""
    if answer.good_matches == 0 and answer.matches:
        return "\nNo good match: these are the nearest, but they do not stand out from the rest of the collection."
    if not answer.matches:
        return "\nNothing matches."
    distances = [match.distance for match in answer.matches]
    return (
        ""
        if distances == sorted(distances)
        else "\nIn order of kind after the third; --ranking plain sorts by distance."
    )


# The whole collection.


def _graph(arguments: argparse.Namespace, settings: Settings) -> int:
    """Write the nearest images of every image."""
    from ann import similarity_graph
    from exporting import export_graph, graph_format
    from search import SearchService

    target = Path(arguments.graph)
    file_format = graph_format(target, is_folder=arguments.graph.endswith("/"))
    if file_format == "neighbours" and arguments.metric != "cosine":
        raise QueryError(f"A folder of neighbours holds cosine similarities: --metric {arguments.metric} needs a file.")
    with contextlib.closing(SearchService(settings, load_network=False)) as service:
        loaded = service.ready()
        edges = similarity_graph(
            loaded.index,
            _count(arguments, YALE_K if file_format == "neighbours" else DEFAULT_K),
            radius=arguments.radius,
            metric=arguments.metric,
            include_self_edges=arguments.include_self,
            on_progress=show_progress("images"),
        )
        count = export_graph(loaded.store, edges, target, file_format)
    print(f"{count:,} edges of {len(loaded.snapshot):,} images are in {target}.")
    return 0


def _self_test(arguments: argparse.Namespace, settings: Settings) -> int:
    """Print the self-test of the published index; with options of an index, build it anew with them first."""
    from networks import own_network
    from publishing import publish
    from store import open_store, open_writer

    open_store(settings.rsc_files).close()  # a writer would make a collection where there is none
    if any(getattr(arguments, name) is not None for name in OF_INDEX):
        with open_writer(settings.rsc_files, command="ann.py --self-test") as writer:
            network = own_network(writer)
            if network is not None:
                publish(writer, network.key, settings, on_note=lambda note: print(f"NOTE: {note}", file=sys.stderr))
    store = open_store(settings.rsc_files)
    generation = store.generation()
    store.close()
    if generation is None:
        raise CollectionMissingError(f"There is no index in {settings.rsc_files} yet: run `python img2vec.py`.")
    print(_self_test_text(generation.manifest["index"]))
    return 0


def _self_test_text(index: Mapping[str, Any]) -> str:
    """Return the ladder of an index's self-test as a table, and which step is used."""
    test = index["self_test"]
    if test is None:
        return f"Exact search over {index['items']:,} images: there is nothing to test. {index['reason']}".rstrip()
    lines = [
        f"{index['kind']}, {index['items']:,} images, tested with {test['queries']} of them against exact search "
        f"({test['exact_ms']:.2f} ms each when asked all at once)",
        f"{'search_k':>9}  {'candidates':>10}  {'recall@' + str(test['k']):>9}  {'ms a query':>10}",
    ]
    for step in test.get("ladder") or [test]:
        oversample = step.get("oversample", 1)
        is_used = (step["search_k"], oversample) == (index["search_k"], index.get("oversample", 1))
        used = "  used" if is_used and index["kind"] != "exact" else ""
        lines.append(
            f"{step['search_k']:>9,}  {'×' + str(oversample):>10}  {step['recall']:>9.2%}  {step['query_ms']:>10.3f}{used}"
        )
    return "\n".join([*lines, *([index["reason"]] if index["reason"] else [])])
