"""One stage of training, epoch by epoch: what is learnt from, the loss, when it ends, and the checkpoint after every epoch.

Owns the loop and the checkpoint's file: `checkpoint.npz`, of one training (`key`) at a time, replaced in one step. All that
chance decides in an epoch follows from the seed, the stage and the epoch's number, so a training that goes on from a checkpoint
ends where it would have ended. Does not own what the stages are (`training.py`).

Source for telling labelled photographs from all others by one more class: "background" or "none of these" classes of detectors.
"""

from __future__ import annotations

import json
import os
import threading
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from store.formats import reporting_full_disk
from vectors import Ids

StageName = Literal["head", "blocks"]

_FORMAT_VERSION = 1
_EVALUATED_AT_ONCE = 64


@dataclass(frozen=True)
class Epoch:
    """One pass over the photographs: mean losses, and the shares of photographs that were told rightly."""

    stage: StageName
    number: int
    loss: float
    accuracy: float
    validation_loss: float
    validation_accuracy: float


@dataclass(frozen=True)
class Material:
    """What is learnt from, by places: `labels` int64 (n,) of all photographs, who trains or validates; class weights."""

    labels: Ids
    train: Ids
    validation: Ids
    unlabelled_train: Ids
    unlabelled_validation: Ids
    class_weights: NDArray[np.float32]


@dataclass(frozen=True)
class Stage:
    """What one stage trains: `model` makes `logits` of what `read` returns for (places, views) of photographs.

    `read_unlabelled` does the same for places of unlabelled ones. `none` is the logit of "none of these", or None where there is
    nothing unlabelled. With `distillation`, an `avg_pool` that points elsewhere than the vector `before`, float32 (…, dim) of the
    unlabelled photographs, costs that much; of the labelled ones where there are no others. `variables` are trained, `kept` are
    those of all stages. `make_optimizer` takes the number of steps.
    """

    name: StageName
    model: Any
    read: Callable[[Ids, Ids], NDArray[Any]]
    read_unlabelled: Callable[[Ids], NDArray[Any]]
    before: NDArray[np.float32]
    distillation: float
    views: int
    epochs: int
    batch_size: int
    patience: int
    smoothing: float
    make_optimizer: Callable[[int], Any]
    variables: Sequence[Any]
    kept: Sequence[Any]
    none: Any | None


@dataclass
class State:
    """Where a training is: `epoch` of `stage` are done, the best was `waited` ago; arrays in the order of the variables."""

    stage: int = 0
    epoch: int = 0
    waited: int = 0
    best_loss: float = float("inf")
    seconds: float = 0.0
    history: list[Epoch] = field(default_factory=list)
    weights: list[NDArray[Any]] = field(default_factory=list)
    best: list[NDArray[Any]] = field(default_factory=list)
    optimizer: list[NDArray[Any]] = field(default_factory=list)


