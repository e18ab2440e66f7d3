"""Learning from labelled photographs: a network of one's own, or a projection of the vectors that are there.

Owns what one run does, in which order, and that the same run again goes on or says that nothing is left to do. Does not own where
labels come from and what can be wrong with them (`finetuning/labelled.py`), who learns from which (`parts.py`), training
(`training.py`), figures (`report.py`), nor the format of a trained network (`backbones/trained.py`).

    python finetune.py "labelled/*"
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from backbones import BACKBONES, NetworkId
from backbones.trained import MANIFEST, TrainedNetwork, check_name, read_trained, save_trained
from config import Settings
from errors import BackboneError, CollectionMissingError, LabelError, SettingsError, WeightsUnavailableError
from finetuning.cifar10 import write_cifar10
from finetuning.labelled import (
    Given,
    Labelled,
    LeftOut,
    check_classes,
    keep_readable,
    labels_of_csv,
    labels_of_folders,
    labels_of_pages,
    read_contents,
)
from finetuning.parts import Company, choose_company, least_photographs, split
from finetuning.planned import WORK_FOLDER, Plan, digest_of, plan_path, read_plan, training_alone, write_plan
from finetuning.presets import PRESETS, Preset
from finetuning.report import Report, make_report, read_report, write_report
from finetuning.training import CHECKPOINT, Progress, Task, Trained, train
from networks import DEFAULT_BACKBONE, OFFLINE_BACKBONE, find, network_of
from reducing import LearnedProjection, learn_projection
from store import IMPORTED_BACKBONE, given_labels, open_store

SEED = 20_080_707
DATASETS = Path("datasets")
MOST_HELD_OUT = 0.8


@dataclass(frozen=True)
class Sources:
    """Where labels come from, one of: folders that `patterns` mean, a CSV file, what people said in the pages, CIFAR-10.

    Of CIFAR-10 the first `per_class` pictures of each class are written into the folder `datasets`.
    """

    patterns: tuple[str, ...] = ()
    csv: Path | None = None
    pages: bool = False
    cifar10: bool = False
    per_class: int = 200
    datasets: Path = DATASETS


@dataclass(frozen=True)
class Choices:
    """What is trained. None means the preset's; a `base` of None the collection's network, else the usual one.

    `held_out` is the share of each class's photographs that is judged by; 0 for none.
    """

    name: str = "mine"
    preset: str = "default"
    base: str | None = None
    blocks: int | None = None
    layer: str | None = None
    epochs: int | None = None
    seed: int = SEED
    held_out: float = 0.2


@dataclass(frozen=True)
class Job:
    """What to do in one run; the settings say how. What is called is called in the caller's thread."""

    settings: Settings
    sources: Sources
    choices: Choices = Choices()
    on_progress: Callable[[Progress], None] = lambda progress: None
    on_step: Callable[[str], None] = lambda step: None
    on_note: Callable[[str], None] = lambda note: None
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def networks(self) -> Path:
        """Return the folder of trained networks."""
        return self.settings.networks_folder

    @property
    def work_folder(self) -> Path:
        """Return the folder of what is kept to go on with."""
        return self.networks / WORK_FOLDER


@dataclass(frozen=True)
class Finetuned:
    """A network that was trained, now or (`trained` false) by an earlier run of the same; `folder` is where it lies."""

    network: TrainedNetwork
    folder: Path
    report: Report
    trained: bool


@dataclass(frozen=True)
class Projected:
    """A projection that was learnt; `not_there` counts labelled photographs that are not in the collection."""

    learned: LearnedProjection
    not_there: int


def finetune(job: Job) -> Finetuned | None:
    """Train a network as `job` says, or go on where an earlier run was stopped or killed; None where `job.stop` was set.

    Raises `LabelError` for what is wrong with the labels, `BackboneError` for what is wrong with the choices,
    `WeightsUnavailableError`, `DatasetError`, `ImageError`, `DiskFullError`, `CollectionLockedError` while another run trains.
    """
    check_name(job.choices.name)
    preset = preset_of(job.choices)
    given, without_file = _given(job)
    job.on_step("Reading what is in the photographs …")
    labelled = read_contents(given, job.settings)
    labelled = replace(labelled, left_out=(*without_file, *labelled.left_out))
    check_classes(labelled, least_photographs(job.choices.held_out))  # before weights are downloaded for nothing
    base = _find_base(job)
    digest = digest_of(labelled, base, preset, job.choices.seed, job.choices.held_out)
    finished = _finished(job, digest)
    if finished is not None:
        return finished
    path = plan_path(job.work_folder, digest)
    plan = read_plan(path) or _make_plan(job, labelled, preset, path)
    with training_alone(job.work_folder):
        return _carry_out(job, plan, base, preset, digest)


