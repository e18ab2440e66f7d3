"""Learning from labelled photographs as a whole, with a training that is over at once: what goes in and what comes out."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import finetune as door
from backbones import BACKBONES, NetworkId
from backbones.rows import Head
from backbones.trained import find_trained
from commands.finetune import main
from config import Settings
from errors import BackboneError, CollectionLockedError, LabelError, SettingsError
from finetune import Choices, Job, Sources, finetune, preset_of, project
from finetuning.parts import Company, Parts
from finetuning.planned import training_alone
from finetuning.presets import PRESETS
from finetuning.report import confusion_of, draw_confusion, make_report, read_report, report_text
from finetuning.training import Epoch, Photograph, Progress, Task, Trained
from images import find_images
from img2vec import Job as Indexing
from img2vec import index_images
from store import IMPORTED_BACKBONE, label_images
from tests import fake_backbone
from tests.labelled_pictures import labelled_pictures
from tests.test_finetune_labelled import fake_cifar10

Run = Callable[[Sequence[Photograph]], dict[str, npt.NDArray[np.float32]]]


class Weights:
    """Stands for a Keras model: all that is asked of it is to be saved."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def save_weights(self, path: str) -> None:
        Path(path).write_bytes(self.content)


def colours(photographs: Sequence[Photograph]) -> npt.NDArray[np.float32]:
    """Return the mean colour of each picture."""
    means = []
    for photograph in photographs:
        with Image.open(photograph.path.decode()) as picture:
            means.append(np.asarray(picture.convert("RGB"), dtype=np.float32).mean(axis=(0, 1)))
    return np.array(means)


def trained_by(task: Task) -> Trained:
    """Return a network that knows the classes by their mean colours."""
    learnt = colours([task.photographs[place] for place in task.train.tolist()])
    numbers = task.labels[task.train]
    centres = np.array([learnt[numbers == number].mean(axis=0) for number in range(len(task.classes))])

    def run(photographs: Sequence[Photograph]) -> dict[str, npt.NDArray[np.float32]]:
        seen = colours(photographs)
        distances = np.linalg.norm(seen[:, None] - centres, axis=2)
        scores = np.exp(-distances + distances.min(axis=1, keepdims=True))
        return {
            "base": np.ones_like(seen),
            "avg_pool": seen,
            "scores": (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32),
        }

    history = (Epoch("head", 1, 2.0, 0.5, 2.1, 0.4), Epoch("blocks", 1, 1.0, 0.9, 1.2, 0.8))
    weights = hashlib.sha256(repr((task.seed, task.preset, task.train)).encode()).digest()
    layers = {"avg_pool": 1280, "scores": len(task.classes)}
    return Trained(Weights(weights), Head(0, True), layers, history, 1.5, run)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[Task]:
    """Let trainings be over at once; return what was asked for, in order."""
    fake_backbone.install(monkeypatch)
    asked: list[Task] = []

    def train(
        task: Task, settings: Settings, *, on_progress: Callable[[Progress], None], stop: threading.Event
    ) -> Trained | None:
        asked.append(task)
        trained = trained_by(task)
        for done, epoch in enumerate(trained.history, start=1):
            on_progress(Progress(epoch.stage, done, 2, epoch))
        return None if stop.is_set() else trained

    monkeypatch.setattr(door, "train", train)
    return asked


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return labelled_pictures(tmp_path / "labelled", 6)


def job(photos: Path, **choices: Any) -> Job:
    return Job(Settings(rsc_files=photos.parent / "rsc", threads=2), Sources((str(photos / "*"),)), Choices(**choices))


def indexed(folder: Path, *photos: Path) -> None:
    index_images(Indexing(Settings(rsc_files=folder), find_images([str(folder) for folder in photos]).paths))


