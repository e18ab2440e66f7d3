"""EfficientNet-Lite0 as a Keras model, and the reader of its weights in the old torch format.

Owns the architecture and the restricted unpickler. Does not own where the file lies (`weights.py`).

Sources: https://arxiv.org/abs/1905.11946; the "lite" variants (ReLU6, no squeeze-excite, first and last stage not
scaled) in https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite. The file format is that of
`torch.save` before version 1.6: pickles of a magic number, the protocol, system facts, the state and the storages' keys,
then each storage as an int64 count and raw little-endian numbers.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

TORCH_MAGIC = 0x1950A86A20F9469CFC6C
TORCH_HEAD = b"\x80\x02\x8a\x0a" + TORCH_MAGIC.to_bytes(10, "little")

# repeats, kernel, stride, expansion, filters
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_BATCH_NORM_EPSILON = 1e-3


def build_model(*, weights: None, include_top: bool, input_shape: tuple[int, int, int], classes: int = 1000) -> Any:
    """Build the Keras model with random weights, called as those of `keras.applications`; input float32, already scaled.

    Layers are named as the tensors of the published file are, without the leading underscores.
    """
    import keras

    inputs = keras.Input(input_shape)
    x = _relu6(_conv(inputs, "conv_stem", "bn0", filters=32, kernel=3, stride=2))
    for block in _blocks():
        x = _inverted_residual(x, *block)
    x = _relu6(_conv(x, "conv_head", "bn1", filters=1280), name="head_activation")
    if include_top:
        x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
        x = keras.layers.Dense(classes, name="fc")(x)
        x = keras.layers.Softmax(name="predictions")(x)
    return keras.Model(inputs, x, name="efficientnet_lite0")


def _blocks() -> list[tuple[int, int, int, int, int]]:
    """One row a block: number, kernel, stride, expansion, filters."""
    blocks: list[tuple[int, int, int, int, int]] = []
    for repeats, kernel, stride, expansion, filters in _STAGES:
        for repeat in range(repeats):
            blocks.append((len(blocks), kernel, 1 if repeat else stride, expansion, filters))
    return blocks


def _relu6(x: Any, name: str | None = None) -> Any:
    import keras

    return keras.layers.ReLU(max_value=6.0, name=name)(x)


def _conv(x: Any, name: str, norm: str, *, filters: int, kernel: int = 1, stride: int = 1) -> Any:
    import keras

    x = keras.layers.Conv2D(filters, kernel, strides=stride, padding="same", use_bias=False, name=name)(x)
    return keras.layers.BatchNormalization(epsilon=_BATCH_NORM_EPSILON, name=norm)(x)


def _depthwise_conv(x: Any, name: str, norm: str, *, kernel: int, stride: int) -> Any:
    import keras

    x = keras.layers.DepthwiseConv2D(kernel, strides=stride, padding="same", use_bias=False, name=name)(x)
    return keras.layers.BatchNormalization(epsilon=_BATCH_NORM_EPSILON, name=norm)(x)


def _inverted_residual(x: Any, number: int, kernel: int, stride: int, expansion: int, filters: int) -> Any:
    import keras

    name = f"blocks.{number}."
    inputs, channels = x, x.shape[-1]
    if expansion != 1:
        x = _relu6(_conv(x, name + "expand_conv", name + "bn0", filters=channels * expansion))
    x = _relu6(_depthwise_conv(x, name + "depthwise_conv", name + "bn1", kernel=kernel, stride=stride))
    x = _conv(x, name + "project_conv", name + "bn2", filters=filters)
    return keras.layers.Add()([inputs, x]) if stride == 1 and channels == filters else x


def load_torch_weights(model: Any, path: Path) -> None:
    """Put the tensors of the torch file into `model`. Raises `ValueError` when they do not fit it."""
    tensors = read_torch_tensors(path)
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(_layer_weights(layer, tensors))


def _layer_weights(layer: Any, tensors: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """The layer's arrays as Keras has them: height, width, in, out, where torch has out, in, height, width."""
    prefix = ".".join(part if part.isdigit() else "_" + part for part in layer.name.split("."))
    kind = type(layer).__name__
    names = ("weight", "bias", "running_mean", "running_var") if kind == "BatchNormalization" else ("weight", "bias")
    missing = f"{prefix}.weight"
    if missing not in tensors:
        raise ValueError(f"the file has no tensor {missing}")
    found = [tensors[f"{prefix}.{name}"] for name in names if f"{prefix}.{name}" in tensors]
    axes = {"Conv2D": (2, 3, 1, 0), "DepthwiseConv2D": (2, 3, 0, 1), "Dense": (1, 0)}.get(kind, (0,))
    return [np.transpose(found[0], axes), *found[1:]]


@dataclass(frozen=True)
class _Storage:
    key: str


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild_tensor(
    storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object
) -> _Tensor:
    return _Tensor(storage, offset, shape, strides)


_ALLOWED: Mapping[tuple[str, str], Any] = MappingProxyType(
    {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
        ("torch", "FloatStorage"): np.dtype("<f4"),
        ("torch", "LongStorage"): np.dtype("<i8"),
    }
)


class _RestrictedUnpickler(pickle.Unpickler):
    """Knows four names only, so that a weights file from anywhere can run no code."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.dtypes: dict[str, np.dtype[Any]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} has no place in a weights file")
        return _ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        _, dtype, key, *_ = pid
        self.dtypes[key] = dtype
        return _Storage(key)


def read_torch_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Read the file of `torch.save` (before 1.6) into arrays by name, without torch.

    Raises `ValueError` when it is not such a file, is cut short, or holds anything but plain tensors.
    """
    try:
        file = BytesIO(path.read_bytes())  # of which a wrong count can ask no more than there is
        magic, protocol, _ = (_RestrictedUnpickler(file).load() for _ in range(3))
        if (magic, protocol) != (TORCH_MAGIC, 1001):
            raise ValueError("it does not begin as a torch file")
        unpickler = _RestrictedUnpickler(file)
        state = unpickler.load()
        keys = _RestrictedUnpickler(file).load()
        storages = {key: _read_storage(file, unpickler.dtypes[key]) for key in keys}
        return {name: _view(tensor, storages[tensor.storage.key]) for name, tensor in state.items()}
    except (pickle.UnpicklingError, EOFError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise ValueError(f"it is not a readable torch file: {type(error).__name__}: {error}") from error


def _read_storage(file: BinaryIO, dtype: np.dtype[Any]) -> NDArray[Any]:
    count = int.from_bytes(file.read(8), "little")
    content = file.read(count * dtype.itemsize)
    if len(content) != count * dtype.itemsize:
        raise EOFError(f"a storage of {count} numbers is cut short")
    return np.frombuffer(content, dtype)


def _view(tensor: _Tensor, storage: NDArray[Any]) -> NDArray[Any]:
    """Lay the tensor's shape over its storage; the strides (in numbers) are often not in C order."""
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
    if tensor.offset < 0 or min(tensor.strides, default=0) < 0 or last >= len(storage):
        raise EOFError("a tensor reaches outside its storage")
    strides = tuple(stride * storage.itemsize for stride in tensor.strides)
    return as_strided(storage[tensor.offset :], tensor.shape, strides).copy()
