"""Killed at any moment, the job goes on where it was: nothing lost, doubled or half-written."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ann import Index
from config import ROOT
from errors import CollectionMissingError
from store import open_store

KILLS = 20
pytestmark = [pytest.mark.openvino, pytest.mark.slow]


def command(photos: Path, rsc_files: Path) -> list[str]:
    # An index kind that is built in a child process, so that kills meet that too; small batches, so that they meet commits.
    options = ["--backbone", "efficientnet_lite0", "--index", "annoy", "--batch-size", "4", "--quiet"]
    return [sys.executable, str(ROOT / "img2vec.py"), str(photos), "--rsc-files", str(rsc_files), *options]


def answers(rsc_files: Path) -> tuple[list[bytes], np.ndarray]:
    """The paths of all images, and the distances from each to each, by exact search."""
    store = open_store(rsc_files)
    generation = store.generation()
    assert generation is not None
    assert generation.manifest["index"]["kind"] == "annoy"
    snapshot = store.snapshot(generation.manifest["vectors_key"])
    paths = [record.path for record in store.records(snapshot.ids.tolist()).values()]
    neighbours = Index(snapshot).query(snapshot.take(slice(None)), len(snapshot))
    matrix = np.empty(neighbours.distances.shape)
    places = {image_id: place for place, image_id in enumerate(snapshot.ids.tolist())}
    for row, (ids, distances) in enumerate(zip(neighbours.ids.tolist(), neighbours.distances, strict=True)):
        matrix[row, [places[image_id] for image_id in ids]] = distances
    store.close()
    order = sorted(range(len(paths)), key=paths.__getitem__)
    return [paths[place] for place in order], matrix[np.ix_(order, order)]


def check_what_is_committed(rsc_files: Path) -> int:
    """Hold catalog, vectors and thumbnails against one another after a kill; return the number of images."""
    try:
        store = open_store(rsc_files)
    except CollectionMissingError:
        return 0
    records = [record for record in store.all_records() if record.error_code is None]
    hashes = {record.sha256 for record in records}
    keys = [path.name for path in (rsc_files / "vectors").glob("*")]
    for key in keys:
        if not records:
            continue
        snapshot = store.snapshot(key)
        assert len(snapshot) == len(records)
        assert len(np.unique(snapshot.rows)) == len(hashes) == len(snapshot.matrix)
        assert (np.abs(snapshot.take(slice(None))).sum(axis=1) > 0).all()
        assert hashes <= store.thumbnail_hashes()
    store.close()
    return len(records)


def test_killed_at_twenty_random_moments_the_job_goes_on(sample_photos: Path, tmp_path: Path) -> None:
    reference = tmp_path / "reference"
    subprocess.run(command(sample_photos, reference), check=True, capture_output=True)
    shutil.copytree(reference / "models", tmp_path / "models")
    shutil.rmtree(reference)
    os.makedirs(reference)
    shutil.copytree(tmp_path / "models", reference / "models")
    started = os.times().elapsed
    subprocess.run(command(sample_photos, reference), check=True, capture_output=True)
    whole_s = os.times().elapsed - started
    paths, distances = answers(reference)
    assert len(paths) > 200
    random = np.random.default_rng(20)  # the moments; the machine adds its own chance
    partial = 0
    for number in range(KILLS):
        rsc_files = tmp_path / f"killed-{number}"
        shutil.copytree(tmp_path / "models", rsc_files / "models")
        job = subprocess.Popen(command(sample_photos, rsc_files), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            job.wait(timeout=whole_s * random.uniform(0.1, 1.0))
        except subprocess.TimeoutExpired:
            job.send_signal(signal.SIGKILL)
            job.wait()
        committed = check_what_is_committed(rsc_files)
        partial += 0 < committed < len(paths)
        again = subprocess.run(command(sample_photos, rsc_files), check=False, capture_output=True, text=True)
        assert again.returncode == 0, again.stderr
        assert check_what_is_committed(rsc_files) == len(paths)
        paths_after, distances_after = answers(rsc_files)
        assert paths_after == paths
        assert np.abs(distances_after - distances).max() < 1e-3
        shutil.rmtree(rsc_files)
    assert partial > 0  # else no kill met the job at work
