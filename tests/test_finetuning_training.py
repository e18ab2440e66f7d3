"""Training: the two stages, going on after a kill, ending early, what the frozen layers keep, the presets."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import finetuning.training
from backbones.rows import BACKBONES, Head
from config import Settings
from errors import BackboneError, ImageError
from finetuning.fitting import Fitting, Material, Stage, State, load_state, save_state
from finetuning.frozen import Photograph, last_frozen, make_view
from finetuning.presets import PRESETS, Preset
from finetuning.training import CHECKPOINT, Progress, Task, Trained, train
from tests.tiny_network import TINY_DIM, save_tiny, tiny_row

pytestmark = pytest.mark.keras

COLOURS = ((200, 40, 40), (40, 200, 40), (40, 40, 200))
PER_CLASS = 8
PRESET = replace(PRESETS["default"], blocks=1, views=2, head_epochs=2, epochs=3, batch_size=8)


def write_photograph(folder: Path, number: int, colour: tuple[int, int, int]) -> Photograph:
    """Write noise about a colour as a PNG file."""
    noise = np.random.default_rng(number).integers(-40, 40, (40, 48, 3))
    path = folder / f"{number}.png"
    Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(path)
    return Photograph(os.fsencode(path), hashlib.sha256(path.read_bytes()).digest())


@dataclass(frozen=True)
class World:
    """Photographs of three colours and grey ones without a label, and a tiny network's weights."""

    photographs: tuple[Photograph, ...]
    unlabelled: tuple[Photograph, ...]
    weights: Path
    task: Callable[[Path, Preset], Task]

    @property
    def settings(self) -> Settings:
        return Settings(weights=self.weights, threads=1)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("photographs")
    labels = np.repeat(np.arange(3), PER_CLASS)
    photographs = tuple(write_photograph(folder, number, COLOURS[label]) for number, label in enumerate(labels))
    unlabelled = tuple(write_photograph(folder, 100 + number, (120, 120, 120)) for number in range(20))
    base = save_tiny(folder / "tiny.weights.h5")
    everything = np.arange(len(labels))

    def task(work: Path, preset: Preset) -> Task:
        work.mkdir(exist_ok=True)
        return Task(
            photographs=photographs,
            labels=labels,
            classes=("red", "green", "blue"),
            train=everything[everything % 4 > 0],
            validation=everything[everything % 4 == 0],
            unlabelled=unlabelled,
            base=base,
            preset=preset,
            seed=3,
            folder=work,
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetuning.training, "BACKBONES", {"resnet50": tiny_row()})
        yield World(photographs, unlabelled, folder / "tiny.weights.h5", task)


def quiet(progress: Progress) -> None:
    """Hear of progress, and do nothing."""


def finish(task: Task, world: World, on_progress: Callable[[Progress], None] = quiet) -> Trained:
    """Train to the end."""
    trained = train(task, world.settings, on_progress=on_progress, stop=threading.Event())
    assert trained is not None
    return trained


