"""Pictures of strangers, decoded in child processes: one that hangs, crashes or eats memory costs its own request and no other.

Owns the children: their limits of time and memory, starting one for each that died, and what parent and child say to each
other. Does not own decoding (`decoding.py`) or what becomes of the pixels. Nothing that a child says is trusted: it answers in
JSON and plain bytes, never pickled, and is given no secret. docs/measured.md holds them against threads.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import queue
import resource
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from config import ENV_PREFIX, ROOT
from errors import (
    DamagedImageError,
    DecodingStoppedError,
    EmptyFileError,
    ImageError,
    NotAnImageError,
    OverloadedError,
    TooManyBytesError,
    TooManyFramesError,
    TooManyPixelsError,
    UnreadableFileError,
)
from images.checks import Limits
from images.decoding import decode_image
from images.pixels import cut_part, make_thumbnail, network_input

logger = logging.getLogger("lookalike")

MEMORY_BYTES = 1 << 30
"""Address space of a child beside its pixels: Python, the decoders and the file take about a third of it."""
BYTES_A_PIXEL = 16
"""A picture takes 3 to 11 bytes a pixel while it is decoded."""
MOST_ANSWERED = 1 << 24
_LENGTHS = struct.Struct(">II")
_ERRORS: Mapping[str, type[ImageError]] = {
    kind.code: kind
    for kind in (
        *(EmptyFileError, NotAnImageError, DamagedImageError, UnreadableFileError),
        *(TooManyBytesError, TooManyPixelsError, TooManyFramesError, ImageError),
    )
}


@dataclass(frozen=True)
class Wanted:
    """What to make of a file: the network's input (height, width), by `resample`, of the `part` of the picture, and a thumbnail.

    `thumbnail_size`: its longest side in pixels, None for none. `part`: left, top, right and bottom as shares 0…1 of the upright
    picture, None for all of it.
    """

    limits: Limits
    input_size: tuple[int, int]
    resample: str
    thumbnail_size: int | None
    part: tuple[float, float, float, float] | None = None

    @property
    def min_side(self) -> int:
        """Return how many pixels a side the picture must keep so that its part loses nothing."""
        share = 1.0 if self.part is None else min(self.part[2] - self.part[0], self.part[3] - self.part[1])
        return math.ceil(max(*self.input_size, self.thumbnail_size or 0) / share)


@dataclass(frozen=True)
class Prepared:
    """What a file became: `pixels` uint8 (height, width, 3) of the part, a JPEG of all, sides and time as in `DecodedImage`."""

    pixels: npt.NDArray[np.uint8]
    thumbnail: bytes | None
    width: int
    height: int
    taken_at: str | None = None


def prepare(content: bytes | BinaryIO, wanted: Wanted) -> Prepared:
    """Decode a file, or its contents, here in this process. Raises what `decode_image` does."""
    decoded = decode_image(content, wanted.limits, min_side=wanted.min_side)
    picture = decoded.image if wanted.part is None else cut_part(decoded.image, wanted.part)
    pixels = network_input(picture, wanted.input_size, resample=wanted.resample)
    size = wanted.thumbnail_size
    thumbnail = None if size is None else make_thumbnail(decoded.image, size)
    return Prepared(pixels, thumbnail, decoded.width, decoded.height, decoded.taken_at)


class Decoders:
    """Up to `count` children, each started when all others are busy. Thread-safe; make it after any fork, and close it."""

    def __init__(self, count: int, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        # The last one used comes first: the others need not be started at all.
        self._free: queue.LifoQueue[_Child | None] = queue.LifoQueue()
        for _ in range(count):
            self._free.put(None)

    def warm(self) -> None:
        """Start one child, which gets ready while its parent goes on."""
        self._free.put(self._take())

    def close(self) -> None:
        """End all children that have nothing to do; one at work ends with its parent."""
        with contextlib.suppress(queue.Empty):
            while True:
                child = self._free.get_nowait()
                if child is not None:
                    child.end()

    def prepare(self, content: bytes | BinaryIO, wanted: Wanted) -> Prepared:
        """Decode a file, or its contents, in a child; a caller beyond `count` waits for one.

        Raises what `decode_image` does, `DecodingStoppedError` where the child took too long or died, and `OverloadedError`
        where none came free in the time that decoding may take.
        """
        if not isinstance(content, bytes):
            content = content.read()
        child = self._take()
        whole = False
        try:
            prepared = child.prepare(content, wanted, self._timeout_s)
            whole = True
            return prepared
        except DecodingStoppedError as error:
            logger.warning("A decoder was ended: %s", error)
            raise
        except ImageError:
            whole = True  # the picture's fault
            raise
        finally:
            if not whole:
                child.end()
            self._free.put(child if whole else None)

    def _take(self) -> _Child:
        try:
            child = self._free.get(timeout=self._timeout_s)
        except queue.Empty:
            raise OverloadedError(
                f"No decoder came free within {self._timeout_s:g} seconds: all are busy with large pictures. Send it again later."
            ) from None
        if child is not None and child.runs:
            return child
        try:
            if child is not None:
                child.end()
            return _Child()
        except BaseException as error:
            self._free.put(None)
            if isinstance(error, OSError):  # no memory for one more process, or no descriptor
                raise OverloadedError(f"No decoder can be started: {error.strerror}. Send it again later.") from error
            raise


class _Child:
    """A process that decodes one picture after the other, and the parent's end of the socket that is its standard input."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        # No tokens, which may stand in the environment; no threads, each of which would take address space.
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", "from images.apart import serve; serve()"],
                cwd=ROOT,
                env={**kept, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # a terminal's Ctrl-C is for its parent, which still answers what it has begun
            )

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    def end(self) -> None:
        """Kill the process, whatever it does."""
        self._socket.close()
        self._process.kill()
        self._process.wait()

    def prepare(self, content: bytes, wanted: Wanted, timeout_s: float) -> Prepared:
        """Have one picture decoded. Whoever gets a `DecodingStoppedError` must end this child."""
        deadline = time.monotonic() + timeout_s
        try:
            _send(self._socket, {**asdict(wanted), "timeout_s": timeout_s}, content, deadline)
            answer, body = _receive(self._socket, deadline)
            return _prepared(answer, body, wanted)
        except TimeoutError as error:
            raise DecodingStoppedError(
                f"The picture could not be decoded within {timeout_s:g} seconds, so that was given up. Save it anew as JPEG "
                "or PNG, or smaller, and send that."
            ) from error
        except (OSError, EOFError, ValueError, LookupError, TypeError, struct.error) as error:
            raise DecodingStoppedError(
                "The picture brought its decoder down, so it cannot be read here. Save it anew as JPEG or PNG, and send that."
            ) from error


