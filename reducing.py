"""Training a reducer on the vectors that a collection is searched by, and publishing an index over what it makes.

Owns which vectors and labels are learnt from, where reducers lie (`reducers/<vectors key>/<kind>.npz`, `.keras` beside it) and
when one must be trained anew. Does not own how they learn (`autoencoder`, `projection`) nor what a generation holds
(`publishing`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from autoencoder import (
    Epoch,
    FittedReducer,
    Kind,
    Reducer,
    ReducerOptions,
    fit_reducer,
    load_reducer,
    save_reducer,
)
from config import Settings
from errors import EmptyCollectionError, LabelError, ReducerError, SettingsError
from projection import Change, Labelled, Learned, learn
from publishing import REDUCER_FILE, publish, reducer_path
from store import Generation, Snapshot, Store, given_labels, open_store, open_writer
from vectors import Ids, Vectors, unit_blocks, unit_vectors

TRAINING_VECTORS = 50_000
TRAINING_BYTES = 256_000_000
"""At most so many vectors are trained on, and so many bytes of them: chosen by chance where there are more."""
LABELLED_VECTORS = 20_000
LABELLED_BYTES = 100_000_000
UNLABELLED_VECTORS = 4_000
"""So many images without a label, by chance, stand for all that is none of the labelled classes."""
SQUARED_VECTORS = 20_000
MAY_LOSE = 0.02
"""From such a loss of mAP on, among what was never labelled, a person is warned."""
SEED = 20_261_122


@dataclass(frozen=True)
class Reduced:
    """What one run did. `trained` is false where a reducer of the same vectors and options lay on disk; `kind` may be none.

    `generation` is the manifest of the published generation.
    """

    kind: str
    reducer: Reducer | None
    path: Path | None
    trained: bool
    seconds: float
    generation: Mapping[str, Any]

    @property
    def history(self) -> list[Epoch]:
        """The losses of the training, also of an earlier one."""
        return [] if self.reducer is None else [Epoch(**epoch) for epoch in self.reducer.about.get("history", [])]


@dataclass(frozen=True)
class LearnedProjection:
    """What one run of `learn_projection` did; `generation` is the manifest of the published generation.

    `classes`: how many photographs each label has; labels of a single photograph teach nothing and are not among them.
    `strength`: how much the labels count beside the network's own vector. What it is worth: judged on photographs left out of
    fits like this one, `held_out` of the same classes, `unseen` of classes that were left out whole; `others` on images of the
    collection that have other labels, such as their folders' names; None where there were too few to tell. `warning`: what a
    person must know of these, or None. `trained` is false where the same labels and vectors had taught the same before.
    """

    classes: Mapping[str, int]
    strength: float
    held_out: Change | None
    unseen: Change | None
    others: Change | None
    warning: str | None
    trained: bool
    seconds: float
    generation: Mapping[str, Any]

    @property
    def learnt_from(self) -> int:
        """How many photographs it learnt from."""
        return sum(self.classes.values())


def reduced_dim(settings: Settings) -> int | float:
    """Return the setting `reduced_dim`: a whole number of components, or a share of variance; raises `SettingsError`."""
    text = settings.reduced_dim
    with contextlib.suppress(ValueError):
        dim = float(text) if "." in text else int(text)
        if 0 < dim < 1 or (isinstance(dim, int) and dim >= 1):
            return dim
    raise SettingsError(
        f"reduced_dim is {text!r}, but must be a whole number from 1 on (256), or for pca a share of the variance above 0 and "
        "below 1 (0.95)."
    )


def options_of(settings: Settings) -> ReducerOptions:
    """Return what the settings ask to be trained; the autoencoder where they do not say."""
    kind = settings.reducer or "autoencoder"
    if kind not in ("autoencoder", "pca"):
        raise ValueError(f"{kind} is not trained on vectors alone")
    return ReducerOptions(cast(Kind, kind), reduced_dim(settings))


def published_vectors(store: Store) -> tuple[str, Snapshot]:
    """Return the key and the vectors that the collection is searched by; raises `EmptyCollectionError` when there are none."""
    generation = store.generation()
    if generation is not None:
        key = str(generation.manifest["vectors_key"])
        snapshot = store.snapshot(key)
        if len(snapshot):
            return key, snapshot
    raise EmptyCollectionError(
        f"The collection in {store.folder.absolute()} holds no image that can be searched, so there is nothing to learn from. "
        "Index some first: python img2vec.py FOLDER"
    )


def training_vectors(snapshot: Snapshot, seed: int) -> Vectors:
    """Return vectors of the snapshot to train on, float32 (n, dim): all, or as many by chance as memory should hold."""
    count = min(len(snapshot), TRAINING_VECTORS, max(1, TRAINING_BYTES // (4 * snapshot.dim)))
    places = np.random.default_rng(seed).choice(len(snapshot), size=count, replace=False)
    return snapshot.take(np.sort(places).astype(np.int64))


def reduce_collection(
    settings: Settings,
    *,
    on_progress: Callable[[Epoch], None] = lambda epoch: None,
    on_note: Callable[[str], None] = lambda note: None,
) -> Reduced:
    """Train the reducer that the settings ask for, unless it lies on disk, and publish a generation with it, or without one.

    Whatever ends it early (Ctrl-C, an error) leaves the reducers and the generation as they were. Raises `ReducerError`,
    `SettingsError`, `CollectionMissingError`, `EmptyCollectionError`, `CollectionLockedError`, `DiskFullError`.
    """
    started = time.perf_counter()
    options = None if settings.reducer == "none" else options_of(settings)
    open_store(settings.rsc_files).close()  # a writer would make the collection that is missing
    with open_writer(settings.rsc_files, command="autoencoder.py") as writer:
        key, snapshot = published_vectors(writer)
        if options is None:
            generation = publish(writer, key, replace(settings, reducer="none"), on_note=on_note)
            return Reduced("none", None, None, False, time.perf_counter() - started, generation or {})
        path = reducer_path(writer.folder, key, options.kind)
        with _put_back([path, path.with_suffix(".keras")]):
            trained = _train(snapshot, options, path, on_progress, on_note)
            generation = publish(writer, key, replace(settings, reducer=options.kind), on_note=on_note)
    seconds = time.perf_counter() - started
    return Reduced(options.kind, load_reducer(path), path, trained, seconds, generation or {})


def _train(
    snapshot: Snapshot,
    options: ReducerOptions,
    path: Path,
    on_progress: Callable[[Epoch], None],
    on_note: Callable[[str], None],
) -> bool:
    """Train and save, unless what lies at `path` was trained on these vectors with these options; tell whether it was done."""
    about = {"options": asdict(options), "trained_on": _digest(snapshot)}
    reason = _why_train(path, about)
    if reason is None:
        return False

    def progress(epoch: Epoch) -> None:
        if reason and epoch.number == 1:  # not before: a size that cannot be is refused, and nothing is trained
            on_note(f"The {options.kind} is trained anew: {reason}.")
        on_progress(epoch)

    fitted = fit_reducer(training_vectors(snapshot, options.seed), options, on_progress=progress)
    save_reducer(fitted, path, about=about)
    return True


def _digest(snapshot: Snapshot) -> str:
    """Which image has which vector, as in the generation's manifest, and in which file the rows are counted."""
    return hashlib.sha256(snapshot.file.encode() + snapshot.ids.tobytes() + snapshot.rows.tobytes()).hexdigest()


