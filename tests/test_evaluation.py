"""The measures against their definitions, samples and intervals, held-out uploads, and labels from files."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

import evaluation
from ann import Index
from commands import evaluate as command
from config import Settings
from errors import CollectionMissingError, ExportError, RequestError
from evaluation import evaluate, judge, measure_recall, rate_vectors, read_labels
from ranking import KindRanking, build_kind_ranking, load_kind_ranking
from store import Record, Snapshot
from tests.reduced_collection import collection_at
from vectors import Ids, Vectors

KINDS = 10


def kinds_snapshot(count: int, *, spread: float = 1.5) -> tuple[Snapshot, list[str | None]]:
    random = np.random.default_rng(0)
    centres = random.normal(size=(KINDS, 48))
    vectors = centres[np.arange(count) % KINDS] + spread * random.normal(size=(count, 48))
    places = np.arange(count)
    snapshot = Snapshot(places + 1, places, vectors.astype(np.float16), "vectors.f16")
    return snapshot, [f"kind {number % KINDS}" for number in range(count)]


def kind_order(snapshot: Snapshot, folder: Path) -> KindRanking:
    kind = load_kind_ranking(snapshot, folder, build_kind_ranking(snapshot, folder))
    assert kind is not None
    return kind


def test_a_ranking_is_judged_as_the_definitions_say() -> None:
    relevant = np.array([True, False, True, True, False, False, False, False, False, False, False, True])
    assert judge(relevant) == pytest.approx((0.3, (1 / 1 + 2 / 3 + 3 / 4 + 4 / 12) / 4, 0.75))
    assert judge(np.array([True, True])) == (1, 1, 1)
    assert judge(np.array([False, True])) == (0.5, 0.5, 0)


def test_plain_figures_are_those_of_the_plainest_computation() -> None:
    snapshot, labels = kinds_snapshot(150)
    vectors = snapshot.take(slice(None)).astype(np.float64)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = []
    for place in range(150):
        others = sorted(set(range(150)) - {place}, key=lambda other: -units[place] @ units[other])
        expected.append(judge(np.array([labels[other] == labels[place] for other in others])))
    rated = rate_vectors(snapshot.take(slice(None)), [str(label) for label in labels])
    found = (rated.precision, rated.mean_average_precision, rated.r_precision)
    assert rated.queries == 150
    assert [figure.value for figure in found] == pytest.approx(np.mean(expected, axis=0), abs=1e-4)
    for figure in found:
        assert figure.low < figure.value < figure.high
        assert figure.high - figure.low < 0.2


def test_images_and_uploads_are_measured_in_both_orders(tmp_path: Path) -> None:
    snapshot, labels = kinds_snapshot(300)
    result = evaluate(Index(snapshot), kind_order(snapshot, tmp_path), labels)
    assert [(row.asked, row.order, row.queries) for row in result.qualities] == [
        (asked, order, 300) for asked in ("images", "uploads") for order in ("plain", "kind")
    ]
    images_plain, images_kind, uploads_plain, uploads_kind = (row.mean_average_precision for row in result.qualities)
    assert images_kind.value > images_plain.value + 0.05
    assert uploads_kind.value > uploads_plain.value + 0.05
    # Uploads are asked of other vectors than images: nothing of them was in what was computed.
    assert uploads_plain != images_plain
    assert (result.images, result.labelled, result.group_size, result.default_order) == (300, 300, 30, "kind")
    assert result.notes == []
    assert json.loads(json.dumps(asdict(result)))["recalls"][0]["k"] == 1
    assert evaluate(Index(snapshot), kind_order(snapshot, tmp_path), labels) == result


def test_a_held_out_upload_is_in_nothing_that_answers_it(monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot, labels = kinds_snapshot(200)
    asked: list[tuple[set[int], set[int]]] = []

    def judged(of: evaluation._Labelled, queries: Ids, base: evaluation._Labelled, kind: object) -> dict[str, Vectors]:
        asked.append((set(of.snapshot.ids[queries].tolist()), set(base.snapshot.ids.tolist())))
        return {}

    monkeypatch.setattr(evaluation, "_judge", judged)
    evaluate(Index(snapshot), None, labels)
    (images, everything), *folds = asked
    assert images == everything == set(range(1, 201))
    assert len(folds) == 5
    assert sorted(upload for held, _ in folds for upload in held) == list(range(1, 201))
    assert all(held | base == everything and not held & base for held, base in folds)


def test_images_without_a_label_are_in_no_ranking_and_lonely_labels_are_no_queries(tmp_path: Path) -> None:
    snapshot, labels = kinds_snapshot(200)
    labels[:50] = [None] * 50
    labels[50] = "lonely"
    result = evaluate(Index(snapshot), kind_order(snapshot, tmp_path), labels)
    assert result.labelled == 150
    assert {row.queries for row in result.qualities} == {149}
    part = np.arange(50, 200)
    alone = rate_vectors(snapshot.take(part), [str(labels[place]) for place in part.tolist()])
    assert result.qualities[0] == alone
    assert any("50 of 200 images have no label" in note for note in result.notes)


@pytest.mark.parametrize("labels", [[None] * 60, [str(number) for number in range(60)]])
def test_without_labels_that_images_share_only_the_index_is_measured(labels: list[str | None]) -> None:
    snapshot, _ = kinds_snapshot(60)
    result = evaluate(Index(snapshot), None, labels)
    assert result.qualities == []
    assert [row.recall.value for row in result.recalls] == [1, 1, 1]
    assert "--labels" in result.notes[0]


def test_of_many_images_some_by_chance_are_queries_and_this_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(evaluation, "PAIRS", 100)
    monkeypatch.setattr(evaluation, "LEAST_QUERIES", 70)
    monkeypatch.setattr(evaluation, "FOLDED_IMAGES", 100)
    snapshot, labels = kinds_snapshot(300)
    result = evaluate(Index(snapshot), None, labels)
    assert {row.queries for row in result.qualities} == {70}
    assert "70 images by chance" in result.notes[0]
    assert "uploads are one part" in result.notes[1]


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    snapshot, labels = kinds_snapshot(120)
    kind = kind_order(snapshot, tmp_path)
    whole = evaluate(Index(snapshot), kind, labels)
    monkeypatch.setattr(evaluation, "SCORES_AT_A_TIME", 1_000)
    assert evaluate(Index(snapshot), kind, labels) == whole


def test_recall_is_the_share_of_the_true_nearest_that_the_index_finds() -> None:
    snapshot, _ = kinds_snapshot(300)

    class Missing:
        """Proposes every second image."""

        def search(self, query: Vectors, count: int, effort: float) -> Ids:
            return np.arange(0, 300, 2, dtype=np.int64)

    assert measure_recall(Index(snapshot), 10).recall == evaluation.Interval(1, 1, 1)
    poor = measure_recall(Index(snapshot, Missing(), snapshot.ids, snapshot.rows), 10)
    assert poor.queries == 300
    assert 0.4 < poor.recall.low < poor.recall.value < poor.recall.high < 0.6


def test_equal_images_may_take_each_others_place() -> None:
    rows = np.arange(100) // 4
    snapshot = Snapshot(np.arange(100), rows, kinds_snapshot(25)[0].matrix, "vectors.f16")
    assert measure_recall(Index(snapshot), 1).recall.value == 1


# Labels from a file.


def records(*paths: str) -> list[Record]:
    return [Record(path.encode(), 1, 1, image_id=number) for number, path in enumerate(paths, start=1)]


@pytest.mark.parametrize(
    "text",
    [
        "a.jpg,cat\n/p/b.jpg,dog\nnone.jpg,cow\n",
        "\ufefflabel;ignored".replace(";", ",") + ",Path\ncat,x,a.jpg\ndog,y,/p/b.jpg\ncow,z,none.jpg\n",
        '"name","label"\r\n"a.jpg","cat"\r\n\r\n"/p/b.jpg"," dog "\r\n"none.jpg","cow"\r\n',
    ],
)
def test_labels_are_read_by_path_or_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8", newline="")
    labels, unused = read_labels(tmp_path / "labels.csv", records("/p/a.jpg", "/p/b.jpg", "/q/c.jpg"))
    assert labels == ["cat", "dog", None]
    assert unused == 1


def test_the_path_tells_images_of_one_name_apart(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    twins = records("/p/a.jpg", "/q/a.jpg")
    file.write_text("/q/a.jpg,dog\n", encoding="utf-8")
    assert read_labels(file, twins) == ([None, "dog"], 0)
    file.write_text("a.jpg,dog\n", encoding="utf-8")
    with pytest.raises(RequestError, match=r"line 1: 2 images are called 'a\.jpg'"):
        read_labels(file, twins)


def test_the_end_of_a_path_is_enough_where_it_is_of_one_image(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    images = records("/data/cats/1.jpg", "/data/dogs/1.jpg", "dogs/1.jpg", "/data/dogs/2.jpg")
    file.write_text("cats/1.jpg,cat\ndogs/1.jpg,dog\ndata/dogs/2.jpg,two\nogs/2.jpg,no\n", encoding="utf-8")
    assert read_labels(file, images) == (["cat", None, "dog", "two"], 1)
    file.write_text("dogs/1.jpg,dog\n", encoding="utf-8")
    with pytest.raises(RequestError, match="2 images are called"):
        read_labels(file, records("/a/dogs/1.jpg", "/b/dogs/1.jpg"))


def test_labels_that_name_no_image_at_all_are_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("b.jpg,cat\n", encoding="utf-8")
    with pytest.raises(RequestError, match=r"No row of .*labels\.csv .* '/p/a\.jpg'"):
        read_labels(tmp_path / "labels.csv", records("/p/a.jpg"))


def test_a_place_where_nothing_can_be_written_is_told_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = collection_at(tmp_path / "rsc", 60)
    monkeypatch.setattr("evaluation.evaluate", lambda *_, **__: pytest.fail("measured"))
    with pytest.raises(ExportError, match=r"x\.json"):
        command.run(arguments("--output", str(tmp_path / "nowhere" / "x.json")), settings)


@pytest.mark.parametrize(("text", "message"), [("a.jpg\n", "line 1"), ("a.jpg,\n", "'a.jpg' has no label")])
def test_a_row_without_a_label_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
    with pytest.raises(RequestError, match=message):
        read_labels(tmp_path / "labels.csv", records("/p/a.jpg"))


def test_a_labels_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"no\.csv"):
        read_labels(tmp_path / "no.csv", records("/p/a.jpg"))


# The command.


def arguments(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    parser.add_argument("--format", default="table")
    parser.add_argument("--output", type=Path)
    return parser.parse_args(["--evaluate", *given])


def test_the_command_prints_a_table_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = collection_at(tmp_path / "rsc", 240)
    assert command.run(arguments(), settings) == 0
    table = capsys.readouterr().out
    for word in ("recall@10", "P@10", "mAP", "R-precision", "plain cosine", "by kind", "uploads", "240 images"):
        assert word in table
    assert command.run(arguments("--format", "json", "--output", str(tmp_path / "figures.json")), settings) == 0
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert len(figures["qualities"]) == 4
    assert capsys.readouterr().out == ""


def test_the_command_takes_labels_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = collection_at(tmp_path / "rsc", 240, labelled=False)
    (tmp_path / "labels.csv").write_text("nobody.jpg,cat\nimage 0,dog\n", encoding="utf-8")
    assert command.run(arguments("--labels", str(tmp_path / "labels.csv"), "--format", "json"), settings) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["labelled"], figures["qualities"]) == (1, [])
    assert "1 rows of" in figures["notes"][-1]


def test_the_command_says_what_it_cannot_do(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="parquet"):
        command.run(arguments("--format", "parquet"), Settings(rsc_files=tmp_path))
    with pytest.raises(CollectionMissingError):
        command.run(arguments(), Settings(rsc_files=tmp_path))