def _prepared(answer: Mapping[str, Any], body: bytearray, wanted: Wanted) -> Prepared:
    if "error" in answer:
        raise _ERRORS[answer["error"]](str(answer["message"])[:1000])
    shape = (*wanted.input_size, 3)
    pixels = np.frombuffer(body, np.uint8, math.prod(shape)).reshape(shape)
    taken_at = answer["taken_at"]
    if taken_at is not None:
        taken_at = datetime.fromisoformat(taken_at).isoformat()
    return Prepared(pixels, bytes(body[pixels.size :]) or None, int(answer["width"]), int(answer["height"]), taken_at)


# What parent and child say: the lengths of both parts, a JSON object, and bytes.


def _send(to: socket.socket, head: Mapping[str, object], body: bytes, deadline: float | None = None) -> None:
    text = json.dumps(head).encode()
    _wait_until(to, deadline)
    to.sendall(_LENGTHS.pack(len(text), len(body)) + text + body)


def _receive(source: socket.socket, deadline: float | None = None) -> tuple[dict[str, Any], bytearray]:
    """Return what the other side says. Raises `EOFError` where it ends, `TimeoutError`, `ValueError` where it makes no sense."""
    text_length, body_length = _LENGTHS.unpack(_receive_bytes(source, _LENGTHS.size, deadline))
    if deadline is not None and text_length + body_length > MOST_ANSWERED:
        raise ValueError(f"a decoder wants to answer {text_length + body_length:,} bytes")
    head = json.loads(_receive_bytes(source, text_length, deadline))
    return head, _receive_bytes(source, body_length, deadline)


def _receive_bytes(source: socket.socket, count: int, deadline: float | None) -> bytearray:
    received = bytearray(count)
    missing = memoryview(received)
    while missing:
        _wait_until(source, deadline)
        size = source.recv_into(missing)
        if not size:
            raise EOFError("the other side has ended")
        missing = missing[size:]
    return received


def _wait_until(one: socket.socket, deadline: float | None) -> None:
    if deadline is not None:
        one.settimeout(max(deadline - time.monotonic(), 1e-3))


# The child.


def serve() -> None:
    """Decode for the parent at the other end of standard input until it is gone. To be called in a child's process alone."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # nothing is ever written
    with socket.socket(fileno=0) as parent, contextlib.suppress(EOFError, ConnectionError):
        while True:
            asked, content = _receive(parent)
            limits, timeout_s = Limits(**asked.pop("limits")), asked.pop("timeout_s")
            _limit(limits, timeout_s)
            answer, body = _answer(bytes(content), Wanted(limits, **asked))
            _send(parent, answer, body)


def _answer(content: bytes, wanted: Wanted) -> tuple[dict[str, object], bytes]:
    try:
        prepared = prepare(content, wanted)
    except ImageError as error:
        return {"error": error.code, "message": str(error)}, b""
    except MemoryError:
        return {"error": UnreadableFileError.code, "message": "There is not enough memory to decode the image."}, b""
    told = {name: getattr(prepared, name) for name in ("width", "height", "taken_at")}
    return told, prepared.pixels.tobytes() + (prepared.thumbnail or b"")


def _limit(limits: Limits, timeout_s: float) -> None:
    """Bound the memory and the seconds of processor that the next picture may take, should its parent be gone meanwhile."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = math.ceil(used.ru_utime + used.ru_stime + timeout_s) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))
    memory = MEMORY_BYTES + BYTES_A_PIXEL * limits.max_pixels
    with contextlib.suppress(ValueError, OSError):  # macOS does not know this limit
        resource.setrlimit(resource.RLIMIT_AS, (memory, resource.RLIM_INFINITY))
