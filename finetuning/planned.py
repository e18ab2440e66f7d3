"""What is decided before a training begins, and kept until it ends: a run that was killed goes on with the same photographs.

Owns the plan and its file, `.training/plan-<digest>.json` among the trained networks. The collection that other photographs were
chosen from may have grown since; the plan has not. Does not own how they are chosen (`parts.py`).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from backbones import NetworkId
from errors import BackboneError, CollectionLockedError
from finetuning.labelled import Labelled, LeftOut
from finetuning.parts import Company, Parts
from finetuning.presets import Preset
from finetuning.training import Photograph, Task
from store.formats import reporting_full_disk, write_durably

WORK_FOLDER = ".training"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Plan:
    """Which photographs take which part; `classes` are the labels in the order of the scores."""

    photographs: tuple[Photograph, ...]
    labels: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    parts: Parts
    company: Company

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels, each once, in alphabetical order: that of the scores."""
        return tuple(sorted(set(self.labels)))

    def task(self, base: NetworkId, preset: Preset, seed: int, folder: Path) -> Task:
        """Return what is to be trained by this plan."""
        numbers = {name: number for number, name in enumerate(self.classes)}
        return Task(
            self.photographs,
            np.array([numbers[label] for label in self.labels], dtype=np.int64),
            self.classes,
            self.parts.train,
            self.parts.validation,
            self.company.unlabelled,
            base,
            preset,
            seed,
            folder,
        )


def digest_of(labelled: Labelled, base: NetworkId, preset: Preset, seed: int, held_out: float) -> str:
    """Return 64 hex digits that are others where the same training would not come out. Its usual layer does not count."""
    recipe = asdict(replace(preset, layer=""))
    photographs = [
        (photograph.path.hex(), photograph.sha256.hex(), label)
        for photograph, label in zip(labelled.photographs, labelled.labels, strict=True)
    ]
    whole = [FORMAT_VERSION, base.backbone, base.weights_sha256, recipe, seed, held_out, photographs]
    return hashlib.sha256(json.dumps(whole).encode()).hexdigest()


def plan_path(folder: Path, digest: str) -> Path:
    """Return where the plan of a training lies; `folder` is the work folder."""
    return folder / f"plan-{digest[:12]}.json"


def write_plan(plan: Plan, path: Path) -> None:
    """Write a plan, whole or not at all. Raises `DiskFullError`, `BackboneError` where nothing can be written there."""
    values = {
        "photographs": _written(plan.photographs),
        "labels": plan.labels,
        "left_out": [asdict(entry) for entry in plan.left_out],
        "parts": {name: places.tolist() for name, places in vars(plan.parts).items()},
        "unlabelled": _written(plan.company.unlabelled),
        "unseen": _written(plan.company.unseen),
        "unseen_labels": plan.company.unseen_labels,
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with reporting_full_disk(path.parent):
            write_durably(path, json.dumps(values))
    except OSError as error:
        raise BackboneError(
            f"No network can be trained into {path.parent.parent}: it cannot be written to ({error.strerror}). Mend its "
            "permissions, or have networks lie elsewhere: the setting networks (LOOKALIKE_NETWORKS)."
        ) from error


def read_plan(path: Path) -> Plan | None:
    """Return the plan at `path`, None where there is none."""
    if not path.is_file():
        return None
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return Plan(
        _read(values["photographs"]),
        tuple(values["labels"]),
        tuple(LeftOut(**entry) for entry in values["left_out"]),
        Parts(**{name: np.array(places, dtype=np.int64) for name, places in values["parts"].items()}),
        Company(_read(values["unlabelled"]), _read(values["unseen"]), tuple(values["unseen_labels"])),
    )


@contextlib.contextmanager
def training_alone(folder: Path) -> Iterator[None]:
    """Let no other run train in the work folder meanwhile: it would take this one's checkpoint away.

    Raises `CollectionLockedError` where one does.
    """
    descriptor = os.open(folder, os.O_RDONLY)  # the folder itself is locked: no file is left behind
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CollectionLockedError(
                f"Another finetune.py trains in {folder}. Wait until it has finished, or stop it (Ctrl-C): what it has done is "
                "kept, and the same command goes on."
            ) from None
        yield
    finally:
        os.close(descriptor)


def _written(photographs: Sequence[Photograph]) -> list[tuple[str, str]]:
    return [(os.fsdecode(photograph.path), photograph.sha256.hex()) for photograph in photographs]


def _read(pairs: Sequence[tuple[str, str]]) -> tuple[Photograph, ...]:
    return tuple(Photograph(os.fsencode(path), bytes.fromhex(digest)) for path, digest in pairs)
