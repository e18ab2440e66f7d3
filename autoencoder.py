"""Making vectors smaller: the autoencoder and PCA, trained and applied.

Both end as one matrix that unit vectors are multiplied with, so applying them needs numpy alone; Keras is imported where the
autoencoder is trained and nowhere else. Does not own which vectors are trained on and where a reducer lies (`reducing`), nor the
index over what it makes (`indexes/`).

The search compares angles. So vectors are scaled to length 1 before anything else, and nothing is subtracted: PCA here turns
about the origin (a truncated singular value decomposition), because moving the origin changes every angle. The autoencoder of the
Similar-Image-Recommender (min-max scaling, 2048-1024-512-256-256 relu and back, sigmoid, squared error) loses far more. What is
trained instead has unit vectors, a linear code, the same weights for the way back, and the cosine as its loss. docs/reducers.md
has the figures.

    python autoencoder.py --reducer autoencoder
"""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from errors import ExportError, ReducerError
from tables import whole_file
from vectors import BLOCK_ROWS, Ids, Vectors, principal_axes, unit_vectors

Kind = Literal["autoencoder", "pca", "projection"]
"""The first two are trained here, on vectors alone; a projection is learnt from labels (`projection`)."""
FORMAT_VERSION = 1
HELD_OUT = 0.05
"""Share of the vectors that nothing is fitted to: they tell when to stop, and what a reducer is worth."""
BATCH = 256
LEARNING_RATE = 3e-3
PATIENCE = 5
"""Epochs without a better loss on the held-out vectors after which training ends."""


@dataclass(frozen=True)
class ReducerOptions:
    """What to train: `dim` is how many numbers a vector becomes, or for PCA the share of variance (0 < x < 1) to be kept.

    `max_steps` bounds the batches that the autoencoder sees, whatever the number of vectors; `max_epochs` how often it sees each.
    """

    kind: Kind = "autoencoder"
    dim: int | float = 256
    seed: int = 20_150_625
    max_epochs: int = 60
    max_steps: int = 4_000


@dataclass(frozen=True)
class Epoch:
    """One pass over the training vectors; losses are 1 - cosine between a vector and what the code gives back, 0…2."""

    number: int
    of: int
    loss: float
    held_out_loss: float