def test_what_is_learnt_is_judged_by_what_was_held_out_and_left_to_be_used(photos: Path, trainings: list[Task]) -> None:
    finetuned = finetune(job(photos))
    assert finetuned is not None
    report, task = finetuned.report, trainings[0]
    assert finetuned.trained
    assert (report.learnt_from, report.stopped_by, report.judged, report.judged_by) == (8, 2, 2, "held out")
    assert (report.accuracy, report.confusion) == (1.0, [[1, 0], [0, 1]])
    assert [(entry.name, entry.learnt_from, entry.precision, entry.recall) for entry in report.classes] == [
        ("cats", 4, 1.0, 1.0),
        ("dogs", 4, 1.0, 1.0),
    ]
    row = find_trained("mine", job(photos).networks)
    assert row is not None
    assert (row.class_names, row.default_layer, dict(row.layers)) == (
        ("cats", "dogs"),
        "avg_pool",
        {"avg_pool": 1280, "scores": 2},
    )
    assert (finetuned.network.base, finetuned.network.training["preset"]) == ("efficientnet_lite0", "default")
    assert (task.base, task.preset) == (fake_backbone.NETWORK, PRESETS["default"])
    assert read_report(finetuned.folder) == report
    for name in ("confusion.png", "losses.png"):
        with Image.open(finetuned.folder / name) as picture:
            picture.load()
            assert min(picture.size) >= 300
    assert "Accuracy: 100.0%" in (finetuned.folder / "report.txt").read_text()


def test_the_same_again_says_that_nothing_is_to_be_done(photos: Path, trainings: list[Task]) -> None:
    first, second = finetune(job(photos)), finetune(job(photos))
    assert first is not None
    assert second == replace(first, trained=False)
    assert len(trainings) == 1
    finetune(job(photos, layer="scores"))  # a layer is chosen when the network is used: that is no other training
    assert len(trainings) == 1
    finetune(job(photos, seed=2))
    (photos / "cats" / "0.png").unlink()
    finetune(job(photos))
    assert len(trainings) == 3


def test_an_earlier_training_that_the_name_does_not_mean_any_more_is_told(photos: Path, trainings: list[Task]) -> None:
    first = finetune(job(photos))
    assert first is not None
    manifest = first.folder / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "created_at": "2001-01-01T00:00:00+00:00"}))
    finetune(job(photos, seed=2))
    notes: list[str] = []
    again = finetune(replace(job(photos), on_note=notes.append))
    assert again is not None
    assert (again.folder, again.trained, len(notes)) == (first.folder, False, 2)
    assert "trained later" in notes[1]


def test_a_training_that_was_stopped_goes_on_with_the_same_photographs(
    photos: Path, tmp_path: Path, trainings: list[Task]
) -> None:
    others = labelled_pictures(tmp_path / "others", 8, ("fish",))
    indexed(tmp_path / "rsc", others)
    stopped = job(photos)
    stopped.stop.set()
    assert finetune(stopped) is None
    assert trainings == []
    assert not list(stopped.networks.glob("mine-*"))
    more = labelled_pictures(tmp_path / "more", 8, ("dogs",))
    indexed(tmp_path / "rsc", more)  # what training sees besides is chosen once
    finetuned = finetune(job(photos))
    assert finetuned is not None
    assert {Path(photograph.path.decode()).parent.name for photograph in trainings[0].unlabelled} == {"fish"}
    assert not list(stopped.work_folder.glob("plan-*"))


def test_an_image_to_judge_by_that_is_gone_when_a_training_goes_on_is_left_out(
    photos: Path, tmp_path: Path, trainings: list[Task]
) -> None:
    others = labelled_pictures(tmp_path / "others", 20, ("fish",)) / "fish"
    (tmp_path / "others" / "birds").mkdir()
    for number in range(10):
        (others / f"{number}.png").rename(tmp_path / "others" / "birds" / f"{number}.png")
    indexed(tmp_path / "rsc", tmp_path / "others")
    stopped = job(photos)
    stopped.stop.set()
    finetune(stopped)
    [plan] = stopped.work_folder.glob("plan-*")
    unseen = [path for path, _ in json.loads(plan.read_text())["unseen"]]
    Path(unseen[0]).unlink()
    finetuned = finetune(job(photos))
    assert finetuned is not None
    assert finetuned.report.unseen == len(unseen) - 1 > 0