class Fitting:
    """Trains one stage. With a `state` in the middle of it, goes on there."""

    def __init__(self, stage: Stage, material: Material, state: State, seed: int) -> None:
        self._stage = stage
        self._material = material
        self._state = state
        self._seed = seed
        steps = -(-len(material.train) // stage.batch_size)
        self._optimizer = stage.make_optimizer(steps * stage.epochs)
        self._optimizer.build(stage.variables)
        if state.weights:
            _assign(stage.kept, state.weights)
        if state.epoch:
            _assign(self._optimizer.variables, state.optimizer)
        self._step, self._judge = _compiled(stage, self._optimizer, material)

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or the last ones were no better."""
        return self._state.epoch >= self._stage.epochs or self._state.waited >= self._stage.patience

    def run_epoch(self, stop: threading.Event) -> bool:
        """Train for one epoch and bring the state up to it; False where `stop` was set meanwhile: nothing of it counts."""
        state, number = self._state, self._state.epoch + 1
        trained = self._train(np.random.default_rng([self._seed, state.stage, number]), stop)
        judged = self._evaluate()
        if trained is None or stop.is_set():
            return False
        state.history.append(Epoch(self._stage.name, number, *trained, *judged))
        loss = judged[0] if len(self._material.validation) else -number  # nothing to judge by: the last is the best
        better = loss < state.best_loss
        state.epoch, state.waited = number, 0 if better else state.waited + 1
        state.weights = _values(self._stage.kept)
        state.optimizer = _values(self._optimizer.variables)
        if better:
            state.best_loss, state.best = loss, state.weights
        return True

    def keep_best(self) -> None:
        """Put the weights of the best epoch into the model, and make the state that of the next stage's beginning."""
        state = self._state
        if state.best:
            _assign(self._stage.kept, state.best)
        state.stage, state.epoch, state.waited, state.best_loss = state.stage + 1, 0, 0, float("inf")
        state.weights, state.optimizer = state.best, []

    def _train(self, rng: np.random.Generator, stop: threading.Event) -> tuple[float, float] | None:
        stage, material = self._stage, self._material
        order = rng.permutation(material.train)
        sums = np.zeros(2)
        for start in range(0, len(order), stage.batch_size):
            if stop.is_set():
                return None
            places = order[start : start + stage.batch_size]
            views = rng.integers(0, stage.views, len(places))
            others = np.sort(rng.permutation(material.unlabelled_train)[: stage.batch_size])
            sums += self._run(self._step, places, views, others)
        return _means(sums, len(order))

    def _evaluate(self) -> tuple[float, float]:
        material = self._material
        sums = np.zeros(2)
        pieces = max(1, -(-max(len(material.validation), len(material.unlabelled_validation)) // _EVALUATED_AT_ONCE))
        for places, others in zip(
            np.array_split(material.validation, pieces),
            np.array_split(material.unlabelled_validation, pieces),
            strict=True,
        ):
            if len(places):
                sums += self._run(self._judge, places, np.zeros_like(places), others)
        return _means(sums, len(material.validation))

    def _run(self, step: Any, places: Ids, views: Ids, others: Ids) -> NDArray[np.float64]:
        """Return the sums over the photographs: of the loss, and of those told rightly."""
        labelled = self._stage.read(places, views)
        inputs = np.concatenate([labelled, self._stage.read_unlabelled(others)]) if len(others) else labelled
        loss, right = step(
            inputs, self._material.labels[places], self._stage.before[places if self._stage.none is None else others]
        )
        return np.array([float(loss) * len(places), float(right)])


def _means(sums: NDArray[np.float64], count: int) -> tuple[float, float]:
    return (float(sums[0] / count), float(sums[1] / count)) if count else (float("nan"), float("nan"))


def _compiled(stage: Stage, optimizer: Any, material: Material) -> tuple[Any, Any]:
    """Return what trains on one batch and what only judges it: (inputs, labels, before) -> (mean loss, number told rightly).

    The labelled come first in `inputs`, then the unlabelled, whose class is "none of these". The network's own dropout and batch
    statistics stay as in inference: a few hundred photographs are too few to make new ones of.
    """
    import tensorflow as tf

    weights = tf.constant(material.class_weights)
    classes = len(material.class_weights)

    def loss_of(inputs: Any, labels: Any, before: Any, smoothing: float) -> tuple[Any, Any]:
        outputs = stage.model(tf.cast(inputs, tf.float32), training=False)
        logits = tf.cast(outputs["logits"], tf.float32)
        count, total = tf.shape(labels)[0], tf.shape(logits)[0]
        right = tf.reduce_sum(tf.cast(tf.argmax(logits[:count], axis=1) == labels, tf.float32))
        if stage.none is None:
            loss, held = tf.reduce_mean(_losses(labels, logits, smoothing) * tf.gather(weights, labels)), 0
        else:
            logits = tf.concat([logits, tf.fill((total, 1), tf.convert_to_tensor(stage.none))], axis=1)
            nones = tf.fill((total - count,), tf.constant(classes, labels.dtype))
            losses = _losses(tf.concat([labels, nones], axis=0), logits, smoothing)
            loss = tf.reduce_mean(losses[:count] * tf.gather(weights, labels)) + _mean(losses[count:])
            held = count
        if stage.distillation:
            vectors = tf.cast(outputs["avg_pool"], tf.float32)[held:]
            cosines = tf.reduce_sum(tf.math.l2_normalize(vectors, 1) * tf.math.l2_normalize(before, 1), axis=1)
            loss += stage.distillation * _mean(1 - cosines)
        return loss, right

    def step(inputs: Any, labels: Any, before: Any) -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            loss, right = loss_of(inputs, labels, before, stage.smoothing)
            scaled = optimizer.scale_loss(loss) if hasattr(optimizer, "scale_loss") else loss
        optimizer.apply(tape.gradient(scaled, stage.variables), stage.variables)
        return loss, right

    def judge(inputs: Any, labels: Any, before: Any) -> tuple[Any, Any]:
        return loss_of(inputs, labels, before, 0.0)

    return tf.function(step, reduce_retracing=True), tf.function(judge, reduce_retracing=True)


def _mean(values: Any) -> Any:
    """Return the mean, 0 of nothing."""
    import tensorflow as tf

    return tf.math.divide_no_nan(tf.reduce_sum(values), tf.cast(tf.size(values), tf.float32))


def _losses(labels: Any, logits: Any, smoothing: float) -> Any:
    """Return the cross entropy of each row with its class, of which `smoothing` is given to all classes alike."""
    import tensorflow as tf

    columns = int(logits.shape[1])
    return tf.nn.softmax_cross_entropy_with_logits(
        tf.one_hot(labels, columns) * (1 - smoothing) + smoothing / columns, logits
    )


def _values(variables: Sequence[Any]) -> list[NDArray[Any]]:
    return [np.array(variable.numpy()) for variable in variables]


def _assign(variables: Sequence[Any], values: Sequence[NDArray[Any]]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def save_state(path: Path, state: State, key: str) -> None:
    """Replace the checkpoint at `path`. Raises `DiskFullError`."""
    plain = {one.name: getattr(state, one.name) for one in fields(state) if one.name not in _ARRAYS}
    plain["history"] = [asdict(epoch) for epoch in state.history]
    arrays = {f"{name}{place}": array for name in _ARRAYS for place, array in enumerate(getattr(state, name))}
    temporary = path.with_suffix(".tmp")
    with reporting_full_disk(path.parent):
        with temporary.open("wb") as file:
            np.savez(file, about=np.array(json.dumps({"version": _FORMAT_VERSION, "key": key, **plain})), **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)


def load_state(path: Path, key: str) -> State:
    """Return the state at `path`, or the beginning where there is none, or none of the training `key`."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            about = json.loads(str(kept["about"]))
            if (about.pop("version"), about.pop("key")) != (_FORMAT_VERSION, key):
                return State()
            lists = {name: [kept[f"{name}{place}"] for place in range(_count(kept.files, name))] for name in _ARRAYS}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return State()
    return State(**{**about, **lists, "history": [Epoch(**epoch) for epoch in about["history"]]})


_ARRAYS = ("weights", "best", "optimizer")


def _count(names: Sequence[str], prefix: str) -> int:
    return sum(name.removeprefix(prefix).isdigit() for name in names if name.startswith(prefix))
