"""The benchmark runs, holds figures against bounds in the right direction, and keeps what it measured. No figure is asserted."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from flask import Flask, request

from ann import Index
from benchmarks import search
from benchmarks.__main__ import find_photographs, measure
from benchmarks.load import load
from benchmarks.parts import PARTS, Bench, JobRun, Plan
from benchmarks.processes import children, peak_mb, run_measured
from benchmarks.table import Figure, line, median_figure, number, summary
from store import open_store
from tests.serving import served

TINY = Plan(1, 0.2, {"efficientnet_lite0": 24}, (12, 60), 1, 8, 12, 300, 0.6)


def test_a_figure_passes_from_its_bound_on() -> None:
    assert Figure("p", "f", 0.85, "×", at_least=0.85).verdict == "PASS"
    assert Figure("p", "f", 0.849, "×", at_least=0.85).verdict == "FALLS SHORT"
    assert Figure("p", "f", 2.0, "s", at_most=2).verdict == "PASS"
    assert Figure("p", "f", 2.01, "s", at_most=2).verdict == "FALLS SHORT"


@pytest.mark.parametrize(("value", "verdict"), [(0.89, "FALLS SHORT"), (1.0, "PASS"), (1.11, "FALLS SHORT")])
def test_a_figure_between_two_bounds_is_held_to_both(value: float, verdict: str) -> None:
    assert Figure("p", "f", value, "×", 0.9, 1.1).verdict == verdict


def test_a_figure_without_a_bound_is_only_told() -> None:
    figure = Figure("p", "loading", 0.7, "s")
    assert figure.verdict == ""
    assert line(figure).split() == ["loading", "0.7", "s"]


def test_one_slow_run_of_three_does_not_decide() -> None:
    figure = median_figure("p", "f", [40.0, 3.0, 38.0], "images/s", at_least=30)
    assert figure.value == 38.0
    assert line(figure).endswith("at least 30              PASS        (40 3 38)")


def test_a_figure_that_was_never_measured_is_an_error() -> None:
    with pytest.raises(ValueError, match="never measured"):
        median_figure("p", "f", [], "s")


@pytest.mark.parametrize(
    ("value", "text"), [(4958.3, "4,958"), (100.0, "100"), (39.24, "39.2"), (0.849, "0.849"), (0.0056, "0.0056")]
)
def test_numbers_are_told_with_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_the_summary_names_what_falls_short() -> None:
    figures = [
        Figure("a", "good", 1, "", at_least=1),
        Figure("b", "bad", 1, "", at_least=2),
        Figure("c", "told", 1, ""),
    ]
    assert summary(figures) == "1 of 2 bounds hold.\nFALLS SHORT: b, bad: 1, at least 2"


def test_a_process_is_measured_without_its_children(tmp_path: Path) -> None:
    hungry = "bytearray(200_000_000); import time; time.sleep(0.2)"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hungry!r}]); print('done')"
    finished = run_measured([sys.executable, "-c", child], tmp_path)
    assert finished.output == "done\n"
    assert 0 < finished.peak_mb < 100
    assert finished.child_peak_mb > 150


def test_a_process_that_fails_says_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"code 3.*no such thing"):
        run_measured(
            [sys.executable, "-c", "import sys; print('no such thing', file=sys.stderr); sys.exit(3)"], tmp_path
        )


def test_a_process_that_is_gone_has_no_memory_and_no_children() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert (peak_mb(gone.pid), children(gone.pid)) == (0.0, [])


def test_images_a_second_leave_out_loading_and_the_index(tmp_path: Path) -> None:
    finished = run_measured([sys.executable, "-c", ""], tmp_path)
    report = {"vectorised": 100, "seconds": 15.0, "loading_seconds": 3.0, "index_seconds": 2.0}
    assert JobRun(tmp_path, finished, report).images_per_second == 10.0


def test_settings_of_whoever_measures_do_not_reach_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_THREADS", "1")
    shown = run_measured([sys.executable, "-c", "import os; print(os.environ.get('LOOKALIKE_THREADS'))"], tmp_path)
    assert shown.output == "None\n"


def test_without_the_shared_data_the_sample_photographs_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.__main__.PHOTOGRAPHS", tmp_path / "nothing")
    found = find_photographs(tmp_path)
    assert len(found) > 200
    assert all(path.is_relative_to(tmp_path) for path in found)


def test_clients_send_whole_pictures_and_tell_what_came_of_them() -> None:
    contents = [bytes([number]) * size for number, size in enumerate((1, 1000, 300_000))]
    received: list[bytes] = []
    app = Flask(__name__)

    @app.post("/api/v1/search")
    def search() -> tuple[str, int, dict[str, str]]:
        received.append(request.files["file"].read())
        refused = len(received) % 2 == 0
        return ("", 503, {"Retry-After": "0"}) if refused else ("found", 200, {"Server-Timing": "decode;dur=2.5"})

    with served(app) as address:
        answers = load(int(address.rpartition(":")[2]), contents, 3, 0.3)
    assert set(received) <= set(contents)
    assert sum(answers.statuses.values()) == len(received) >= 3
    assert answers.statuses[503] == len(received) // 2
    assert set(answers.statuses) == {200, 503}
    assert len(answers.seconds) == answers.statuses[200]
    assert answers.stages[0] == {"decode": 2.5}


def test_clients_that_get_no_answer_are_counted() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        answers = load(nobody.getsockname()[1], [b"content"], 2, 0.0)
    assert answers.statuses == {0: 2}


@pytest.mark.openvino
@pytest.mark.keras
@pytest.mark.slow
def test_every_part_runs_and_its_figures_are_kept(
    sample_photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    photographs = sorted(sample_photos.rglob("*.jpg"))[:60]
    flowers = tmp_path / "flowers.npz"
    vectors, number = np.random.default_rng(0).normal(size=(300, 2048)).astype(np.float32), np.arange(300)
    np.savez(
        flowers,
        X=vectors + 30 * np.eye(2048, dtype=np.float32)[number % 5],
        Y=number.astype(str),
        label=(number % 5).astype(str),
    )
    monkeypatch.setattr(search, "FLOWERS", flowers)
    parts = [name for name in PARTS if name != "inception_v3"]
    (tmp_path / "results").mkdir()
    figures = measure(TINY, parts, photographs, tmp_path, tmp_path / "results")
    printed = capsys.readouterr().out
    assert {figure.part for figure in figures} == {*parts, "index"}
    assert all(figure.name in printed for figure in figures)
    (file,) = (tmp_path / "results").glob("*.json")
    kept = json.loads(file.read_text(encoding="utf-8"))
    assert [figure["name"] for figure in kept["figures"]] == [figure.name for figure in figures]
    assert not list(tmp_path.glob("collection-*"))


@pytest.mark.openvino
@pytest.mark.keras
@pytest.mark.slow
def test_random_weights_of_inception_give_vectors_that_differ(sample_photos: Path, tmp_path: Path) -> None:
    bench = Bench(
        Plan(1, 0.2, {"inception_v3": 3}, (1, 1), 1, 1, 1, 1),
        sorted(sample_photos.rglob("original.jpg")),
        tmp_path,
        tmp_path,
    )
    bench.prepare("inception_v3")
    bench.alone("engine", "inception_v3")
    run = bench.job("inception_v3", 3, "exact")
    assert run.report["vectorised"] == 3
    store = open_store(run.collection)
    snapshot = store.snapshot(store.manifest(next((run.collection / "vectors").iterdir()).name).key)
    distances = Index(snapshot).query(snapshot.take(slice(None)), 3).distances
    store.close()
    assert np.isfinite(distances).all()
    assert (distances[:, 1:] > 1e-4).all()
