"""A collection follows its files: images that are moved into quarantine leave its catalog, and come back with them.

They come back under their old ids, so labels, tags and names of groups are theirs again; their vectors stay until the collection
is compacted, so no network is needed. What was taken out stands in the run's journal before it is taken out.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from config import Settings
from errors import QuarantineError
from plans import Plan, is_as_indexed, path_text, text_path
from publishing import publish
from quarantine.applying import Applied, apply_plan, quarantine_folder
from quarantine.journal import Journal, OnProgress, Run, read_run, read_runs
from quarantine.places import parts_of, remember, usual_folders
from quarantine.restoring import Restored, restore
from store import Record, StoreWriter, open_writer

RECORDS_A_LINE = 500


def apply_to_collection(
    plan: Plan,
    folder: Path | None,
    settings: Settings,
    *,
    on_progress: OnProgress = lambda step, done, total: None,
    stop: threading.Event | None = None,
) -> Applied:
    """Do `apply_plan`, then take the moved images out of the collection of `settings`, where there is one.

    The collection is held meanwhile: where another process writes to it, `CollectionLockedError`, and nothing is moved.
    """
    if not has_catalog(settings.rsc_files):
        return apply_plan(plan, folder, on_progress=on_progress, stop=stop)
    with open_writer(settings.rsc_files, command="duplicates.py --apply") as writer:
        if plan.removed:
            remember(writer, [quarantine_folder(plan, folder)])
        applied = _follow(writer, apply_plan(plan, folder, on_progress=on_progress, stop=stop))
        if applied.runs:
            _publish(writer, settings, on_progress)
    return applied


def move_out(plan: Plan, settings: Settings, *, added: Path, keeps_one: bool = True) -> list[Applied]:
    """Do `apply_to_collection` without anybody choosing a folder; where files lie on several disks, by several runs.

    `added` is the folder of what the service saved. Raises what `apply_to_collection` does; a part that was moved before one
    that could not be stays moved, and is taken out of the collection.
    """
    done: list[Applied] = []
    with open_writer(settings.rsc_files, command="the service, moving files out") as writer:
        folders = usual_folders((record.path for record in writer.all_records()), added)
        parts = list(parts_of(plan, folders))
        remember(writer, [place for place, _ in parts])
        try:
            for place, part in parts:
                done.append(_follow(writer, _apply_part(writer, part, place, keeps_one=keeps_one)))
        finally:
            _publish(writer, settings, lambda step, done, total: None)
    return done


def _apply_part(writer: StoreWriter, part: Plan, place: Path, *, keeps_one: bool) -> Applied:
    """Do `apply_plan`; where it stops half-way, what was moved by then leaves the catalog all the same."""
    try:
        return apply_plan(part, place, keeps_one=keeps_one)
    except QuarantineError:
        for run in read_runs(place):
            if not run.is_finished:
                _take_out(writer, run)
        raise


def _follow(writer: StoreWriter, applied: Applied) -> Applied:
    """Take out of the catalog what was moved."""
    return replace(applied, images_taken_out=sum(_take_out(writer, read_run(run)) for run in applied.runs))


def restore_to_collections(
    place: Path,
    settings: Settings,
    *,
    on_progress: OnProgress = lambda step, done, total: None,
    stop: threading.Event | None = None,
) -> Restored:
    """Do `restore`, then put the images back into the collections that they were taken out of; `settings` say how to index.

    Raises `CollectionLockedError` where another process writes to one: then the files are back; restoring again does the rest.
    """
    restored = restore(place, on_progress=on_progress, stop=stop)
    taken: dict[Path, dict[int, Record]] = {}
    for folder in restored.runs:
        for collection, record in _taken_out(read_run(folder)):
            if is_as_indexed(record):
                taken.setdefault(collection, {})[record.image_id] = record
    missing = 0
    for collection, records in taken.items():
        if has_catalog(collection):
            with open_writer(collection, command="duplicates.py --restore") as writer:
                writer.put_back(records.values())
                _publish(writer, settings, on_progress)
                missing += len(records.keys() - _searchable(writer))
        else:
            missing += len(records)
    return replace(restored, not_searchable=missing)


def has_catalog(folder: Path) -> bool:
    """Tell whether there is a collection in a folder."""
    return (folder / "catalog.sqlite").is_file()


def _searchable(writer: StoreWriter) -> set[int]:
    """Return the ids of the images that have a vector."""
    generation = writer.last_generation()
    return set() if generation is None else set(writer.snapshot(generation.manifest["vectors_key"]).ids.tolist())


def _take_out(writer: StoreWriter, run: Run) -> int:
    """Take those images out of the catalog whose files a run holds; return how many."""
    paths = {move.path for move in run.moves if run.holds(move) and not os.path.lexists(move.path)}
    records = [record for path in sorted(paths) if (record := writer.record_at(path)) is not None]
    with contextlib.closing(Journal(run)) as journal:
        for start in range(0, len(records), RECORDS_A_LINE):
            told = [_told(record) for record in records[start : start + RECORDS_A_LINE]]
            collection = path_text(os.fsencode(os.path.realpath(writer.folder)))
            journal.write({"event": "catalog", "collection": collection, "images": told})
    writer.remove([record.image_id for record in records])
    return len(records)


def _told(record: Record) -> dict[str, Any]:
    sha256 = None if record.sha256 is None else record.sha256.hex()
    return {**asdict(record), "path": path_text(record.path), "sha256": sha256}


def _taken_out(run: Run) -> Iterator[tuple[Path, Record]]:
    for event in run.catalog:
        collection = Path(os.fsdecode(text_path(event["collection"])))
        for told in event["images"]:
            sha256 = None if told["sha256"] is None else bytes.fromhex(told["sha256"])
            yield collection, Record(**{**told, "path": text_path(told["path"]), "sha256": sha256})


def _publish(writer: StoreWriter, settings: Settings, on_progress: OnProgress) -> None:
    """Publish the index of what the collection holds now; a service takes it up by itself."""
    generation = writer.last_generation()
    if generation is not None:
        key = generation.manifest["vectors_key"]
        publish(writer, key, settings, on_step=lambda step: on_progress(step.removesuffix(" …"), 0, 0))