def test_while_one_trains_another_is_told_to_wait(photos: Path, trainings: list[Task]) -> None:
    work = job(photos).work_folder
    work.mkdir(parents=True)
    with (
        training_alone(work),
        pytest.raises(CollectionLockedError, match=r"Another finetune.py trains in .*\.training"),
    ):
        finetune(job(photos))
    assert trainings == []
    assert finetune(job(photos)) is not None


def test_a_report_that_is_gone_is_told(photos: Path, trainings: list[Task]) -> None:
    first = finetune(job(photos))
    assert first is not None
    (first.folder / "report.json").unlink()
    with pytest.raises(BackboneError, match=r"trained before, but .*report\.json cannot be read"):
        finetune(job(photos))


def test_where_nothing_is_held_out_the_report_says_whose_accuracy_it_is(photos: Path, trainings: list[Task]) -> None:
    finetuned = finetune(job(photos, held_out=0.0))
    assert finetuned is not None
    assert (finetuned.report.judged_by, finetuned.report.judged) == ("validation", 2)
    assert "that flatters" in report_text(finetuned.report, "efficientnet_lite0")


def test_networks_that_cannot_be_written_are_told_before_anything_is_trained(
    photos: Path, trainings: list[Task]
) -> None:
    (photos.parent / "rsc").write_text("a file where the folder should be")
    with pytest.raises(BackboneError, match="it cannot be written to"):
        finetune(replace(job(photos), settings=Settings(threads=2, networks=photos.parent / "rsc" / "networks")))
    assert trainings == []


def test_cifar10_is_learnt_as_folders_are(
    tmp_path: Path, trainings: list[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = np.random.default_rng(1).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    fake_cifar10(monkeypatch, lambda: ((pictures, np.arange(40)[:, None] % 10), (pictures, pictures)))
    notes: list[str] = []
    sources = Sources(cifar10=True, per_class=3, datasets=tmp_path / "datasets")
    finetuned = finetune(Job(Settings(rsc_files=tmp_path / "rsc", threads=2), sources, on_note=notes.append))
    assert finetuned is not None
    assert (len(finetuned.network.class_names), finetuned.report.judged) == (10, 10)
    assert f"python img2vec.py {tmp_path / 'datasets' / 'cifar10-3'}" in notes[0]


# What it begins as.


def test_the_base_is_the_network_that_the_collection_is_searched_by(
    photos: Path, trainings: list[Task], tmp_path: Path
) -> None:
    indexing = Settings(rsc_files=tmp_path / "rsc", backbone="resnet50")
    index_images(Indexing(indexing, find_images([str(photos)]).paths))
    finetune(job(photos))
    finetune(job(photos, base="efficientnet_lite0"))
    assert [task.base.backbone for task in trainings] == ["resnet50", "efficientnet_lite0"]
    with pytest.raises(BackboneError, match="'mine' is no published network"):
        finetune(job(photos, base="mine"))


def test_the_base_is_asked_for_where_nothing_tells_it(
    photos: Path, trainings: list[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    indexed(photos.parent / "rsc", photos)
    imported = NetworkId(IMPORTED_BACKBONE, "vectors", "0" * 64)
    monkeypatch.setattr(door, "network_of", lambda store, generation: imported)
    finetune(job(photos))
    assert trainings[0].base.backbone in BACKBONES
    gone = NetworkId("theirs", "avg_pool", "0" * 64)
    monkeypatch.setattr(door, "network_of", lambda store, generation: gone)
    with pytest.raises(BackboneError, match=r"searched by theirs, .* not in .*theirs-0* any more.* --base"):
        finetune(job(photos))
    finetune(job(photos, base="resnet50"))
    assert trainings[1].base.backbone == "resnet50"


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"preset": "best"}, "no preset 'best'. Choose one of default, article"),
        ({"layer": "dense"}, "no layer 'dense' .* Choose one of avg_pool, scores"),
        ({"blocks": -1}, "--blocks is -1"),
        ({"epochs": 0}, "--epochs 0"),
        ({"held_out": 1.0}, "--held-out 1"),
    ],
)
def test_a_choice_that_cannot_be_is_refused(choices: Mapping[str, Any], said: str) -> None:
    with pytest.raises((SettingsError, BackboneError), match=said):
        preset_of(Choices(**choices))
    assert preset_of(Choices(preset="article", layer="dense", blocks=3)).layer == "dense"


