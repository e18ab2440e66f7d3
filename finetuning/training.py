"""Training a network on labelled photographs: first the new layers, then the top blocks too.

Owns the stages and reading vectors from what was trained. Does not own which photographs are learnt from (`labelled.py`),
the outputs of the frozen layers (`frozen.py`), the loop and its checkpoint (`fitting.py`), the numbers of a recipe
(`presets.py`), nor the folder of a trained network (`backbones/trained.py`).
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from backbones import BACKBONES, BackboneRow, NetworkId
from backbones.rows import Head
from backbones.trained import trained_layers
from backbones.weights import locate_weights
from config import Settings
from errors import ImageError
from finetuning.fitting import Epoch, Fitting, Material, Stage, load_state, save_state
from finetuning.frozen import FrozenLayers, Photograph, frozen_folder, last_frozen
from finetuning.presets import Preset
from images import Limits
from vectors import Ids

__all__ = ["Epoch", "Photograph", "Progress", "Task", "Trained", "train"]

CHECKPOINT = "checkpoint.npz"

_SCALE = 8.0
"""How much a cosine counts in a normalised head to begin with; docs/learning.md has what 4, 16 and 32 did."""
_LIKE_A_CLASS = 0.3
"""An unlabelled photograph nearer to a class than this share of the labelled ones to theirs may be of it: it is left out."""
_HEAD_BATCH = 32
_RUN_AT_ONCE = 64
_MOST_JUDGED = 400
"""Unlabelled photographs that are not trained on but judge the training, at most a tenth of them."""


@dataclass(frozen=True)
class Task:
    """What is to be learnt: n photographs, each with the place of its class in `classes`.

    `train` and `validation` are places of photographs; those in neither are not looked at. `unlabelled` are other photographs of
    the collection (may be none), which show what the network must keep apart. `folder` is where work that can be used again is
    kept: outputs of the frozen layers and the checkpoint, both under names that tell what they belong to.
    """

    photographs: tuple[Photograph, ...]
    labels: Ids
    classes: tuple[str, ...]
    train: Ids
    validation: Ids
    unlabelled: tuple[Photograph, ...]
    base: NetworkId
    preset: Preset
    seed: int
    folder: Path


@dataclass(frozen=True)
class Progress:
    """How far one stage is: photographs that went through the frozen layers, or epochs; `epoch` is the one just finished."""

    stage: Literal["photographs", "head", "blocks"]
    done: int
    total: int
    epoch: Epoch | None = None


@dataclass(frozen=True)
class Trained:
    """A trained network: `model` is the Keras model for `save_trained` (its `save_weights`).

    `run` makes vectors of photographs, each layer's float32 (n, dim): `base` (what the base's average was before), `avg_pool`,
    `dense` where the head has it, `scores`. It raises `ImageError` for a file that cannot be read.
    """

    model: Any
    head: Head
    layers: Mapping[str, int]
    history: tuple[Epoch, ...]
    seconds: float
    run: Callable[[Sequence[Photograph]], dict[str, NDArray[np.float32]]]


@dataclass(frozen=True)
class _Network:
    """The network in its parts: `whole` from pixels to scores; `front` to the cut, `tail` from there, `top` from the average on.

    `before` is the base from the cut to its average, which nothing trains.
    """

    whole: Any
    front: Any
    tail: Any
    top: Any
    before: Any
    cut: int


def train(
    task: Task,
    settings: Settings,
    *,
    on_progress: Callable[[Progress], None],
    stop: threading.Event,
) -> Trained | None:
    """Train as `task` says, or go on where an earlier call with the same task was stopped or killed.

    None when `stop` was set: what is finished is kept. Raises `BackboneError`, `ImageError`, `DiskFullError`.
    """
    import tensorflow as tf

    from backbones.keras_engine import choose_devices

    device = choose_devices(settings.gpus, settings.threads)[0]
    row = BACKBONES[task.base.backbone]
    with tf.device(device), _precision(mixed=settings.gpus != "0"):
        network = _build(task, row, locate_weights(row, settings.weights))
        return _Training(task, network, _frozen(task, settings, network, row), on_progress, stop).run()


def _frozen(task: Task, settings: Settings, network: _Network, row: BackboneRow) -> FrozenLayers:
    limits = Limits(settings.max_bytes, settings.max_pixels, settings.max_frames)
    folder = frozen_folder(task.folder, task.base.model_key, network.cut)
    return FrozenLayers(network.front, row, folder, limits=limits, threads=settings.cpu_threads)


@contextlib.contextmanager
def _precision(*, mixed: bool) -> Iterator[None]:
    """Let layers that are made within compute in float16 where a GPU is used; processors are slower with it."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16" if mixed else "float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _build(task: Task, row: BackboneRow, weights: Path) -> _Network:
    """Return the network to be trained: the base's weights, and random ones (of the task's seed) upon them."""
    import keras

    from backbones.keras_engine import load_base, new_trained

    keras.utils.set_random_seed(task.seed)
    base = load_base(row, weights)
    whole = new_trained(row, task.preset.head, len(task.classes))
    # By place: Keras counts on when it names the layers of a second network, so names differ.
    grown = keras.Model(whole.input, whole.get_layer(row.feature_map).output)
    for old, new in zip(base.layers, grown.layers, strict=True):
        new.set_weights(old.get_weights())
    cut = last_frozen(base, row, task.preset.blocks)
    made = [name for name in ("avg_pool", "dense", "logits", "scores") if name != "dense" or task.preset.head.units]
    outputs = {name: whole.get_layer(name).output for name in made}
    middle, pooled = grown.layers[cut].output, outputs["avg_pool"]
    return _Network(
        whole=whole,
        front=keras.Model(base.input, base.layers[cut].output),
        tail=keras.Model(middle, outputs),
        top=keras.Model(pooled, {name: output for name, output in outputs.items() if name != "avg_pool"}),
        before=keras.Model(base.layers[cut].output, keras.layers.GlobalAveragePooling2D()(base.output)),
        cut=cut,
    )


