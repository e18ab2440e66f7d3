"""What similarities mean in a collection: never more than its sample can show, and no break in strange collections."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

import calibration
from calibration import Calibration, measure_calibration
from store import Snapshot
from vectors import unit_vectors


def snapshot_of(vectors: np.ndarray) -> Snapshot:
    places = np.arange(len(vectors))
    return Snapshot(places + 1, places, vectors.astype(np.float16), "vectors.f16")


def kinds(count: int, *, of: int = 10, seed: int = 0) -> np.ndarray:
    centres = np.random.default_rng(9).normal(size=(of, 64))
    return centres[np.arange(count) % of] + 0.7 * np.random.default_rng(seed).normal(size=(count, 64))


def test_the_share_is_that_of_all_pairs_rounded_down() -> None:
    snapshot = snapshot_of(kinds(400))
    measured = measure_calibration(snapshot)
    units = unit_vectors(snapshot.take(slice(None)))
    cosines = (units @ units.T)[np.triu_indices(400, k=1)]
    assert measured.pairs == len(cosines)
    for similarity in np.linspace(-0.5, 0.99, 60).tolist():
        true = float((cosines < similarity).mean())
        assert true - 0.011 <= measured.share_closer(similarity) <= true


def test_a_sample_speaks_for_a_larger_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = snapshot_of(kinds(2000))
    whole = measure_calibration(snapshot)
    monkeypatch.setattr(calibration, "SAMPLE_IMAGES", 500)
    sampled = measure_calibration(snapshot)
    assert sampled.pairs == 500 * 499 // 2
    assert sampled == measure_calibration(snapshot)
    for similarity in (0.0, 0.3, 0.6):
        assert abs(whole.share_closer(similarity) - sampled.share_closer(similarity)) < 0.02


def test_no_more_is_claimed_than_the_pairs_can_show() -> None:
    assert measure_calibration(snapshot_of(kinds(3, of=3))).share_closer(1.0) == 0.75
    large = measure_calibration(snapshot_of(kinds(500)))
    assert large.share_closer(1.0) == pytest.approx(1 - 1 / large.pairs, abs=1e-9)
    beyond = [share for share in large.shares if share < 1]
    assert (1 - max(beyond)) * large.pairs >= 9.99


def test_the_bar_turns_away_strangers_and_keeps_who_belongs() -> None:
    vectors = kinds(1000, of=20)
    known = vectors[np.arange(1000) % 20 < 15]
    measured = measure_calibration(snapshot_of(known))
    units = unit_vectors(known)

    def told_none(queries: np.ndarray) -> float:
        curves = -np.sort(-unit_vectors(queries) @ units.T, axis=1)[:, :24]
        return float(np.mean([measured.good_matches(curve) == 0 for curve in curves.tolist()]))

    uploads = kinds(400, of=20, seed=7)
    assert told_none(uploads[np.arange(400) % 20 >= 15]) > 0.9
    assert told_none(uploads[np.arange(400) % 20 < 15]) < 0.2


def test_matches_end_where_the_curve_bends() -> None:
    measured = Calibration(10, [1.0], [0.5], bar=0.4, matches=3.0)
    assert measured.good_matches([0.9, 0.88, 0.86, 0.52, 0.51, 0.5]) == 3
    assert measured.good_matches([0.9, 0.85, 0.8, 0.75, 0.7, 0.65]) == 6
    assert measured.good_matches([0.9, 0.6, 0.5, 0.45, 0.41, 0.39]) == 1
    assert measured.good_matches([0.39, 0.2]) == 0
    assert measured.good_matches([]) == 0


def test_a_cliff_ends_what_is_good_also_below_the_bar() -> None:
    measured = Calibration(10, [0.5, 1.0], [0.2, 0.9], bar=0.8, matches=3.0)
    siblings = [0.95, 0.85, 0.72, 0.7, 0.68, 0.66, 0.4, 0.39]
    assert measured.kind_matches(siblings) == 6
    assert measured.good_matches(siblings) == 6
    assert measured.kind_matches([0.6, 0.55, 0.5, 0.45, 0.4]) == 0
    assert measured.kind_matches([0.95, 0.9, 0.75, 0.65, 0.55]) == 2
    assert Calibration(10, [1.0], [0.9], bar=0.9, matches=1.0).kind_matches([0.5, 0.4, 0.1]) == 0


def test_a_copy_at_the_head_is_no_bend() -> None:
    measured = Calibration(10, [1.0], [0.5], bar=0.4, matches=3.0)
    assert measured.good_matches([1.0, 0.7, 0.68, 0.66, 0.64, 0.62]) == 6


def test_the_median_image_has_as_many_matches_as_its_group_has_others() -> None:
    random = np.random.default_rng(0)
    groups = np.repeat(random.normal(size=(100, 64)), 3, axis=0) + 0.2 * random.normal(size=(300, 64))
    assert measure_calibration(snapshot_of(groups)).matches == 2
    assert (measure_calibration(snapshot_of(kinds(300))).matches or 0) >= 4


@pytest.mark.parametrize("count", [0, 1, 2, 19])
def test_a_tiny_collection_has_no_bar(count: int) -> None:
    measured = measure_calibration(snapshot_of(kinds(count)))
    assert (measured.bar, measured.matches) == (None, None)
    assert 0 <= measured.share_closer(0.5) < 1
    assert measured.good_matches([0.3, 0.2, 0.1]) == 3


def test_a_collection_of_one_picture_many_times_breaks_nothing() -> None:
    measured = measure_calibration(snapshot_of(np.ones((100, 8))))
    assert measured.bar is None
    assert measured.share_closer(0.9) == 0
    assert measured.good_matches([1.0, 1.0]) == 2


def test_copies_do_not_raise_the_bar() -> None:
    once = kinds(300)
    assert measure_calibration(snapshot_of(np.repeat(once, 3, axis=0))).bar == pytest.approx(
        measure_calibration(snapshot_of(once)).bar, abs=0.02
    )


def test_vectors_of_zeros_break_nothing() -> None:
    assert measure_calibration(snapshot_of(np.zeros((50, 8)))).bar == 0


def test_it_can_be_kept_as_json(tmp_path: Path) -> None:
    measured = measure_calibration(snapshot_of(kinds(100)))
    assert Calibration(**json.loads(json.dumps(asdict(measured)))) == measured