def _carry_out(job: Job, plan: Plan, base: NetworkId, preset: Preset, digest: str) -> Finetuned | None:
    task = plan.task(base, preset, job.choices.seed, job.work_folder)
    trained = None if job.stop.is_set() else train(task, job.settings, on_progress=job.on_progress, stop=job.stop)
    if trained is None:
        return None
    job.on_step("Judging what was learnt …")
    report = make_report(task, plan.parts, _still_there(plan.company, job.settings), trained, plan.left_out)
    network, folder = _save(job, task, trained, report, digest)
    for unneeded in (plan_path(job.work_folder, digest), job.work_folder / CHECKPOINT):
        unneeded.unlink(missing_ok=True)
    return Finetuned(network, folder, report, trained=True)


def project(job: Job) -> Projected:
    """Learn a projection of the collection's vectors from those labelled photographs that are in it, and publish it.

    Raises `LabelError` where none is, and what `learn_projection` raises.
    """
    labels, not_there = _labels_in_collection(job)
    learned = learn_projection(job.settings, labels, command="finetune.py", on_step=job.on_step, on_note=job.on_note)
    return Projected(learned, not_there)


def preset_of(choices: Choices) -> Preset:
    """Return the recipe that is asked for. Raises `SettingsError`, `BackboneError` for a layer that its head has not."""
    if choices.preset not in PRESETS:
        raise SettingsError(f"There is no preset {choices.preset!r}. Choose one of {', '.join(PRESETS)}.")
    preset = PRESETS[choices.preset]
    for name in ("blocks", "layer", "epochs"):
        value = getattr(choices, name)
        preset = preset if value is None else replace(preset, **{name: value})
    if not (preset.blocks >= 0 and preset.epochs >= 1 and 0 <= choices.held_out <= MOST_HELD_OUT):
        raise SettingsError(
            f"--blocks is {preset.blocks}, --epochs {preset.epochs}, --held-out {choices.held_out:g}; they must be at least 0, "
            f"at least 1, and from 0 to {MOST_HELD_OUT}."
        )
    layers = ("avg_pool", *(("dense",) if preset.head.units else ()), "scores")
    if preset.layer not in layers:
        raise BackboneError(
            f"A network of the preset {preset.name} has no layer {preset.layer!r} to take vectors from. Choose one of "
            f"{', '.join(layers)}."
        )
    return preset


# Which network it begins as.


def _find_base(job: Job) -> NetworkId:
    asked = job.choices.base or _own_base(job.settings)
    if asked is not None:
        if asked not in BACKBONES:
            raise BackboneError(
                f"{asked!r} is no published network, and only those can be the base. Choose one of {', '.join(BACKBONES)}."
            )
        return find(job.settings, asked, None)
    try:
        return find(job.settings, DEFAULT_BACKBONE, None)
    except WeightsUnavailableError as error:
        if job.settings.weights is not None:
            raise
        job.on_note(f"{error} Going on with {OFFLINE_BACKBONE}, whose weights are installed.")
        return find(job.settings, OFFLINE_BACKBONE, None)


def _own_base(settings: Settings) -> str | None:
    """Return the published network that the collection is searched by, or that its own network began as; None without one."""
    if settings.backbone in BACKBONES:
        return settings.backbone
    try:
        with contextlib.closing(open_store(settings.rsc_files)) as store:
            generation = store.generation()
            own = None if generation is None else network_of(store, generation)
    except CollectionMissingError:
        return None
    if own is None or own.backbone == IMPORTED_BACKBONE:
        return None
    if own.backbone in BACKBONES:
        return own.backbone
    folder = settings.networks_folder / own.model_key
    if not folder.is_dir():
        raise BackboneError(
            f"The collection is searched by {own.backbone}, whose network is not in {folder} any more, so what it began as is "
            f"not known. Put the folder back, or say what to begin with: --base, one of {', '.join(BACKBONES)}."
        )
    return read_trained(folder).base


# What it learns from.