@pytest.fixture(scope="module")
def finished(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[Task, Trained]:
    """A training that nothing interrupted."""
    task = world.task(tmp_path_factory.mktemp("work"), PRESET)
    return task, finish(task, world)


def test_a_training_goes_through_both_stages_and_gives_vectors_of_every_layer(
    world: World, finished: tuple[Task, Trained]
) -> None:
    _, trained = finished
    assert [(epoch.stage, epoch.number) for epoch in trained.history] == [
        *(("head", 1), ("head", 2)),
        *(("blocks", 1), ("blocks", 2), ("blocks", 3)),
    ]
    vectors = trained.run(world.photographs)
    assert {name: array.shape for name, array in vectors.items()} == {
        "base": (24, TINY_DIM),
        "avg_pool": (24, TINY_DIM),
        "scores": (24, 3),
    }
    assert trained.layers == {"avg_pool": TINY_DIM, "scores": 3}
    np.testing.assert_allclose(vectors["scores"].sum(axis=1), 1, atol=1e-5)
    assert not np.allclose(vectors["base"], vectors["avg_pool"], atol=1e-3)
    assert {name: array.shape for name, array in trained.run(()).items()} == {
        "base": (0, TINY_DIM),
        "avg_pool": (0, TINY_DIM),
        "scores": (0, 3),
    }


def test_the_network_that_is_saved_makes_the_vectors_that_were_reported(
    world: World, finished: tuple[Task, Trained], tmp_path: Path
) -> None:
    from backbones.keras_engine import new_trained, scaled

    _, trained = finished
    trained.model.save_weights(str(tmp_path / "network.weights.h5"))
    loaded = new_trained(tiny_row(), PRESET.head, 3)
    loaded.load_weights(str(tmp_path / "network.weights.h5"))
    pictures = [Image.open(os.fsdecode(photograph.path)) for photograph in world.photographs]
    pixels = np.stack(
        [make_view(one, 0, photograph, tiny_row()) for one, photograph in zip(pictures, world.photographs, strict=True)]
    )
    scores = loaded.predict_on_batch(scaled(tiny_row(), pixels))
    np.testing.assert_allclose(scores, trained.run(world.photographs)["scores"], atol=0.01)


def test_only_the_top_blocks_and_the_head_are_changed(world: World, finished: tuple[Task, Trained]) -> None:
    from backbones.keras_engine import load_base

    _, trained = finished
    base = load_base(tiny_row(), world.weights)
    kinds = [type(layer).__name__ for layer in base.layers]
    top = (
        len(kinds) - kinds[::-1].index("Add") - 1
    )  # the last join is within the last block, which begins at the one before
    begins = kinds.index("Add")
    assert begins < top
    for place, (old, new) in enumerate(zip(base.layers, trained.model.layers, strict=False)):
        same = all(np.array_equal(a, b) for a, b in zip(old.get_weights(), new.get_weights(), strict=True))
        changes = place > begins and type(new).__name__ == "Conv2D"
        assert same or place > begins, f"{new.name} is frozen"
        assert not (changes and same), f"{new.name} was not trained"


def test_a_training_that_is_killed_again_and_again_ends_as_if_it_had_not_been(
    world: World, finished: tuple[Task, Trained], tmp_path: Path
) -> None:
    task, whole = replace(finished[0], folder=tmp_path), finished[1]
    heard: list[Progress] = []
    for epochs in (0, 1, 3):  # while photographs go through the frozen layers, in the first stage, in the second one
        stop = threading.Event()

        def listen(progress: Progress, stop: threading.Event = stop, epochs: int = epochs) -> None:
            heard.append(progress)
            if sum(one.epoch is not None for one in heard) == epochs and (epochs or progress.done > 5):
                stop.set()

        assert train(task, world.settings, on_progress=listen, stop=stop) is None
    trained = finish(task, world, heard.append)
    assert [one.epoch for one in heard if one.epoch is not None] == list(whole.history) == list(trained.history)
    for ours, theirs in zip(trained.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_finished_training_run_again_is_the_same_and_reads_no_photograph(
    world: World, tmp_path: Path, finished: tuple[Task, Trained], monkeypatch: pytest.MonkeyPatch
) -> None:
    task, trained = finished
    monkeypatch.setattr(finetuning.frozen, "decode_image", None)
    heard: list[Progress] = []
    again = finish(task, world, heard.append)
    assert [one.epoch for one in heard if one.epoch is not None] == []
    assert again.history == trained.history
    np.testing.assert_array_equal(
        again.run(world.photographs[:3])["scores"], trained.run(world.photographs[:3])["scores"]
    )


def test_another_task_in_the_same_folder_begins_at_its_beginning(world: World, finished: tuple[Task, Trained]) -> None:
    task, trained = finished
    key = finetuning.training._key(task, task.unlabelled)
    assert load_state(task.folder / CHECKPOINT, key).history == list(trained.history)
    for other in (
        replace(task, seed=4),
        replace(task, preset=replace(PRESET, rate=1e-3)),
        replace(task, labels=np.roll(task.labels, 1)),
        replace(task, train=task.train[1:]),
    ):
        assert load_state(task.folder / CHECKPOINT, finetuning.training._key(other, other.unlabelled)).history == []


def test_a_damaged_checkpoint_is_as_good_as_none(tmp_path: Path) -> None:
    path = tmp_path / CHECKPOINT
    save_state(path, State(epoch=2, weights=[np.ones(3)], best=[np.zeros(3)]), "key")
    assert load_state(path, "key").epoch == 2
    content = path.read_bytes()
    for cut in (0, 10, len(content) // 2, len(content) - 5):
        path.write_bytes(content[:cut])
        assert load_state(path, "key") == State()
    path.unlink()
    assert load_state(path, "key") == State()


def tiny_stage(*, epochs: int, patience: int) -> tuple[Stage, Material, Any]:
    """Two classes on a line; who judges has them the other way round, so that every epoch is worse than the one before."""
    import keras

    keras.utils.set_random_seed(1)
    inputs = keras.Input((1,))
    model = keras.Model(inputs, {"logits": keras.layers.Dense(2)(inputs)})
    values = np.array([[-1.0], [1.0], [-1.0], [1.0]], np.float32)
    stage = Stage(
        name="head",
        model=model,
        read=lambda places, views: values[places],
        read_unlabelled=lambda places: values[places],
        before=values,
        distillation=0.0,
        views=1,
        epochs=epochs,
        batch_size=2,
        patience=patience,
        smoothing=0.0,
        make_optimizer=lambda steps: keras.optimizers.SGD(0.1),
        variables=model.trainable_variables,
        kept=model.trainable_variables,
        none=None,
    )
    nothing: NDArray[np.int64] = np.arange(0)
    weights = np.ones(2, np.float32)
    material = Material(np.array([0, 1, 1, 0]), np.array([0, 1]), np.array([2, 3]), nothing, nothing, weights)
    return stage, material, model


def test_training_ends_when_it_was_no_better_for_a_while_and_keeps_the_best_weights() -> None:
    stage, material, model = tiny_stage(epochs=20, patience=3)
    state = State()
    fitting = Fitting(stage, material, state, seed=0)
    weights = []
    while not fitting.finished:
        assert fitting.run_epoch(threading.Event())
        weights.append(model.get_weights())
    assert [epoch.number for epoch in state.history] == [1, 2, 3, 4]
    assert np.diff([epoch.validation_loss for epoch in state.history]).min() > 0
    fitting.keep_best()
    np.testing.assert_array_equal(model.get_weights()[0], weights[0][0])
    assert not np.array_equal(weights[0][0], weights[3][0])


def test_without_photographs_to_judge_by_the_last_epoch_is_kept() -> None:
    stage, material, model = tiny_stage(epochs=5, patience=2)
    fitting = Fitting(stage, replace(material, validation=np.arange(0)), State(), seed=0)
    while not fitting.finished:
        fitting.run_epoch(threading.Event())
        last = model.get_weights()[0]
    fitting.keep_best()
    np.testing.assert_array_equal(model.get_weights()[0], last)


def test_a_class_with_few_photographs_counts_as_much_as_one_with_many(world: World, tmp_path: Path) -> None:
    task = world.task(tmp_path, PRESET)
    few = replace(task, train=np.array([1, 2, 3, 9, 17]))
    weights = finetuning.training._material(few, 0).class_weights
    np.testing.assert_allclose(weights * np.bincount(task.labels[few.train]), 5 / 3, rtol=1e-6)


def cosines(vectors: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the cosine of each row with the same row of others (or the only one)."""
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(others, axis=1)
    result: NDArray[np.float32] = (vectors * others).sum(axis=1) / lengths
    return result


def test_unlabelled_photographs_are_told_from_the_classes_and_held_where_they_were(
    world: World, tmp_path: Path
) -> None:
    """Grey ones are "none of these", so their cosine with the class that is nearest to them falls."""
    preset = replace(PRESET, head_epochs=1, epochs=6, rate=3e-3, distillation=0.0, patience=9)
    nearest, kept = [], []
    trainings = (((), 0.0), (world.unlabelled, 0.0), (world.unlabelled, 100.0), ((), 100.0))
    for unlabelled, distillation in trainings:
        task = world.task(tmp_path, replace(preset, distillation=distillation))
        trained = finish(replace(task, unlabelled=unlabelled), world)
        vectors = trained.run(world.unlabelled)
        kernel = trained.model.get_layer("logits").get_weights()[0]
        nearest.append(max(cosines(vectors["avg_pool"], column[None]).mean() for column in kernel.T))
        kept.append(cosines(vectors["avg_pool"], vectors["base"]).mean())
    assert nearest[1] < nearest[0] - 0.02
    assert 1 - kept[2] < (1 - kept[1]) / 2
    assert 1 - kept[3] < (1 - kept[0]) / 2, "without others, the labelled ones are held"


def test_an_unlabelled_photograph_that_looks_like_a_class_is_not_learnt_as_none_of_these() -> None:
    directions = np.eye(3, 4, dtype=np.float32)
    own = finetuning.training._units(
        np.repeat(directions, 5, axis=0) + np.linspace(0, 0.3, 15, dtype=np.float32)[:, None]
    )
    unlabelled = np.vstack([own[7:8], np.eye(4, dtype=np.float32)[3:], own[2:3]])
    cosines = finetuning.training._compare(own, np.repeat(np.arange(3), 5), unlabelled)
    assert finetuning.training._strangers(cosines).tolist() == [1]


def test_an_unreadable_photograph_is_named_and_an_unlabelled_one_left_out(world: World, tmp_path: Path) -> None:
    task = world.task(tmp_path, replace(PRESET, head_epochs=1, blocks=0))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nno more")
    photograph = Photograph(os.fsencode(broken), b"b" * 32)
    finish(replace(task, unlabelled=(*task.unlabelled, photograph)), world)
    with pytest.raises(ImageError, match=r"broken\.png: .* leave it out"):
        finish(replace(task, photographs=(task.photographs[0], photograph, *task.photographs[2:])), world)
    gone = Photograph(os.fsencode(tmp_path / "gone.png"), b"g" * 32)
    with pytest.raises(ImageError, match=r"gone\.png"):
        finish(replace(task, photographs=(task.photographs[0], gone, *task.photographs[2:])), world)


def test_the_recipe_of_the_article_has_a_layer_of_512(world: World, tmp_path: Path) -> None:
    trained = finish(world.task(tmp_path, replace(PRESETS["article"], head_epochs=1, epochs=1)), world)
    assert trained.head == Head(512, False)
    assert trained.run(world.photographs[:2])["dense"].shape == (2, 512)
    assert PRESETS["article"].layer == "scores"


def test_without_blocks_only_the_head_is_trained(world: World, tmp_path: Path) -> None:
    trained = finish(world.task(tmp_path, replace(PRESET, blocks=0)), world)
    assert {epoch.stage for epoch in trained.history} == {"head"}
    vectors = trained.run(world.photographs)
    np.testing.assert_array_equal(vectors["base"], vectors["avg_pool"])


def test_layers_in_float16_learn_too(world: World, tmp_path: Path) -> None:
    """As on a GPU, which is not needed for it."""
    import keras

    task = world.task(tmp_path, replace(PRESET, head_epochs=1, epochs=2))
    with finetuning.training._precision(mixed=True):
        assert keras.config.dtype_policy().compute_dtype == "float16"
        network = finetuning.training._build(task, tiny_row(), world.weights)
        frozen = finetuning.training._frozen(task, world.settings, network, tiny_row())
        trained = finetuning.training._Training(task, network, frozen, quiet, threading.Event()).run()
    assert keras.config.dtype_policy().compute_dtype == "float32"
    assert trained is not None
    assert trained.history[-1].loss < trained.history[0].loss
    assert {array.dtype for array in trained.model.get_weights()} == {np.dtype(np.float32)}


def test_more_blocks_than_a_network_has_are_refused_with_their_number(world: World, tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="9 blocks are to be trained, but at most 2 of resnet50 can be"):
        finish(world.task(tmp_path, replace(PRESET, blocks=9)), world)


def test_a_network_of_many_branches_begins_as_its_base(world: World, tmp_path: Path) -> None:
    """Weights go over by place, and a branch may look like its neighbour: what comes out tells that each is where it was."""
    import keras

    from backbones.keras_engine import _built

    row = replace(BACKBONES["inception_v3"], input_size=(75, 75))
    keras.utils.set_random_seed(1)
    base = _built(row, include_top=False)
    for layer in base.layers:  # batch normalisation begins as the same for all, which would hide an exchange
        layer.set_weights([np.random.default_rng(2).permuted(array + 0.1) for array in layer.get_weights()])
    base.save_weights(str(tmp_path / "base.weights.h5"))
    task = world.task(tmp_path, replace(PRESET, blocks=1))
    network = finetuning.training._build(task, row, tmp_path / "base.weights.h5")
    pixels = np.random.default_rng(0).normal(size=(2, 75, 75, 3)).astype(np.float32)
    before = network.before(network.front(pixels))
    np.testing.assert_allclose(network.tail(network.front(pixels))["avg_pool"], before, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.mean(base(pixels), axis=(1, 2)), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "blocks", "begins_after"),
    [
        ("inception_v3", 1, "mixed9"),  # layer 279, as in the article
        ("vgg16", 1, "block4_pool"),
        ("resnet50", 1, "conv5_block2_add"),
        ("resnet50", 3, "conv4_block6_add"),
    ],
)
def test_a_block_is_what_the_makers_of_a_network_call_one(name: str, blocks: int, begins_after: str) -> None:
    from backbones.keras_engine import _built

    model = _built(BACKBONES[name], include_top=False)
    assert model.layers[last_frozen(model, BACKBONES[name], blocks)].name == begins_after


def test_the_top_four_blocks_of_efficientnet_lite0_begin_after_its_eleventh() -> None:
    from backbones.keras_engine import _built

    row = BACKBONES["efficientnet_lite0"]
    model = _built(row, include_top=False)
    assert model.layers[last_frozen(model, row, 4) + 1].name == "blocks.11.expand_conv"
    assert model.layers[last_frozen(model, row, 0)].name == "head_activation"


def test_views_of_a_photograph_are_always_the_same_and_differ_from_one_another() -> None:
    row = tiny_row()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8))
    photograph, other = Photograph(b"a", b"a" * 32), Photograph(b"b", b"b" * 32)
    views = [make_view(picture, number, photograph, row) for number in range(4)]
    assert {(view.shape, view.dtype) for view in views} == {((32, 32, 3), np.dtype(np.uint8))}
    assert len({view.tobytes() for view in views}) == 4
    np.testing.assert_array_equal(views[2], make_view(picture, 2, photograph, row))
    assert not np.array_equal(views[2], make_view(picture, 2, other, row))


def test_every_preset_can_be_trained() -> None:
    for name, preset in PRESETS.items():
        assert preset.name == name
        assert preset.layer in {"avg_pool", "scores", *(["dense"] if preset.head.units else [])}
        assert 0 < preset.validation < 0.5