def _why_train(path: Path, about: Mapping[str, Any]) -> str | None:
    """Return why a reducer must be trained, empty when there was none yet, None when the one at `path` serves."""
    if not path.exists():
        return ""
    try:
        known = load_reducer(path).about
    except ReducerError as error:
        return str(error).partition(". ")[0]
    before = known.get("options", {})
    changed = [
        f"{name} was {before.get(name)}, now {value}"
        for name, value in about["options"].items()
        if before.get(name) != value
    ]
    if changed:
        return ", ".join(changed)
    return (
        None
        if known.get("trained_on") == about["trained_on"]
        else "the collection's vectors are others than it was trained on"
    )


@contextlib.contextmanager
def _put_back(paths: Sequence[Path]) -> Iterator[None]:
    """If the block does not end well, give the files (a few megabytes) the contents back that they had."""
    before = {path: path.read_bytes() if path.exists() else None for path in paths}
    try:
        yield
    except BaseException:
        for path, content in before.items():
            now = path.read_bytes() if path.exists() else None
            if content is None and now is not None:
                path.unlink()
            elif content is not None and content != now:
                temporary = path.with_name(f".{path.name}.tmp")
                temporary.write_bytes(content)
                os.replace(temporary, path)
        raise


# Learning from labels.


@dataclass(frozen=True)
class _Shown:
    """What labels show: places in a snapshot int64 (n,), ascending, the number of the class of each, and the classes' names."""

    places: Ids
    classes: Ids
    names: tuple[str, ...]

    @property
    def counts(self) -> dict[str, int]:
        return dict(zip(self.names, np.bincount(self.classes).tolist(), strict=True))


