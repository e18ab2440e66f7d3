"""A collection that is searched by what labels taught: what is projected, what is not, and the way back."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from commands.autoencoder import main
from config import Settings
from errors import DamagedCollectionError, EmptyCollectionError, LabelError, QueryError, ReducerError
from projection import Change, Learned
from publishing import PROJECTED_FILE, Searched, is_current, open_index, publish, publish_view, searched, view_of
from reducing import forget_projection, known_labels, learn_projection, learned_projection, reduce_collection
from search import Collection, open_collection
from store import Batch, Generation, Store, label_images, open_store, open_writer
from tests.labelled_collection import CLASSES, KEY, WIDTH, add_confusing, confusing_vectors, labelled_collection
from tests.test_reducing import everything
from vectors import Vectors, unit_vectors

COUNT = 320
MORE = 40


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The collection before anything is learnt."""
    return labelled_collection(tmp_path_factory.mktemp("plain") / "rsc", COUNT)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The same, which has learnt from the half of the images of its first six classes."""
    settings = labelled_collection(tmp_path_factory.mktemp("taught") / "rsc", COUNT)
    learn_projection(settings, half_of_six(settings))
    return settings


@pytest.fixture
def own_copy(taught: Settings, tmp_path: Path) -> Settings:
    """The collection that has learnt, to be changed."""
    with closing(open_collection(taught.rsc_files, settings=taught)) as collection:
        collection.save(tmp_path / "rsc")
    return replace(taught, rsc_files=tmp_path / "rsc")


def half_of_six(settings: Settings) -> dict[int, str]:
    with closing(open_store(settings.rsc_files)) as store:
        labels = {record.image_id: str(record.label) for record in store.all_records()}
    return {i: label for i, label in labels.items() if int(label) < 6 and (i - 1) // CLASSES % 2 == 0}


def published(store: Store) -> Generation:
    generation = store.generation()
    assert generation is not None
    return generation


@pytest.fixture
def opened(taught: Settings) -> Iterator[Collection]:
    with open_collection(taught.rsc_files, settings=taught) as collection:
        yield collection


def projected(found: Searched, vectors: Vectors) -> Vectors:
    assert found.projection is not None
    return found.projection.apply(vectors)


def test_answers_are_in_the_order_of_what_was_learnt(plain: Settings, taught: Settings) -> None:
    labels = half_of_six(plain)
    with closing(open_store(taught.rsc_files)) as store:
        found = searched(store, published(store))
        classes = np.array([int(store.record(int(i)).label or -1) for i in found.own.ids])
        index = open_index(store, published(store))
        asked = np.array([n for n, i in enumerate(found.own.ids) if classes[n] < 6 and int(i) not in labels])
        answers = index.query(found.snapshot.take(asked), 6).without(found.own.ids[asked], 5).ids
    vectors = unit_vectors(found.own.take(slice(None)))
    before = np.argsort(-(vectors[asked] @ vectors.T), axis=1)[:, 1:6]
    right = [
        (classes[np.searchsorted(found.own.ids, answers)] == classes[asked][:, None]).mean(),
        (classes[before] == classes[asked][:, None]).mean(),
    ]
    assert right[0] > right[1] + 0.1


def test_each_image_has_the_same_row_in_both(taught: Settings) -> None:
    with closing(open_store(taught.rsc_files)) as store:
        generation = published(store)
        found = searched(store, generation)
        assert (found.snapshot.ids is found.own.ids, found.snapshot.rows is found.own.rows) == (True, True)
        wanted = projected(found, found.own.take(slice(None)))
        assert np.abs(found.snapshot.take(slice(None)) - wanted).max() < 1e-3
        assert (generation.folder / PROJECTED_FILE).stat().st_size == 2 * wanted.size
        assert found.snapshot.file.startswith(found.own.file + "+projection-")


def test_an_image_a_vector_and_several_are_projected_alike(opened: Collection) -> None:
    own = confusing_vectors(COUNT)[0]
    by_image, by_vector = opened.query(5, 7), opened.query(own[4], 7)
    assert by_image["reference_label"].tolist() == by_vector["reference_label"].tolist()
    assert np.abs(by_image["distance"] - by_vector["distance"]).max() < 2e-3
    together = opened.query([5, 21], 5, together=True)
    assert len(together) == 5
    graph = opened.similarity_graph(3)
    assert graph["distance"][graph["source"] == 5].tolist() == pytest.approx(by_image["distance"][1:4].tolist())


def test_a_vector_must_be_as_long_as_those_of_the_network(opened: Collection) -> None:
    with pytest.raises(QueryError, match=f"has 8 numbers, but those of this collection have {WIDTH}"):
        opened.query(np.zeros(8, np.float32))


def test_the_way_back_gives_the_answers_of_before(plain: Settings, own_copy: Settings) -> None:
    with open_collection(plain.rsc_files, settings=plain) as collection:
        before = collection.query([1, 2, 3], 10)
    manifest = forget_projection(own_copy)
    assert manifest["reducer"] is None
    assert "projected" not in manifest
    with open_collection(own_copy.rsc_files, settings=own_copy) as collection:
        assert collection.query([1, 2, 3], 10).tolist() == before.tolist()
    with closing(open_store(own_copy.rsc_files)) as store:
        assert not (published(store).folder / PROJECTED_FILE).exists()
    # What was learnt lies there still, and is not learnt again.
    assert not learn_projection(own_copy, half_of_six(own_copy)).trained
    assert reduce_collection(replace(own_copy, reducer="none")).kind == "none"


# A collection that grows and shrinks.


def test_new_images_are_projected_and_the_generation_before_stays_as_it_was(own_copy: Settings) -> None:
    with closing(open_store(own_copy.rsc_files)) as store:
        before = published(store)
        first = (before.folder / PROJECTED_FILE).read_bytes()
        add_confusing(own_copy, MORE, first=COUNT)
        after = published(store)
        second = (after.folder / PROJECTED_FILE).read_bytes()
        assert second[: len(first)] == first
        assert len(second) == len(first) * (COUNT + MORE) // COUNT
        assert (before.folder / PROJECTED_FILE).read_bytes() == first
        found = searched(store, after)
        assert isinstance(found.snapshot.matrix, np.memmap)
        wanted = projected(found, found.own.take(slice(COUNT, None)))
        assert np.abs(found.snapshot.take(slice(COUNT, None)) - wanted).max() < 1e-3
        assert after.manifest["reducer"] == before.manifest["reducer"]


def test_images_that_came_since_the_generation_are_projected_when_it_is_opened(
    own_copy: Settings,
) -> None:
    add_confusing(own_copy, MORE, first=COUNT, publishes=False)
    with closing(open_store(own_copy.rsc_files)) as store:
        found = searched(store, published(store))
        assert len(found.snapshot) == COUNT + MORE
        wanted = projected(found, found.own.take(slice(None)))
        assert np.abs(found.snapshot.take(slice(None)) - wanted).max() < 1e-3
    with open_collection(own_copy.rsc_files, settings=own_copy) as collection:
        assert collection.query(COUNT + 1, 1)["distance"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("publishes", [True, False])
def test_a_vectors_file_that_was_compacted_is_projected_anew(own_copy: Settings, *, publishes: bool) -> None:
    with open_writer(own_copy.rsc_files, command="a test") as writer:
        writer.remove(range(1, 200))
        assert writer.compact() > 0
        if publishes:
            publish(writer, KEY, own_copy)
    with closing(open_store(own_copy.rsc_files)) as store:
        found = searched(store, published(store))
        assert len(found.snapshot.matrix) == COUNT - 199
        wanted = projected(found, found.own.take(slice(None)))
        assert np.abs(found.snapshot.take(slice(None)) - wanted).max() < 1e-3


def test_vectors_that_were_lost_and_made_again_in_another_order_are_projected_anew(own_copy: Settings) -> None:
    [file] = (own_copy.rsc_files / "vectors" / KEY).glob("*.f16")
    os.truncate(file, 2 * WIDTH * (COUNT - MORE))
    vectors = confusing_vectors(COUNT)[0]
    hashes = [hashlib.sha256(str(number).encode()).digest() for number in range(COUNT)]
    with open_writer(own_copy.rsc_files, command="a test") as writer:
        writer.begin_vectors(writer.manifest(KEY))
        again = {hashes[number]: vectors[number] for number in range(COUNT - 1, COUNT - MORE - 1, -1)}
        writer.commit(KEY, Batch(vectors=again))
        publish(writer, KEY, own_copy)
        found = searched(writer, published(writer))
    assert found.own.take(slice(None)) == pytest.approx(vectors, abs=1e-2)
    wanted = projected(found, found.own.take(slice(None)))
    assert np.abs(found.snapshot.take(slice(None)) - wanted).max() < 1e-3


def test_publishing_again_changes_nothing_and_mends_what_is_damaged(own_copy: Settings) -> None:
    with open_writer(own_copy.rsc_files, command="a test") as writer:
        number = published(writer).number
        publish(writer, KEY, own_copy)
        assert published(writer).number == number
        path = published(writer).folder / PROJECTED_FILE
        path.write_bytes(path.read_bytes()[:-2])
        with pytest.raises(DamagedCollectionError, match="img2vec"):
            searched(writer, published(writer))
        publish(writer, KEY, own_copy)
        assert published(writer).number == number + 1
        assert len(searched(writer, published(writer)).snapshot) == COUNT


def test_an_index_is_never_carried_over_to_another_projection(own_copy: Settings) -> None:
    own_copy = replace(own_copy, index="annoy", trees=5)
    labels = half_of_six(own_copy)
    first = learn_projection(own_copy, labels)
    second = learn_projection(own_copy, {i: label for i, label in labels.items() if label != "5"})
    assert (first.trained, second.trained, len(second.classes)) == (False, True, 5)
    files = [generation["index"]["vectors_file"] for generation in (first.generation, second.generation)]
    assert (len(set(files)), first.generation["index"]["kind"]) == (2, "annoy")
    with closing(open_store(own_copy.rsc_files)) as store:
        index = open_index(store, published(store))
        found = searched(store, published(store))
        units = unit_vectors(found.snapshot.take(slice(None)))
        answers = index.query(units[:20], 5).ids
        assert (answers == found.snapshot.ids[np.argsort(-(units[:20] @ units.T), axis=1)[:, :5]]).mean() > 0.97


# Views.


def test_groups_and_maps_are_of_what_is_searched_and_duplicates_of_the_networks_vectors(own_copy: Settings) -> None:
    def write(folder: Path) -> list[str]:
        return []

    with open_writer(own_copy.rsc_files, command="a test") as writer:
        for name in ("groups", "duplicates"):
            publish_view(writer, published(writer), name, write, options={}, report={})

    def current() -> list[bool]:
        with closing(open_store(own_copy.rsc_files)) as store:
            generation = published(store)
            views = {name: view_of(generation, name) for name in ("groups", "duplicates")}
            return [is_current(generation, name, view) for name, view in views.items() if view is not None]

    assert current() == [True, True]
    forget_projection(own_copy)
    assert current() == [False, True]
    add_confusing(own_copy, 1, first=COUNT)
    assert current() == [False, False]


# Which labels.


def test_labels_that_people_gave_come_before_the_folders_names(own_copy: Settings) -> None:
    with closing(open_store(own_copy.rsc_files)) as store:
        assert len(known_labels(store)) == COUNT
        label_images(own_copy.rsc_files, "chair", [1, 2, 3])
        assert known_labels(store) == {1: "chair", 2: "chair", 3: "chair"}


def test_copies_under_several_labels_and_labels_of_one_picture_are_left_out(own_copy: Settings) -> None:
    notes: list[str] = []
    labels = half_of_six(own_copy)
    with closing(open_store(own_copy.rsc_files)) as store:
        record = store.record(1)
    with open_writer(own_copy.rsc_files, command="a test") as writer:
        writer.commit(KEY, Batch(records=[replace(record, path=b"a copy", image_id=0, label="5")]))
        publish(writer, KEY, own_copy)
    learned = learn_projection(own_copy, {**labels, COUNT + 1: "5", 40: "alone", 9999: "0"}, on_note=notes.append)
    assert learned.classes["0"] == sum(label == "0" for label in labels.values()) - 1
    assert learned.learnt_from == len(labels) - 1
    assert any("several labels at once" in note for note in notes)
    assert any("a single photograph" in note and "alone" in note for note in notes)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({}, "there are: none"),
        (dict.fromkeys(range(1, 50), "cat"), "there are: 'cat' \\(49\\)"),
        ({1: "a", 2: "b", 3: "c"}, "at least two photographs each"),
        ({9001: "a", 9002: "a", 9003: "b", 9004: "b"}, "there are: none"),
    ],
)
def test_labels_that_show_nothing_are_refused_and_nothing_changes(
    own_copy: Settings, labels: dict[int, str], message: str
) -> None:
    before = everything(own_copy.rsc_files)
    with pytest.raises(LabelError, match=message):
        learn_projection(own_copy, labels)
    assert everything(own_copy.rsc_files) == before


def test_a_share_of_the_variance_is_no_size_of_a_projection(own_copy: Settings) -> None:
    with pytest.raises(ReducerError, match=r"0\.95 is no size for a projection"):
        learn_projection(replace(own_copy, reduced_dim="0.95"), half_of_six(own_copy))
    assert learn_projection(replace(own_copy, reduced_dim="8"), half_of_six(own_copy)).generation["reducer"]["dim"] == 8


def test_whatever_ends_learning_early_leaves_everything_as_it_was(
    own_copy: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*given: object, **options: object) -> None:
        raise KeyboardInterrupt

    before = everything(own_copy.rsc_files)
    monkeypatch.setattr("reducing.publish", stopped)
    with pytest.raises(KeyboardInterrupt):
        learn_projection(own_copy, dict.fromkeys(range(1, 40), "a") | dict.fromkeys(range(40, 80), "b"))
    assert everything(own_copy.rsc_files) == before


def test_of_very_many_labelled_photographs_some_are_taken_by_chance(
    own_copy: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reducing.LABELLED_VECTORS", 50)
    notes: list[str] = []
    learned = learn_projection(own_copy, half_of_six(own_copy), on_note=notes.append)
    assert learned.learnt_from == 50
    assert any("from 50 of the 60 labelled" in note for note in notes)


def test_a_collection_that_lost_all_its_images_cannot_learn_but_stays_open(own_copy: Settings) -> None:
    with open_writer(own_copy.rsc_files, command="a test") as writer:
        writer.remove(range(1, COUNT + 1))
        publish(writer, KEY, own_copy)
        assert len(searched(writer, published(writer)).snapshot) == 0
    with pytest.raises(EmptyCollectionError):
        learn_projection(own_copy, {1: "a"})


def test_what_was_learnt_is_told_again_from_the_generation(taught: Settings, plain: Settings) -> None:
    with closing(open_store(taught.rsc_files)) as store:
        learned = learned_projection(published(store))
    assert learned is not None
    assert (learned.learnt_from, len(learned.classes), learned.trained) == (60, 6, False)
    assert learned.held_out is not None
    assert learned.held_out.gain > 0.1
    with closing(open_store(plain.rsc_files)) as store:
        assert learned_projection(published(store)) is None


def test_a_person_is_warned_where_what_was_never_labelled_is_found_less_well(
    own_copy: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    worse, better = Change(0.8, 0.7, 50, 3), Change(0.5, 0.6, 50, 3)
    for change, words in (
        (Learned(np.eye(32, 16, dtype=np.float32), 1.0, better, None, worse), "0.800 before, 0.700"),
        (Learned(np.eye(32, 15, dtype=np.float32), 1.0, worse, better, None), "did not help"),
    ):
        monkeypatch.setattr("reducing.learn", lambda *given, change=change: change)
        labels = dict(list(half_of_six(own_copy).items())[change.matrix.shape[1] :])
        warning = learn_projection(own_copy, labels).warning
        assert warning is not None
        assert words in warning
        assert "--reducer none" in warning


# The command.


def test_the_command_learns_from_a_file_and_goes_back(
    own_copy: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels, here = tmp_path / "labels.csv", ["--rsc-files", str(own_copy.rsc_files), "--index", "exact"]
    rows = [f"image {i - 1},{label}" for i, label in half_of_six(own_copy).items() if label in "012"]
    labels.write_text("\n".join(["path,label", *rows, "nowhere,0"]))
    assert main([*here, "--reducer", "projection", "--labels", str(labels)]) == 0
    output = capsys.readouterr()
    assert "Reducer:  projection to 32 numbers, learnt now" in output.out
    assert "Labels:   30 photographs of 3 classes; strength" in output.out
    assert output.out.count("Judged:") == 2
    assert f"Back:     python autoencoder.py --reducer none --rsc-files {own_copy.rsc_files}" in output.out
    assert "1 rows of" in output.err
    assert "Learning from 30 photographs" in output.err
    assert main([*here, "--reducer", "projection", "--labels", str(labels), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["reducer"], report["trained"], report["learnt_from"]) == ("projection", False, 30)
    assert report["held_out"].keys() == {"before", "after", "images", "classes"}
    assert main([*here, "--reducer", "none"]) == 0
    assert "none: exact search among the full vectors" in capsys.readouterr().out


def test_without_a_file_the_folders_names_are_learnt_from(
    own_copy: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--rsc-files", str(own_copy.rsc_files), "--reducer", "projection", "--quiet"]) == 0
    output = capsys.readouterr()
    assert (f"Labels:   {COUNT} photographs of {CLASSES} classes" in output.out, output.err) == (True, "")


def test_labels_without_a_projection_are_refused(
    own_copy: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--rsc-files", str(own_copy.rsc_files), "--labels", str(tmp_path / "labels.csv")]) == 1
    assert "--reducer projection --labels" in capsys.readouterr().err