def test_a_name_that_a_published_network_has_is_refused_before_anything_is_read(photos: Path) -> None:
    with pytest.raises(BackboneError, match="the name of a published network"):
        finetune(job(photos / "none", name="vgg16"))


# What it was worth.


def judged(run: Run, unseen_labels: tuple[str, ...] = ("a", "a", "b", "b")) -> Any:
    photographs = tuple(Photograph(b"", bytes([number])) for number in range(6))
    labels = np.array([0, 1] * 3, dtype=np.int64)
    parts = Parts(np.array([0, 1]), np.array([2, 3]), np.array([4, 5]))
    company = Company(
        (), tuple(Photograph(b"", bytes([9, number])) for number in range(len(unseen_labels))), unseen_labels
    )
    task = Task(
        photographs,
        labels,
        ("x", "y"),
        parts.train,
        parts.validation,
        (),
        fake_backbone.NETWORK,
        PRESETS["default"],
        1,
        Path(),
    )
    return make_report(task, parts, company, Trained(None, Head(0, True), {}, (), 0.0, run), ())


def test_classes_that_were_never_learnt_and_find_each_other_worse_are_warned_of() -> None:
    apart = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1], [1, 1, 0], [1, 1, 0]], dtype=np.float32)
    mixed = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 0, 1], [1, 1, 0]], dtype=np.float32)
    scores = np.tile(np.array([0.9, 0.1], dtype=np.float32), (6, 1))
    worse = judged(lambda photographs: {"base": apart, "avg_pool": mixed, "scores": scores})
    assert [entry.unseen for entry in worse.rates][:2] == [1.0, 0.225]
    assert "their mAP falls from 1.000 to 0." in worse.warnings[0]
    assert "WARNING" in report_text(worse, "resnet50")
    same = judged(lambda photographs: {"base": apart, "avg_pool": apart, "scores": scores})
    assert same.warnings == []
    assert (same.accuracy, same.confusion) == (0.5, [[1, 0], [1, 0]])
    assert [(entry.precision, entry.recall) for entry in same.classes] == [(0.5, 1.0), (None, 0.0)]
    assert same.rates[0].among is None  # one photograph a class: none has another to find
    alone = judged(lambda photographs: {"base": apart[:2], "avg_pool": apart[:2], "scores": scores[:2]}, ())
    assert [(entry.chosen, entry.unseen) for entry in alone.rates] == [(None, None)] * 3


def test_confusion_counts_what_was_taken_for_what() -> None:
    counts = confusion_of(np.array([0, 0, 1, 2, 2]), np.array([0, 1, 1, 2, 0]), 3)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]


def test_a_hundred_classes_are_drawn_with_their_names_whatever_they_are(tmp_path: Path) -> None:
    report = judged(lambda photographs: {kind: np.ones((6, 2), np.float32) for kind in ("base", "avg_pool", "scores")})
    names = [
        "$x_1$ costs",
        "a name that is much longer than there is room for",
        *(f"class {number}" for number in range(98)),
    ]
    many = replace(
        report,
        classes=[replace(report.classes[0], name=name) for name in names],
        confusion=np.eye(100, dtype=int).tolist(),
    )
    draw_confusion(many, tmp_path / "confusion.png")
    with Image.open(tmp_path / "confusion.png") as picture:
        assert min(picture.size) > 100 * 20  # room for a line of text each