def known_labels(store: Store) -> dict[int, str]:
    """Return the labels to learn from where nobody says which, by image id: those that people gave, else the folders' names."""
    return given_labels(store) or {
        record.image_id: record.label for record in store.all_records() if record.label and record.error_code is None
    }


def learn_projection(
    settings: Settings,
    labels: Mapping[int, str],
    *,
    command: str = "autoencoder.py",
    on_step: Callable[[str], None] = lambda step: None,
    on_note: Callable[[str], None] = lambda note: None,
) -> LearnedProjection:
    """Learn a projection from `labels` (image id: label) and publish a generation that is searched by it.

    Seconds for thousands of images, about a minute for 100,000; no vector is computed again and no network runs. `command` is
    who writes, for others that would; `on_step` is called with what is begun, `on_note` with what a person should know. Images
    that are not in the collection are left out. Whatever ends it early leaves everything as it was. Raises `LabelError` (fewer
    than two classes with two photographs each), `ReducerError`, `SettingsError`, `EmptyCollectionError`,
    `CollectionMissingError`, `CollectionLockedError`, `DiskFullError`.
    """
    started = time.perf_counter()
    dim = reduced_dim(settings)
    if not isinstance(dim, int):
        raise ReducerError(f"{dim} is no size for a projection: give a whole number of numbers (256).")
    open_store(settings.rsc_files).close()
    with open_writer(settings.rsc_files, command=command) as writer:
        key, snapshot = published_vectors(writer)
        shown = _shown(snapshot, labels, on_note)
        digest = hashlib.sha256(shown.places.tobytes() + shown.classes.tobytes() + "\n".join(shown.names).encode())
        about = {"options": {"dim": dim}, "trained_on": _digest(snapshot) + digest.hexdigest()}
        path = reducer_path(writer.folder, key, "projection")
        with _put_back([path]):
            trained = _why_train(path, about) is not None
            if trained:
                on_step(f"Learning from {len(shown.places):,} photographs of {len(shown.names):,} classes …")
                learned = learn(_labelled(writer, snapshot, shown), _squares(snapshot), dim)
                save_reducer(FittedReducer(_reducer(learned, shown), ()), path, about=about)
            wanted = replace(settings, reducer="projection")
            generation = publish(writer, key, wanted, on_note=on_note, on_step=on_step)
    return _learned(load_reducer(path).about, trained, time.perf_counter() - started, generation or {})


def learned_projection(generation: Generation) -> LearnedProjection | None:
    """Return what was learnt that `generation` is searched by; None where it is searched by the network's own vectors."""
    if (generation.manifest.get("reducer") or {}).get("kind") != "projection":
        return None
    return _learned(load_reducer(generation.folder / REDUCER_FILE).about, False, 0.0, generation.manifest)


def forget_projection(
    settings: Settings, *, command: str = "autoencoder.py", on_note: Callable[[str], None] = lambda note: None
) -> Mapping[str, Any]:
    """Publish a generation that is searched by the network's own vectors again, and return its manifest; labels stay.

    Raises `CollectionMissingError`, `CollectionLockedError`, `EmptyCollectionError`, `DiskFullError`.
    """
    open_store(settings.rsc_files).close()
    with open_writer(settings.rsc_files, command=command) as writer:
        key, _ = published_vectors(writer)
        return publish(writer, key, replace(settings, reducer="none"), on_note=on_note) or {}


def _shown(snapshot: Snapshot, labels: Mapping[int, str], on_note: Callable[[str], None]) -> _Shown:
    """Return what can be learnt from `labels`: the classes that several pictures have. Raises `LabelError`."""
    named = _some(_pictures(snapshot, labels, on_note), snapshot.dim, on_note)
    counts = Counter(named.values())
    single = sorted(name for name, count in counts.items() if count < 2)
    names = sorted(set(counts) - set(single))
    if len(names) < 2:
        there = ", ".join(f"{name!a} ({count:,})" for name, count in counts.most_common(5)) or "none"
        raise LabelError(
            f"Two labels with at least two photographs each are needed to learn what tells them apart; there are: {there}. Give "
            "more images labels, in the pages or by a file: python autoencoder.py --reducer projection --labels FILE.csv"
        )
    if single:
        told = ", ".join(single[:5]) + (", …" if len(single) > 5 else "")
        on_note(f"Labels of a single photograph are left out, {len(single):,}: {told}.")
    numbers = {name: number for number, name in enumerate(names)}
    kept = [(place, numbers[name]) for place, name in sorted(named.items()) if name in numbers]
    return _Shown(np.array([place for place, _ in kept]), np.array([number for _, number in kept]), tuple(names))


