"""`python img2vec.py PATTERN…`: arguments, progress and printing of the indexing job."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from commands import exchange
from commands.progress import say_nothing, say_step, show_progress, stopping_gently
from config import Settings, add_setting_arguments, settings_from_arguments
from errors import CollectionMissingError, LookalikeError, SettingsError

if TYPE_CHECKING:
    from img2vec import Report

SETTINGS = (
    "rsc_files",
    "backbone",
    "layer",
    "weights",
    "engine",
    "precision",
    "threads",
    "gpus",
    "batch_size",
    "index",
    "trees",
    "search_k",
    "reducer",
    "max_bytes",
    "max_pixels",
    "max_frames",
    "thumbnail_size",
)
EPILOG = """examples:
  python img2vec.py "mirflickr/*"                     index a folder of pictures
  python img2vec.py photos scans/**/*.tif             folders are searched through, globs may be quoted or not
  find /archive -newer last -print | python img2vec.py --from-file -
  python img2vec.py --prune photos                    also take out pictures whose files are gone
  python img2vec.py --remove "photos/private/*"       take pictures out of the index (files are never touched)
  python img2vec.py --import-vectors vectors.npz --pictures photos    vectors X and names Y that were made elsewhere
  python img2vec.py --export-vectors vectors.npz --export-labels image_to_labels.json