def _given(job: Job) -> tuple[list[Given], list[LeftOut]]:
    sources, settings = job.sources, job.settings
    if sources.pages:
        return labels_of_pages(settings.rsc_files)
    if sources.csv is not None:
        return labels_of_csv(sources.csv), []
    if sources.cifar10:
        job.on_step("Making pictures of CIFAR-10 …")
        folder = write_cifar10(sources.datasets, sources.per_class)
        job.on_note(f"The pictures lie in {folder}: python img2vec.py {folder} makes them a collection.")
        return labels_of_folders([str(folder)]), []
    return labels_of_folders(sources.patterns, exclude=[settings.rsc_files, settings.networks_folder]), []


def _make_plan(job: Job, labelled: Labelled, preset: Preset, path: Path) -> Plan:
    job.on_step("Looking at every photograph …")
    readable = keep_readable(labelled, job.settings)
    held_out, seed = job.choices.held_out, job.choices.seed
    check_classes(readable, least_photographs(held_out))
    parts = split(readable.labels, validation=preset.validation, held_out=held_out, seed=seed)
    company = choose_company(
        job.settings.rsc_files, readable.photographs, readable.classes, unlabelled=preset.unlabelled, seed=seed
    )
    plan = Plan(readable.photographs, readable.labels, readable.left_out, parts, company)
    write_plan(plan, path)
    return plan


def _still_there(company: Company, settings: Settings) -> Company:
    """Return the company without images to judge by that cannot be read any more: the plan may be of another day."""
    readable = keep_readable(Labelled(company.unseen, company.unseen_labels, ()), settings)
    return replace(company, unseen=readable.photographs, unseen_labels=readable.labels)


def _labels_in_collection(job: Job) -> tuple[Mapping[int, str], int]:
    """Return the labels by image id, and how many labelled photographs are not in the collection."""
    if job.sources.pages:
        with contextlib.closing(open_store(job.settings.rsc_files)) as store:
            return given_labels(store), 0
    given, _ = _given(job)
    labelled = read_contents(given, job.settings)
    if labelled.left_out:
        first = labelled.left_out[0]
        job.on_note(f"Labelled files that are left out: {len(labelled.left_out):,}. {first.path}: {first.reason}")
    labels = {photograph.sha256: label for photograph, label in zip(labelled.photographs, labelled.labels, strict=True)}
    with contextlib.closing(open_store(job.settings.rsc_files)) as store:
        records = [record for record in store.all_records() if record.sha256 in labels]
    there = {record.sha256 for record in records}
    if labels and not there:
        raise LabelError(
            f"None of the {len(labels):,} labelled photographs is in the collection in {job.settings.rsc_files}, and a "
            "projection is learnt from vectors that are there. Index them first (python img2vec.py), or train a network: leave "
            "--projection out."
        )
    not_there = len(labels) - len(there) + len(labelled.left_out)
    return {record.image_id: labels[record.sha256] for record in records if record.sha256}, not_there


# What comes out.


def _finished(job: Job, digest: str) -> Finetuned | None:
    """Return the network of this name that came of the same training, if there is one."""
    folders = [path.parent for path in job.networks.glob(f"{job.choices.name}-*/{MANIFEST}")]
    networks = [(read_trained(folder), folder) for folder in folders]
    same = [(network, folder) for network, folder in networks if network.training.get("digest") == digest]
    if not same:
        return None
    network, folder = same[0]
    if network.created_at < max(other.created_at for other, _ in networks):
        job.on_note(
            f"{network.name} means a network that was trained later; a --name of its own lets you use this one too."
        )
    return Finetuned(network, folder, read_report(folder), trained=False)


def _save(job: Job, task: Task, trained: Trained, report: Report, digest: str) -> tuple[TrainedNetwork, Path]:
    network = TrainedNetwork(
        name=job.choices.name,
        base=task.base.backbone,
        base_weights_sha256=task.base.weights_sha256,
        head=trained.head,
        layers=trained.layers,
        default_layer=task.preset.layer,
        class_names=task.classes,
        weights_sha256="",
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        training={
            "digest": digest,
            "preset": task.preset.name,
            "blocks": task.preset.blocks,
            "seed": task.seed,
            "photographs": report.learnt_from,
            "accuracy": report.accuracy,
        },
    )
    return save_trained(
        job.networks,
        network,
        lambda path: trained.model.save_weights(str(path)),
        write_more=lambda folder, known: write_report(report, known.base, folder),
    )


if __name__ == "__main__":
    import sys

    from commands.finetune import main

    sys.exit(main(sys.argv[1:]))