def _pictures(snapshot: Snapshot, labels: Mapping[int, str], on_note: Callable[[str], None]) -> dict[int, str]:
    """Return the places in `snapshot` that have labels, and these: each picture once, and none that has several."""
    places = np.flatnonzero(np.isin(snapshot.ids, np.array(sorted(labels), dtype=np.int64)))
    by_row: dict[int, tuple[int, set[str]]] = {}
    for place in places.tolist():
        by_row.setdefault(int(snapshot.rows[place]), (place, set()))[1].add(labels[int(snapshot.ids[place])])
    several = sum(len(names) > 1 for _, names in by_row.values())
    if several:
        on_note(f"Pictures with several labels at once, as copies in several folders have, are left out: {several:,}.")
    return {place: names.pop() for place, names in by_row.values() if len(names) == 1}


def _some(named: dict[int, str], dim: int, on_note: Callable[[str], None]) -> dict[int, str]:
    """Return `named`, or as many of it by chance as memory should hold."""
    most = min(LABELLED_VECTORS, LABELLED_BYTES // (4 * dim))
    if len(named) <= most:
        return named
    on_note(f"It is learnt from {most:,} of the {len(named):,} labelled photographs, by chance.")
    chosen = np.random.default_rng(SEED).choice(np.array(list(named)), most, replace=False)
    return {place: named[place] for place in chosen.tolist()}


def _labelled(store: Store, snapshot: Snapshot, shown: _Shown) -> Labelled:
    """Return the vectors to learn from; of the images without a label here, some by chance and the labels of their own."""
    rows = snapshot.rows[shown.places]
    free = np.flatnonzero(~np.isin(snapshot.rows, rows))
    random = np.random.default_rng(SEED)
    free = np.sort(random.choice(free, min(len(free), UNLABELLED_VECTORS), replace=False))
    own = {image_id: record.label for image_id, record in store.records(snapshot.ids[free].tolist()).items()}
    others = [own.get(image_id) for image_id in snapshot.ids[free].tolist()]
    known = sorted({name for name in others if name is not None} - set(shown.names))
    numbers = {name: number for number, name in enumerate(known)}
    return Labelled(
        unit_vectors(snapshot.take(shown.places)),
        shown.classes,
        unit_vectors(snapshot.take(free)),
        np.array([-1 if name is None else numbers.get(name, -1) for name in others], dtype=np.int64),
    )


def _squares(snapshot: Snapshot) -> npt.NDArray[np.float64]:
    """Return the products of the unit vectors of all images, or of a sample: float64 (dim, dim)."""
    count = min(len(snapshot), SQUARED_VECTORS)
    places = np.sort(np.random.default_rng(SEED).choice(len(snapshot), count, replace=False))
    squares = np.zeros((snapshot.dim, snapshot.dim))
    for block in unit_blocks(snapshot, places):
        wide = block.astype(np.float64)
        squares += wide.T @ wide
    return squares


def _reducer(learned: Learned, shown: _Shown) -> Reducer:
    changes = {name: getattr(learned, name) for name in ("held_out", "unseen", "others")}
    told = {name: None if change is None else asdict(change) for name, change in changes.items()}
    return Reducer("projection", learned.matrix, {"classes": shown.counts, "strength": learned.strength, **told})


def _learned(
    about: Mapping[str, Any], trained: bool, seconds: float, generation: Mapping[str, Any]
) -> LearnedProjection:
    held_out, unseen, others = (
        None if about[name] is None else Change(**about[name]) for name in ("held_out", "unseen", "others")
    )
    warning = None
    lost = [change for change in (unseen, others) if change is not None and change.gain < -MAY_LOSE]
    if lost:
        worst = min(lost, key=lambda change: change.gain)
        warning = (
            f"What was not labelled is found less well: mAP {worst.before:.3f} before, {worst.after:.3f} after. Label more kinds "
            "of images, or go back: python autoencoder.py --reducer none"
        )
    elif held_out is not None and held_out.gain <= 0:
        warning = (
            f"The labels did not help: photographs held out are found no better (mAP {held_out.before:.3f} before, "
            f"{held_out.after:.3f} after). Label more of them, or go back: python autoencoder.py --reducer none"
        )
    return LearnedProjection(
        about["classes"], about["strength"], held_out, unseen, others, warning, trained, seconds, generation
    )