class _Training:
    """One training, from the photographs to the network."""

    def __init__(
        self,
        task: Task,
        network: _Network,
        frozen: FrozenLayers,
        on_progress: Callable[[Progress], None],
        stop: threading.Event,
    ) -> None:
        self._task = task
        self._network = network
        self._frozen = frozen
        self._on_progress = on_progress
        self._stop = stop
        self._checkpoint = task.folder / CHECKPOINT

    def run(self) -> Trained | None:
        """Do what is left to do; None where it was stopped."""
        started = time.monotonic()
        unlabelled = self._compute_frozen()
        if unlabelled is None:
            return None
        key = _key(self._task, unlabelled)
        state = load_state(self._checkpoint, key)
        spent = state.seconds
        stages, material = self._stages(unlabelled)
        for place in range(state.stage, len(stages)):
            stage = stages[place]
            fitting = Fitting(stage, material, state, self._task.seed)
            while not fitting.finished:
                if not fitting.run_epoch(self._stop):
                    return None
                state.seconds = spent + time.monotonic() - started
                save_state(self._checkpoint, state, key)
                self._on_progress(Progress(stage.name, state.epoch, stage.epochs, state.history[-1]))
            fitting.keep_best()
        head, dim = self._task.preset.head, int(self._network.top.input.shape[-1])
        layers = trained_layers(BACKBONES[self._task.base.backbone], head, dim, len(self._task.classes))
        return Trained(self._network.whole, head, layers, tuple(state.history), state.seconds, self._vectors_of)

    def _compute_frozen(self) -> tuple[Photograph, ...] | None:
        """Keep what the frozen layers make of all that is learnt from; return the unlabelled photographs that can be read."""
        task = self._task
        labelled = [(task.photographs[place], task.preset.views) for place in task.train]
        labelled += [(task.photographs[place], 1) for place in task.validation]
        others = _chosen_unlabelled(task)
        wanted = [*labelled, *((photograph, 1) for photograph in others)]

        def report(done: int) -> None:
            self._on_progress(Progress("photographs", done, len(wanted)))

        failed = self._frozen.compute(wanted, on_done=report, stop=self._stop)
        if self._stop.is_set():
            return None
        for place, error in failed.items():
            if place < len(labelled):
                raise _named(error, labelled[place][0]) from error
        return tuple(photograph for place, photograph in enumerate(others, start=len(labelled)) if place not in failed)

    def _stages(self, unlabelled: tuple[Photograph, ...]) -> tuple[list[Stage], Material]:
        """Return the stages to go through, the head set to what it begins as, and what they learn from."""
        import tensorflow as tf

        task, preset, network = self._task, self._task.preset, self._network
        pooled = self._pooled(np.concatenate([task.train, task.validation]))
        found = self._before(unlabelled)
        cosines = _compare(_units(pooled[task.train]), task.labels[task.train], _units(found))
        strangers = _strangers(cosines)
        unlabelled, others = tuple(unlabelled[place] for place in strangers), found[strangers]
        material = _material(task, len(unlabelled))
        border = _point_at_means(network.whole, preset.head, cosines)
        none = tf.Variable(border) if unlabelled else None
        head = self._head_stage(pooled, others, none)
        blocks = replace(
            head,
            name="blocks",
            model=network.tail,
            read=lambda places, views: self._maps(task.photographs, places, views),
            read_unlabelled=lambda places: self._maps(unlabelled, places, np.zeros_like(places)),
            distillation=preset.distillation,
            views=preset.views,
            epochs=preset.epochs,
            batch_size=preset.batch_size,
            make_optimizer=lambda steps: _optimizer(preset, steps),
            variables=head.kept,
        )
        return [head, blocks] if preset.blocks else [head], material

    def _head_stage(self, pooled: NDArray[np.float32], others: NDArray[np.float32], none: Any | None) -> Stage:
        preset, network = self._task.preset, self._network
        extra = [] if none is None else [none]
        return Stage(
            name="head",
            model=network.top,
            read=lambda places, views: pooled[places],
            read_unlabelled=lambda places: others[places],
            before=pooled if none is None else others,
            distillation=0.0,
            views=1,
            epochs=preset.head_epochs,
            batch_size=_HEAD_BATCH,
            patience=preset.patience,
            smoothing=preset.smoothing,
            make_optimizer=_head_optimizer,
            variables=[*network.top.trainable_variables, *extra],
            kept=[*network.tail.trainable_variables, *extra],
            none=none,
        )

    def _maps(self, photographs: Sequence[Photograph], places: Ids, views: Ids) -> NDArray[np.float16]:
        chosen = zip(places, views, strict=True)
        return np.stack([self._frozen.read(photographs[place], view) for place, view in chosen])

    def _pooled(self, places: Ids) -> NDArray[np.float32]:
        """Return the base's vectors of these photographs at their places; zeros elsewhere."""
        found = self._before([self._task.photographs[place] for place in places])
        pooled = np.zeros((len(self._task.photographs), found.shape[1]), np.float32)
        pooled[places] = found
        return pooled

    def _before(self, photographs: Sequence[Photograph]) -> NDArray[np.float32]:
        return self._outputs({"base": self._network.before}, photographs)["base"]

    def _vectors_of(self, photographs: Sequence[Photograph]) -> dict[str, NDArray[np.float32]]:
        vectors = self._outputs({"base": self._network.before, "": self._network.tail}, photographs)
        return {name: array for name, array in vectors.items() if name != "logits"}

    def _outputs(self, models: Mapping[str, Any], photographs: Sequence[Photograph]) -> dict[str, NDArray[np.float32]]:
        """Return what `models` (of the cut's output) make of photographs; a model's own names of outputs where it has such."""
        import tensorflow as tf

        @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
        def forward(maps: Any) -> dict[str, Any]:
            made: dict[str, Any] = {}
            for name, model in models.items():
                output = model(tf.cast(maps, tf.float32), training=False)
                made |= output if isinstance(output, dict) else {name: output}
            return {name: tf.cast(output, tf.float32) for name, output in made.items()}

        pieces: list[dict[str, Any]] = []
        maps = self._frozen.maps(photographs)
        while batch := list(itertools.islice(maps, _RUN_AT_ONCE)):
            pieces.append({name: output.numpy() for name, output in forward(np.stack(batch)).items()})
        if not pieces:
            empty = forward(np.zeros((1, *self._frozen.shape), np.float16))
            return {name: output.numpy()[:0] for name, output in empty.items()}
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def _chosen_unlabelled(task: Task) -> list[Photograph]:
    """Return at most as many unlabelled photographs as the preset takes, by chance, none that is labelled, none twice."""
    labelled = {photograph.sha256 for photograph in task.photographs}
    there = {one.sha256: one for one in task.unlabelled if one.sha256 not in labelled}
    photographs = list(there.values())
    order = np.random.default_rng(task.seed).permutation(len(photographs))[: task.preset.unlabelled]
    return [photographs[place] for place in sorted(order)]