Run it again at any time: only new and changed files cost anything. A job that was killed goes on where it was."""
LISTED = 20


def main(argv: list[str]) -> int:
    """Run the command; return its exit status: 0 done, 1 failed with a message, 2 wrong arguments, 130 interrupted."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if exchange.is_wanted(arguments):
        exchange.check(parser, arguments, other_work=_work(arguments))
    elif not _work(arguments):
        parser.error("nothing to do: name at least one file, folder or pattern")
    try:
        settings = settings_from_arguments(arguments)
        if exchange.is_wanted(arguments):
            return exchange.run(arguments, settings)
        if arguments.failures:
            return _print_failures(settings, as_json=arguments.json)
        return _index(arguments, settings)
    except KeyboardInterrupt:  # the second Ctrl-C: what was committed is safe whatever is dropped now
        return 130
    except LookalikeError as error:
        if arguments.json:
            print(json.dumps({"error": {"code": error.code, "message": str(error)}}))
        print(f"img2vec.py: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="img2vec.py",
        description="Turn every image into a vector and build the index that finds similar ones.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("patterns", nargs="*", metavar="PATTERN", help="files, folders (searched through) or globs")
    parser.add_argument(
        "--from-file", metavar="LIST", help="read patterns from a file, one a line; - for standard input"
    )
    parser.add_argument(
        "--prune",
        action="store_true",
        help="take images whose files are gone out of the index: those that the patterns name, all if there is no pattern",
    )
    parser.add_argument(
        "--remove", action="append", default=[], metavar="PATTERN", help="take matching images out of the index"
    )
    parser.add_argument("--compact", action="store_true", help="reclaim the disk space of images that were taken out")
    parser.add_argument("--failures", action="store_true", help="list files that could not be read, and why; then stop")
    parser.add_argument(
        "--retry-failures", action="store_true", help="try failed files again although they did not change"
    )
    parser.add_argument(
        "--views",
        action="store_true",
        help="bring groups, duplicates and map up to date as well (clusters.py, duplicates.py and map2d.py do it one by one)",
    )
    exchange.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    add_setting_arguments(parser, SETTINGS)
    return parser


def _work(arguments: argparse.Namespace) -> list[str]:
    """Return the names of those arguments that give this command something to do."""
    names = (
        "patterns",
        "from_file",
        "prune",
        "remove",
        "compact",
        "failures",
        "retry_failures",
        "backbone",
        "index",
        "reducer",
        "views",
    )
    return [name for name in names if getattr(arguments, name)]


def _index(arguments: argparse.Namespace, settings: Settings) -> int:
    from images import find_images
    from img2vec import Job, index_images

    patterns = [os.fsencode(pattern) for pattern in arguments.patterns] + _listed_patterns(arguments.from_file)
    found = find_images(patterns, exclude=[settings.rsc_files])
    for pattern in found.unmatched:
        print(f"img2vec.py: nothing matches {_printable(pattern)}", file=sys.stderr)
    for folder in found.unreadable:
        print(f"img2vec.py: the folder {_printable(folder)} cannot be read", file=sys.stderr)
    if patterns and not found.paths and not arguments.prune:  # whose folder may be gone as a whole
        raise SettingsError(
            "None of the patterns matches a file. Check the spelling, that the folder is not empty, and that the disk is mounted."
        )
    if not patterns and not (settings.rsc_files / "catalog.sqlite").exists():
        raise CollectionMissingError(
            f"There is no collection in {settings.rsc_files.absolute()} yet, and no pattern is given."
        )
    paths = list(dict.fromkeys([*found.paths, *_added_by_service(settings)])) if patterns else []
    show = show_progress("files", silent=arguments.quiet or arguments.json)
    with stopping_gently() as stop:
        job = Job(
            settings,
            paths,
            prune=(_matcher(patterns) if patterns else lambda path: True) if arguments.prune else None,
            remove=_matcher([os.fsencode(pattern) for pattern in arguments.remove]) if arguments.remove else None,
            compact=arguments.compact,
            retry_failures=arguments.retry_failures,
            on_progress=lambda progress: show(progress.done, progress.total),
            on_note=lambda note: print(f"\nNOTE: {note}\n", file=sys.stderr),
            on_step=say_nothing if arguments.quiet or arguments.json else say_step,
            stop=stop,
        )
        report = index_images(job)
        if arguments.views and not stop.is_set():
            _renew_views(settings, job.on_step)
    print(json.dumps(asdict(report), indent=2) if arguments.json else _report_text(report, settings))
    return 130 if report.interrupted else 0


def _added_by_service(settings: Settings) -> list[bytes]:
    """Return the pictures that were added from the pages: they lie among the collection's own files, where no pattern looks."""
    from images import find_images

    folder = settings.saved_folder
    return find_images([os.fsencode(folder)]).paths if folder.is_dir() else []


def _renew_views(settings: Settings, on_step: Callable[[str], None]) -> None:
    from store import open_writer
    from views.renewing import renew_views

    with open_writer(settings.rsc_files, command="img2vec.py --views") as writer:
        renew_views(writer, threads=settings.cpu_threads, on_step=on_step)


def _listed_patterns(name: str | None) -> list[bytes]:
    if name is None:
        return []
    try:
        if name == "-":
            content = sys.stdin.buffer.read()
        else:
            with open(name, "rb") as file:
                content = file.read()
    except OSError as error:
        raise SettingsError(f"--from-file: {name} cannot be read: {error.strerror}.") from error
    return [line for line in content.splitlines() if line]


def _matcher(patterns: Sequence[bytes]) -> Callable[[bytes], bool]:
    """Tell whether a catalog path is a named file, lies in a named folder, or matches a glob, as in indexing."""
    absolute = [os.path.abspath(pattern) for pattern in patterns]
    # The catalog holds resolved paths; a pattern may go through a symbolic link, to files that no longer exist.
    means_file = _matcher_of({*absolute, *(os.path.realpath(pattern) for pattern in absolute)})
    means_name = _matcher_of(set(patterns))  # of an image without a file
    return lambda path: means_file(path) if path.startswith(b"/") else means_name(path)


def _matcher_of(patterns: set[bytes]) -> Callable[[bytes], bool]:
    literal = tuple(pattern.rstrip(b"/") + b"/" for pattern in patterns)
    globs = re.compile(b"|".join(b"(?:" + _glob_expression(pattern) + b")" for pattern in patterns), re.DOTALL)
    return lambda path: (path + b"/").startswith(literal) or globs.fullmatch(path) is not None


def _glob_expression(pattern: bytes) -> bytes:
    """Translate a glob into a regular expression that also matches everything below a matching folder."""
    translated = {b"**/": b"(?:.*/)?", b"**": b".*", b"*": b"[^/]*", b"?": b"[^/]"}
    parts = re.split(rb"(\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\])", pattern)
    expression = b"".join(
        translated.get(part) or (part.replace(b"[!", b"[^") if part[:1] == b"[" and len(part) > 1 else re.escape(part))
        for part in parts
    )
    return expression + b"(?:/.*)?"


def _print_failures(settings: Settings, *, as_json: bool) -> int:
    from pipeline import show_path
    from store import open_store

    store = open_store(settings.rsc_files)
    failures = [(show_path(r.path), r.error_code, r.error) for r in store.failures()]
    store.close()
    if as_json:
        print(json.dumps([{"path": path, "code": code, "reason": reason} for path, code, reason in failures], indent=2))
        return 0
    for path, _, reason in failures:
        print(f"{path}: {reason}")
    print(f"{len(failures):,} files could not be read." if failures else "Every file could be read.", file=sys.stderr)
    return 0


def _report_text(report: Report, settings: Settings) -> str:
    lines = list(_report_lists(report))
    if report.interrupted:
        lines.append("Interrupted. Everything counted here is saved; run the same command again to go on.")
    counts = [
        f"{getattr(report, name):,} {text}"
        for name, text in (
            ("new", "new"),
            ("changed", "changed"),
            ("moved", "moved"),
            ("unchanged", "unchanged"),
            ("failed", "failed"),
            ("known_failures", "failed before and unchanged since"),
            ("skipped", "skipped (not images)"),
            ("removed", "taken out"),
            ("gone", "gone"),
        )
        if getattr(report, name) or name in ("new", "changed", "unchanged", "failed")
    ]
    lines.append("Files:    " + ", ".join(counts))
    lines.append(
        f"Time:     {report.seconds:,.1f} s, {report.vectorised:,} images vectorised ({report.images_per_second:,.1f} images/s)"
    )
    engine = f", {report.engine} {report.precision}" if report.engine else ""
    lines.append(f"Network:  {report.backbone}, layer {report.layer}{engine}")
    if report.reclaimed_bytes:
        lines.append(f"Disk:     {report.reclaimed_bytes / 1e6:,.1f} MB reclaimed")
    if report.index:
        lines.append(f"Index:    {_index_text(report)}")
    lines.append(f"Lies in:  {report.rsc_files}")
    if report.images and not report.interrupted:
        lines.append("Search:   python app.py" + _folder_option(settings))
    return "\n".join(lines)


def _folder_option(settings: Settings) -> str:
    return "" if settings.rsc_files == Settings.rsc_files else f" --rsc-files {shlex.quote(str(settings.rsc_files))}"


def _index_text(report: Report) -> str:
    index = report.index
    text = f"{report.images:,} images, {index['kind']}"
    test = index["self_test"]
    if test and not index["reason"]:
        text += f", finds {test['recall']:.1%} of the true {test['k']} nearest (tested with {test['queries']} images)"
    return text + (f". {index['reason']}" if index["reason"] else "")


def _report_lists(report: Report) -> Iterator[str]:
    """The files a person should know of, each list cut short."""
    failures = [f"  {failure.path}: {failure.reason}" for failure in report.failures]
    for title, rows in (
        ("Could not be read:", failures),
        (
            "Named like pictures, but their contents are none (skipped):",
            [f"  {path}" for path in report.skipped_pictures],
        ),
        (
            "Gone (still in the index; --prune takes them out, and nothing is lost if a disk is only not mounted):",
            [f"  {path}" for path in report.gone_paths],
        ),
    ):
        if rows:
            yield title
            yield from rows[:LISTED]
            if len(rows) > LISTED:
                yield f"  … and {len(rows) - LISTED:,} more (--json lists them all)"


def _printable(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