@dataclass(frozen=True)
class Reducer:
    """A trained reducer: `matrix` float32 (source_dim, dim). `about` says, for people and programs, what it was trained from.

    Autoencoder and PCA keep what is near near, in fewer numbers, and propose candidates. A projection changes what is near:
    answers are in the order of the vectors it makes (`orders`).
    """

    kind: Kind
    matrix: Vectors
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def source_dim(self) -> int:
        """Length of the vectors that it takes."""
        return int(self.matrix.shape[0])

    @property
    def dim(self) -> int:
        """Length of the vectors that it gives."""
        return int(self.matrix.shape[1])

    @property
    def orders(self) -> bool:
        """Whether the vectors that it makes are searched in place of the full ones, and not only for candidates."""
        return self.kind == "projection"

    def apply(self, vectors: npt.NDArray[Any]) -> Vectors:
        """Return `vectors` (n, source_dim), any real type, as unit vectors float32 (n, dim): compare them by cosine.

        A vector of zeros stays zero. Raises `ReducerError` on another dimension.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.source_dim:
            raise ReducerError(
                f"The {self.kind} was trained on {self.source_dim}-d vectors; these have shape {vectors.shape}. Train it on "
                f"the vectors of this network: python autoencoder.py --reducer {self.kind}"
            )
        return unit_vectors(unit_vectors(vectors) @ self.matrix)


@dataclass(frozen=True)
class FittedReducer:
    """A reducer fresh from training: its `history` (for PCA one entry), and the Keras model, if it has one."""

    reducer: Reducer
    history: tuple[Epoch, ...]
    network: Any = None


def fit_reducer(
    vectors: npt.NDArray[Any], options: ReducerOptions, *, on_progress: Callable[[Epoch], None] = lambda epoch: None
) -> FittedReducer:
    """Train a reducer on `vectors` (n, source_dim), any real type; the same vectors, options and threads give the same matrix.

    Raises `ReducerError`: NaN or infinity, a `dim` that cannot be, fewer (different) vectors than `dim`.
    """
    _check(vectors, options)
    units = unit_vectors(vectors)
    units = units[np.any(units != 0, axis=1)]  # zeros have no direction to keep
    train, held_out = _split(len(units), options.seed)
    _check_count(len(train), options)
    if options.kind == "pca":
        return _fit_pca(units[train], units[held_out], options, on_progress)
    return _fit_autoencoder(units[train], units[held_out], options, on_progress)


def _check(vectors: npt.NDArray[Any], options: ReducerOptions) -> None:
    if vectors.ndim != 2:
        raise ReducerError(f"Vectors to train on must have shape (n, dim), not {vectors.shape}.")
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise ReducerError(
            f"{int((~finite).sum()):,} of the {len(vectors):,} vectors hold NaN or infinity, the first is number "
            f"{int(np.argmin(finite))}. Nothing can be learnt from them: take those images out, or compute them again."
        )
    dim, source_dim = options.dim, vectors.shape[1]
    if isinstance(dim, float) and not (options.kind == "pca" and 0 < dim < 1):
        raise ReducerError(
            f"{dim} is no size for the {options.kind}: give a whole number of components, or, for pca, a share of the variance "
            "above 0 and below 1."
        )
    if isinstance(dim, int) and not 1 <= dim < source_dim:
        raise ReducerError(
            f"{dim} numbers were asked for, but the vectors have {source_dim}: a reducer makes at least 1 and fewer than that."
        )


def _split(count: int, seed: int) -> tuple[Ids, Ids]:
    """Return the places to train on and those held out (at least one), both ascending."""
    order = np.random.default_rng(seed).permutation(count)
    first = min(count, max(1, round(count * HELD_OUT)))
    return np.sort(order[first:]).astype(np.int64), np.sort(order[:first]).astype(np.int64)


def _check_count(count: int, options: ReducerOptions) -> None:
    needed = options.dim if isinstance(options.dim, int) else 1
    if count < needed:
        raise ReducerError(
            f"{count:,} vectors are there to train on ({HELD_OUT:.0%} are held out, zeros left out), fewer than the {needed} "
            "numbers that each is to become. Ask for fewer (--reduced-dim), or index more images first."
        )


# PCA


def _fit_pca(
    train: Vectors, held_out: Vectors, options: ReducerOptions, on_progress: Callable[[Epoch], None]
) -> FittedReducer:
    blocks = (train[start : start + BLOCK_ROWS] for start in range(0, len(train), BLOCK_ROWS))
    axes = principal_axes(blocks, options.dim if isinstance(options.dim, int) else train.shape[1])
    variance = float(np.var(train, axis=0, dtype=np.float64).sum()) or 1.0
    shares = np.cumsum(np.var(train @ axes, axis=0, dtype=np.float64)) / variance
    enough = min(int(np.searchsorted(shares, options.dim)) + 1, axes.shape[1])
    dim = options.dim if isinstance(options.dim, int) else enough
    if dim > axes.shape[1]:
        raise ReducerError(
            f"The {len(train):,} vectors to train on span only {axes.shape[1]} directions, fewer than the {dim} components asked "
            "for: many are equal. Ask for fewer (--reduced-dim)."
        )
    matrix = np.ascontiguousarray(axes[:, :dim])
    epoch = Epoch(1, 1, _loss(train, matrix, matrix.T), _loss(held_out, matrix, matrix.T))
    on_progress(epoch)
    about = {"variance": float(shares[dim - 1]), "vectors": len(train) + len(held_out)}
    return FittedReducer(Reducer("pca", matrix, about), (epoch,))


def _loss(units: Vectors, encode: Vectors, decode: Vectors) -> float:
    """Return the mean of 1 - cosine between `units` and what their codes give back."""
    back = unit_vectors(units @ encode @ decode)
    return max(0.0, float(1 - np.einsum("ij,ij->i", units, back, dtype=np.float64).mean()))  # rounding goes below 0


# The autoencoder


def _fit_autoencoder(
    train: Vectors, held_out: Vectors, options: ReducerOptions, on_progress: Callable[[Epoch], None]
) -> FittedReducer:
    import keras

    keras.utils.set_random_seed(options.seed)
    batches = math.ceil(len(train) / BATCH)
    epochs = max(1, min(options.max_epochs, options.max_steps // batches))
    network = _tied_network(train.shape[1], int(options.dim), epochs * batches)
    history: list[Epoch] = []

    def note(number: int, logs: Mapping[str, float]) -> None:
        history.append(Epoch(number + 1, epochs, float(logs["loss"]), float(logs["val_loss"])))
        on_progress(history[-1])

    network.fit(
        train,
        train,
        validation_data=(held_out, held_out),
        epochs=epochs,
        batch_size=BATCH,
        verbose=0,
        callbacks=[
            keras.callbacks.EarlyStopping("val_loss", patience=PATIENCE, restore_best_weights=True),
            keras.callbacks.LambdaCallback(on_epoch_end=note),
        ],
    )
    matrix = np.array(network.get_layer("code").get_weights()[0], dtype=np.float32)
    about = {"vectors": len(train) + len(held_out)}
    return FittedReducer(Reducer("autoencoder", matrix, about), tuple(history), _plain_network(matrix))


def _tied_network(source_dim: int, dim: int, steps: int) -> Any:
    """Return the autoencoder to be trained: a linear code, decoded by the same weights transposed, with the cosine as loss."""
    import keras

    class Back(keras.layers.Layer):  # type: ignore[misc]
        def call(self, code: Any) -> Any:
            return keras.ops.matmul(code, keras.ops.transpose(encoder.kernel))

    vector = keras.Input((source_dim,), name="vector")
    encoder = keras.layers.Dense(dim, use_bias=False, kernel_initializer="orthogonal", name="code")
    network = keras.Model(vector, Back()(encoder(vector)))
    rate = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)
    # What Keras calls the cosine similarity as a loss is the negative cosine.
    network.compile(
        keras.optimizers.Adam(rate), loss=lambda wanted, given: 1 + keras.losses.cosine_similarity(wanted, given)
    )
    return network


def _plain_network(matrix: Vectors) -> Any:
    """Return the trained autoencoder made of plain layers, so that its file opens wherever Keras is, without this module."""
    import keras

    source_dim, dim = matrix.shape
    code = keras.layers.Dense(dim, use_bias=False, name="code")
    back = keras.layers.Dense(source_dim, use_bias=False, name="back")
    network = keras.Sequential([keras.Input((source_dim,), name="vector"), code, back])
    code.set_weights([matrix])
    back.set_weights([matrix.T])
    return network


# On disk


def save_reducer(fitted: FittedReducer, path: Path, *, about: Mapping[str, Any] | None = None) -> None:
    """Write the reducer to `path` (.npz, plain arrays, no pickle), and its Keras model, if it has one, beside it (.keras).

    `about` is remembered with it. Each file appears whole or not at all. Raises `ExportError` where they cannot be written.
    """
    reducer = fitted.reducer
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if fitted.network is not None:
            _save_network(fitted.network, path.with_suffix(".keras"))
    except OSError as error:
        raise ExportError(
            f"The reducer cannot be written into {path.parent} ({error}). Make room, or mend the folder's permissions."
        ) from error
    facts = {**reducer.about, "history": [vars(epoch) for epoch in fitted.history], **(about or {})}
    with whole_file(path) as file:
        np.savez(
            file,
            format_version=np.int64(FORMAT_VERSION),
            kind=np.array(reducer.kind),
            matrix=reducer.matrix.astype("<f4"),
            about=np.array(json.dumps(facts)),
        )


def _save_network(network: Any, path: Path) -> None:
    temporary = path.with_name(f".{path.stem}.tmp.keras")  # Keras tells the format by the name
    try:
        network.save(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_reducer(path: Path) -> Reducer:
    """Read what `save_reducer` wrote, without Keras; raises `ReducerError` for a file that is missing, damaged or unusable."""
    again = "Train it again: python autoencoder.py"
    try:
        with np.load(path, allow_pickle=False) as file:
            version, kind = int(file["format_version"]), str(file["kind"])
            matrix, about = file["matrix"], json.loads(str(file["about"]))
    except FileNotFoundError as error:
        raise ReducerError(f"There is no reducer in {path}. Train one: python autoencoder.py") from error
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise ReducerError(f"The reducer in {path} cannot be read ({error}). {again}") from error
    if version != FORMAT_VERSION:
        raise ReducerError(
            f"The reducer in {path} has format version {version}, this program reads {FORMAT_VERSION}. {again}"
        )
    # A projection may have as many numbers as short vectors have.
    narrow = matrix.ndim == 2 and 0 < matrix.shape[1] < matrix.shape[0] + (kind == "projection")
    usable = narrow and matrix.dtype == np.dtype("<f4") and bool(np.isfinite(matrix).all())
    if kind not in get_args(Kind) or not usable:
        raise ReducerError(f"The file {path} holds no reducer that can be used ({kind}, {matrix.shape}). {again}")
    return Reducer(cast(Kind, kind), matrix, about)


if __name__ == "__main__":
    import sys

    from commands.autoencoder import main

    sys.exit(main(sys.argv[1:]))