def _material(task: Task, unlabelled: int) -> Material:
    counts = np.bincount(task.labels[task.train], minlength=len(task.classes))
    judged = min(unlabelled // 10, _MOST_JUDGED)
    return Material(
        labels=task.labels.astype(np.int64),
        train=task.train,
        validation=task.validation,
        unlabelled_train=np.arange(judged, unlabelled),
        unlabelled_validation=np.arange(judged),
        class_weights=(len(task.train) / np.maximum(counts, 1) / len(counts)).astype(np.float32),
    )


def _key(task: Task, unlabelled: Sequence[Photograph]) -> str:
    """Return a digest of all that decides what a training ends in."""
    about = {
        "photographs": [photograph.sha256.hex() for photograph in task.photographs],
        "unlabelled": [photograph.sha256.hex() for photograph in unlabelled],
        "labels": [task.classes[label] for label in task.labels],
        "classes": task.classes,
        "parts": [task.train.tolist(), task.validation.tolist()],
        "base": task.base.model_key,
        "preset": asdict(task.preset),
        "seed": task.seed,
    }
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()


def _named(error: ImageError, photograph: Photograph) -> ImageError:
    """Return the error again, saying of which file."""
    path = photograph.path.decode("utf-8", "backslashreplace")
    return type(error)(f"{path}: {error} It could be read before the training; put it back, or leave it out.")


@dataclass(frozen=True)
class _Cosines:
    """How near photographs are to the classes before training: `means` (classes, dim) are their directions.

    `own` (train,) of each labelled vector with its own class, `unlabelled` (unlabelled,) with the class nearest to it.
    """

    means: NDArray[np.float32]
    own: NDArray[np.float32]
    unlabelled: NDArray[np.float32]


def _compare(units: NDArray[np.float32], labels: Ids, unlabelled: NDArray[np.float32]) -> _Cosines:
    """Compare vectors of length 1; each class has some."""
    means = _units(np.stack([units[labels == place].mean(axis=0) for place in range(labels.max() + 1)]))
    return _Cosines(means, (units * means[labels]).sum(axis=1), (unlabelled @ means.T).max(axis=1))


def _strangers(cosines: _Cosines) -> Ids:
    """Return the places of the unlabelled photographs that can be taken for "none of these"."""
    return np.flatnonzero(cosines.unlabelled < np.quantile(cosines.own, _LIKE_A_CLASS))


def _point_at_means(whole: Any, head: Head, cosines: _Cosines) -> float:
    """Begin a normalised head with the direction of each class: better than any chance, and the same for every seed.

    Returns where the logit of "none of these" begins: half way between what labelled and unlabelled photographs have.
    """
    if not head.normalised or head.units:
        return 0.0
    whole.get_layer("logits").set_weights([_SCALE * cosines.means.T])
    nearest = cosines.unlabelled if len(cosines.unlabelled) else cosines.own
    return float(_SCALE * (cosines.own.mean() + nearest.mean()) / 2)


def _units(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    units: NDArray[np.float32] = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return units


def _head_optimizer(steps: int) -> Any:
    import keras

    return _scaled(keras.optimizers.RMSprop(1e-3))


def _optimizer(preset: Preset, steps: int) -> Any:
    import keras

    if preset.optimizer == "sgd":
        return _scaled(keras.optimizers.SGD(preset.rate, momentum=0.9))
    return _scaled(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(preset.rate, steps)))


def _scaled(optimizer: Any) -> Any:
    """Keep small gradients from vanishing where layers compute in float16."""
    import keras

    mixed = keras.config.dtype_policy().compute_dtype == "float16"
    return keras.optimizers.LossScaleOptimizer(optimizer) if mixed else optimizer
