"""The whole way of `python finetune.py`, with a real network: killed, run again, used for searching, and back."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from config import ROOT
from evaluation import rate_vectors
from finetuning.report import read_report
from search import open_collection
from store import open_store

CLASSES = ("china", "coffee", "rocket")
pytestmark = [pytest.mark.keras, pytest.mark.openvino, pytest.mark.slow]


def command(name: str, *arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / name), *arguments]


def report(name: str, *arguments: str) -> dict[str, Any]:
    finished = subprocess.run(command(name, *arguments, "--json"), capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return dict(json.loads(finished.stdout))


@pytest.fixture(scope="module")
def folder(viewed_collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a collection of the sample photographs, in the vectors of the network that will be the base."""
    folder = tmp_path_factory.mktemp("learning") / "rsc"
    shutil.copytree(viewed_collection, folder)
    return folder


@pytest.fixture(scope="module")
def labels(sample_photos: Path, folder: Path) -> Path:
    """Return a table that labels eight of the twelve variants of three photographs."""
    rows = [f"{path},{name}" for name in CLASSES for path in sorted((sample_photos / name).iterdir())[:8]]
    table = folder.parent / "labels.csv"
    table.write_text("\n".join(["path,label", *rows]))
    return table


@pytest.fixture(scope="module")
def again(folder: Path, labels: Path) -> subprocess.CompletedProcess[str]:
    """Kill a training after an epoch of its last stage, run it again, and return what that run said."""
    arguments = ["--labels", str(labels), "--rsc-files", str(folder), "--blocks", "1", "--epochs", "4"]
    job = subprocess.Popen(
        command("finetune.py", *arguments), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert job.stderr is not None
    said = []
    for line in job.stderr:
        said.append(line)
        if line.startswith("Top blocks, epoch 1 of"):
            job.kill()
    assert job.wait() < 0, "".join(said)
    job.stderr.close()
    assert not list((folder / "networks").glob("mine-*"))
    return subprocess.run(command("finetune.py", *arguments), capture_output=True, text=True, check=False)


def test_a_training_that_was_killed_goes_on_where_it_was(again: subprocess.CompletedProcess[str], folder: Path) -> None:
    assert again.returncode == 0, again.stderr
    assert "Looking at every photograph" not in again.stderr
    assert "New layers" not in again.stderr
    assert "tensorflow:" not in again.stderr.lower()
    assert "Top blocks, epoch 1 of" not in again.stderr
    [network] = (folder / "networks").glob("mine-*")
    figures = read_report(network)
    assert {epoch.stage for epoch in figures.epochs} == {"head", "blocks"}
    assert (figures.learnt_from + figures.stopped_by + figures.judged, figures.unseen > 0) == (24, True)
    assert figures.accuracy >= 0.8
    assert [path.name for path in (folder / "networks" / ".training").iterdir()] == ["frozen"]
    assert "python img2vec.py --backbone mine" in again.stdout


def test_the_network_is_searched_by_beside_the_old_one_and_back(
    again: subprocess.CompletedProcess[str], folder: Path, sample_photos: Path
) -> None:
    indexed = report("img2vec.py", "--backbone", "mine", "--rsc-files", str(folder))
    assert (indexed["backbone"], indexed["layer"], indexed["vectorised"], indexed["images"]) == (
        "mine",
        "avg_pool",
        241,
        241,
    )
    collection = open_collection(folder)
    picture = sorted((sample_photos / "rocket").iterdir())[-1]
    rows = collection.query(picture, k=8)
    assert {Path(str(row["reference_label"])).parent.name for row in rows} == {"rocket"}
    report("img2vec.py", "--backbone", "mine", "--layer", "scores", "--rsc-files", str(folder))
    store = open_store(folder)
    generation = store.generation()
    assert generation is not None
    snapshot = store.snapshot(generation.manifest["vectors_key"])
    names = {image_id: record.label or "" for image_id, record in store.records(snapshot.ids.tolist()).items()}
    learnt = [place for place, image_id in enumerate(snapshot.ids.tolist()) if names[image_id] in CLASSES]
    labels = [names[image_id] for image_id in snapshot.ids[learnt].tolist()]
    assert store.manifest(generation.manifest["vectors_key"]).class_names == list(CLASSES)
    assert rate_vectors(snapshot.take(np.array(learnt)), labels).mean_average_precision.value >= 0.8
    store.close()
    back = report("img2vec.py", "--backbone", "efficientnet_lite0", "--rsc-files", str(folder))
    assert (back["backbone"], back["vectorised"], back["images"]) == ("efficientnet_lite0", 0, 241)
