"""`python autoencoder.py`: what it accepts, prints, plots and returns."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import comparing
import reducing
from commands.autoencoder import main
from commands.img2vec import main as img2vec
from config import ROOT, Settings
from store import open_store
from tests import fake_backbone
from tests.reduced_collection import KEY, add_vectors, collection_at, group_vectors
from tests.test_reducing import everything


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    collection_at(tmp_path / "rsc", 240)
    return tmp_path / "rsc"


def test_training_is_reported_for_people_and_for_programs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--rsc-files", str(folder), "--reducer", "pca", "--reduced-dim", "0.9"]
    assert main(arguments) == 0
    output = capsys.readouterr()
    assert "Reducer:  pca, 48 -> " in output.out
    assert "numbers, trained now" in output.out
    assert "exact search needs no smaller vectors" in output.out
    assert f"python app.py --rsc-files {folder}" in output.out
    assert output.err == ""
    assert "(1 - cosine)\n" in output.out
    assert main([*arguments, "--json"]) == 0
    output = capsys.readouterr()
    report = json.loads(output.out)
    assert (report["reducer"], report["trained"], report["images"], report["losses_plot"]) == ("pca", False, 240, None)
    assert Path(report["file"]) == folder / "reducers" / KEY / "pca.npz"
    assert output.err == ""
    assert main(["--rsc-files", str(folder), "--reducer", "none"]) == 0
    assert "Reducer:  none: exact search among the full vectors" in capsys.readouterr().out
    generation = open_store(folder).generation()
    assert generation is not None
    assert generation.manifest["reducer"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--reduced-dim", "1.5"], "reduced_dim is '1.5'"),
        (["--reduced-dim", "0.9"], "0.9 is no size for the autoencoder"),
        (["--reduced-dim", "48"], "48 numbers were asked for, but the vectors have 48"),
        (["--reducer", "umap"], "must be one of none, autoencoder, pca"),
    ],
)
def test_a_bad_wish_is_refused_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    before = everything(folder)
    assert main(["--rsc-files", str(folder), *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("autoencoder.py: ")
    assert message in error
    assert everything(folder) == before


def test_a_missing_collection_is_an_error_for_programs_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--quiet", "--compare"):
        assert main(["--rsc-files", str(tmp_path / "none"), "--json", option]) == 1
        assert json.loads(capsys.readouterr().out)["error"]["code"] == "no_collection"
    assert not (tmp_path / "none").exists()


def test_the_comparison_is_a_table_a_plot_and_json(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "KINDS", ("pca",))
    monkeypatch.setattr(comparing, "DIMS", (8, 16))
    assert main(["--rsc-files", str(folder), "--compare"]) == 0
    output = capsys.readouterr()
    lines = output.out.splitlines()
    assert lines[0].startswith(f"240 images, vectors of {KEY}; 240 are queries, 240 of them share a label")
    assert lines[2].split()[:4] == ["vectors", "numbers", "index", "MB"]
    assert [line.split()[:3] for line in lines[3:6]] == [
        ["full", "48", "exact"],
        ["pca", "8", "exact"],
        ["pca", "16", "exact"],
    ]
    assert "Measuring pca, 16 numbers" in output.err
    plot = folder / "reducers" / KEY / "comparison.png"
    assert lines[-1] == f"Plot: {plot}"
    with Image.open(plot) as image:
        assert (image.format, image.width > 600) == ("PNG", True)
    assert main(["--rsc-files", str(folder), "--compare", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["lines"][1].keys() >= {
        "bytes",
        "build_s",
        "query_ms",
        "recall_alone",
        "recall_reordered",
        "precision",
    }
    assert report["plot"] == str(plot)


def test_where_nothing_can_be_written_the_table_comes_and_training_says_so(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "KINDS", ("pca",))
    monkeypatch.setattr(comparing, "DIMS", (8,))
    (folder / "reducers").write_text("a file where the folder belongs")
    assert main(["--rsc-files", str(folder), "--compare", "--json"]) == 0
    output = capsys.readouterr()
    assert json.loads(output.out)["plot"] is None
    assert "NOTE: there is no plot: " in output.err
    assert "nothing smaller" not in output.err
    assert main(["--rsc-files", str(folder), "--reducer", "pca", "--reduced-dim", "4"]) == 1
    assert "The reducer cannot be written into" in capsys.readouterr().err


@pytest.mark.filterwarnings("error::RuntimeWarning", "error::UserWarning")
@pytest.mark.parametrize("count", [1, 4, 5])
def test_a_few_images_are_compared_without_a_plot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], count: int
) -> None:
    collection_at(tmp_path / "rsc", count)
    assert main(["--rsc-files", str(tmp_path / "rsc"), "--compare"]) == 0
    output = capsys.readouterr()
    assert output.out.splitlines()[3].split()[:3] == ["full", "48", "exact"]
    assert "nan" not in output.out
    assert "NOTE: there is no plot: nothing smaller" in output.err
    assert "Plot:" not in output.out


@pytest.mark.filterwarnings("error::RuntimeWarning", "error::UserWarning")
def test_images_without_labels_are_plotted_and_impossible_sizes_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "KINDS", ("pca",))
    monkeypatch.setattr(comparing, "DIMS", (1, 32))
    settings = Settings(rsc_files=tmp_path / "rsc")
    add_vectors(settings, np.ones((60, 48), np.float32))
    assert main(["--rsc-files", str(tmp_path / "rsc"), "--compare"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].startswith("pca 32: The 57 vectors to train on span only 1 directions")
    assert Path(lines[-1].removeprefix("Plot: ")).exists()


def test_an_index_over_principal_components_is_called_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "KINDS", ())
    settings = Settings(rsc_files=tmp_path / "rsc")
    add_vectors(settings, group_vectors(300, dim=320))
    arguments = ["--rsc-files", str(tmp_path / "rsc"), "--index", "annoy", "--trees", "10"]
    assert main([*arguments, "--reducer", "none"]) == 0
    assert "none: the index is built over 256 principal components of the full vectors\n" in capsys.readouterr().out
    assert main([*arguments, "--compare"]) == 0
    output = capsys.readouterr().out
    assert "\nprojected      256  annoy " in output
    assert "\nfull: an index over the vectors as they are; projected:" in output


def test_ctrl_c_is_said_and_returned(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(reducing, "fit_reducer", stopped)
    assert main(["--rsc-files", str(folder)]) == 130
    assert "everything is as it was" in capsys.readouterr().err


def test_help_tells_of_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert all(
        option in text
        for option in (
            "--reducer {none,autoencoder,pca,projection}",
            "--reduced-dim",
            "--labels",
            "--compare",
            "--json",
        )
    )


def test_indexing_switches_back_and_forth_without_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_backbone.install(monkeypatch)
    for number in range(12):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.effect_noise((20, 20), 10 * number + 1).save(tmp_path / "photos" / f"{number}.png")
    options = ["--rsc-files", str(tmp_path / "rsc"), "--quiet"]
    assert img2vec([str(tmp_path / "photos"), *options]) == 0
    assert main([*options, "--reducer", "pca", "--reduced-dim", "4"]) == 0
    store = open_store(tmp_path / "rsc")
    for wanted in ("none", "pca"):
        assert img2vec(["--reducer", wanted, *options]) == 0
        generation = store.generation()
        assert generation is not None
        assert (generation.manifest["reducer"] or {"kind": "none"})["kind"] == wanted
    store.close()


@pytest.mark.keras
@pytest.mark.slow
def test_the_autoencoder_is_trained_stopped_and_plotted_from_a_terminal(folder: Path) -> None:
    """In processes of their own: a real Ctrl-C in the middle of training, then a run to the end."""
    before = everything(folder)
    command = [sys.executable, "autoencoder.py", "--rsc-files", str(folder), "--reduced-dim", "8"]
    # A test run in the background ignores Ctrl-C, and so would what it starts.
    listening = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, preexec_fn=listening) as child:
        assert child.stderr is not None
        for line in child.stderr:
            if line.startswith("Epoch 1 of"):
                child.send_signal(signal.SIGINT)
                break
        rest = child.stderr.read()
    assert child.returncode == 130, rest
    assert everything(folder) == before
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert "Reducer:  autoencoder, 48 -> 8 numbers" in finished.stdout
    files = folder / "reducers" / KEY
    assert sorted(os.listdir(files)) == ["autoencoder.keras", "autoencoder.npz", "autoencoder.png"]
    with Image.open(files / "autoencoder.png") as image:
        assert image.format == "PNG"