# A projection.


def test_a_projection_is_learnt_from_those_photographs_that_are_in_the_collection(
    photos: Path, tmp_path: Path, trainings: list[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt: list[Mapping[int, str]] = []
    monkeypatch.setattr(door, "learn_projection", lambda settings, labels, **options: learnt.append(labels))
    shutil.copytree(photos / "cats", tmp_path / "library" / "2019")
    indexed(tmp_path / "rsc", tmp_path / "library")
    projected = project(job(photos))
    assert projected.not_there == 6
    table = tmp_path / "labels.csv"
    table.write_text(f"{photos}/cats/0.png,cats\n{photos}/cats/none.png,cats\n")
    assert project(replace(job(photos), sources=Sources(csv=table))).not_there == 1
    learnt.pop()
    assert sorted(learnt[0].values()) == ["cats"] * 6
    label_images(tmp_path / "rsc", "tabby", list(learnt[0])[:2])
    project(replace(job(photos), sources=Sources(pages=True)))
    assert list(learnt[1].values()) == ["tabby"] * 2
    notes: list[str] = []
    (photos / "labels.csv").write_text("cats/0.png,cat\ncats/gone.png,cat\n")
    project(replace(job(photos), sources=Sources(csv=photos / "labels.csv"), on_note=notes.append))
    assert ["left out: 1." in note and "gone.png: The file cannot be read" in note for note in notes] == [True]
    with pytest.raises(LabelError, match="None of the 6 labelled photographs is in the collection"):
        project(replace(job(photos), sources=Sources((str(photos / "dogs"),))))


# The command.


def test_the_command_reports_for_people_and_for_programs(
    photos: Path, trainings: list[Task], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(photos / "*"), "--rsc-files", str(photos.parent / "rsc"), "--name", "pets"]
    assert main(arguments) == 0
    output = capsys.readouterr()
    assert "Accuracy: 100.0%" in output.out
    assert f"python img2vec.py --backbone pets --rsc-files {photos.parent / 'rsc'}" in output.out
    assert (
        f"Go back:  python img2vec.py --backbone efficientnet_lite0 --rsc-files {photos.parent / 'rsc'}" in output.out
    )
    assert "Top blocks, epoch 1 of 2: loss 1.000, right 90.0%; validation 1.200, 80.0%" in output.err
    assert main([*arguments, "--json"]) == 0
    output = capsys.readouterr()
    report = json.loads(output.out)
    assert (report["trained"], report["name"], report["accuracy"], report["classes"][0]["name"]) == (
        False,
        "pets",
        1.0,
        "cats",
    )
    assert Path(report["folder"], "report.json").is_file()
    assert "Reading" not in output.err
    assert main([*arguments, "--layer", "scores"]) == 0
    output = capsys.readouterr()
    assert "Nothing has changed since it was trained" in output.out
    assert "python img2vec.py --backbone pets --layer scores --rsc-files" in output.out


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ([], 2, "labels come from one of"),
        (["photos/*", "--given"], 2, "labels come from one of"),
        (
            ["--given", "--projection", "--held-out", "0"],
            2,
            "--projection trains no network and has no use for --held-out",
        ),
        (["/no/such/folder/*"], 1, "No files can be found at /no/such/folder/*"),
        (["--given"], 1, "There is no collection"),
        (["--labels", "/no/labels.csv"], 1, "/no/labels.csv cannot be read"),
    ],
)
def test_wrong_use_is_a_message_and_a_status(
    tmp_path: Path,
    trainings: list[Task],
    arguments: list[str],
    status: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    try:
        returned = main([*arguments, "--rsc-files", str(tmp_path / "rsc"), "--quiet"])
    except SystemExit as stop:
        returned = int(str(stop.code))
    assert returned == status
    assert said in capsys.readouterr().err
