"""Decoding in children: what comes out is what comes out here, and what goes wrong with one picture stays with it."""

from __future__ import annotations

import io
import os
import re
import signal
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from errors import (
    DamagedImageError,
    DecodingStoppedError,
    EmptyFileError,
    NotAnImageError,
    OverloadedError,
    TooManyPixelsError,
)
from images import Decoders, Limits, Prepared, Wanted
from images.apart import BYTES_A_PIXEL, MEMORY_BYTES, prepare
from images.apart import _answer as apart_answer
from images.apart import _receive as apart_receive
from tests.fakes import encoded, picture

WANTED = Wanted(Limits(30_000_000, 100_000_000, 10_000), (224, 224), "bicubic", 256)
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "AVIF")


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    decoders = Decoders(2, 20)
    yield decoders
    decoders.close()


def child_of(decoders: Decoders) -> int:
    """Return the process that has the next picture."""
    child = decoders._take()
    decoders._free.put(child)
    return child.pid


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("part", [None, (0.25, 0.0, 0.75, 0.5)])
def test_a_child_makes_of_a_picture_what_this_process_does(
    decoders: Decoders, file_format: str, part: tuple[float, float, float, float] | None
) -> None:
    content, wanted = encoded(picture(1, (900, 700)), file_format), replace(WANTED, part=part)
    here, there = prepare(content, wanted), decoders.prepare(content, wanted)
    np.testing.assert_array_equal(there.pixels, here.pixels)
    assert there.pixels.shape == (224, 224, 3)
    assert (there.thumbnail, there.width, there.height) == (here.thumbnail, 900, 700)
    assert max(Image.open(io.BytesIO(there.thumbnail or b"")).size) == 256


def test_a_child_tells_when_a_picture_was_taken(decoders: Decoders) -> None:
    exif, kept = Image.Exif(), io.BytesIO()
    exif.get_ifd(0x8769)[0x9003] = "2019:08:03 12:01:00"
    picture(1).save(kept, "JPEG", exif=exif)
    assert decoders.prepare(kept.getvalue(), WANTED).taken_at == "2019-08-03T12:01:00"
    assert decoders.prepare(encoded(picture(1)), WANTED).taken_at is None


def test_a_thumbnail_is_made_where_it_is_wanted(decoders: Decoders) -> None:
    assert decoders.prepare(encoded(picture(1)), replace(WANTED, thumbnail_size=None)).thumbnail is None


@pytest.mark.parametrize(
    ("content", "wanted", "error"),
    [
        (b"", WANTED, EmptyFileError),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", WANTED, NotAnImageError),
        (encoded(picture(1))[:-500], WANTED, DamagedImageError),
        (encoded(picture(1)), replace(WANTED, limits=Limits(10**6, 1000, 1)), TooManyPixelsError),
    ],
)
def test_what_is_wrong_with_a_picture_is_said_as_here_and_the_child_goes_on(
    decoders: Decoders, content: bytes, wanted: Wanted, error: type[Exception]
) -> None:
    before = child_of(decoders)
    with pytest.raises(error) as here:
        prepare(content, wanted)
    with pytest.raises(error, match=f"^{re.escape(str(here.value))}$"):
        decoders.prepare(content, wanted)
    assert child_of(decoders) == before


def test_a_child_that_was_killed_is_replaced(decoders: Decoders) -> None:
    before = child_of(decoders)
    os.kill(before, signal.SIGKILL)
    os.waitid(os.P_PID, before, os.WEXITED | os.WNOWAIT)
    assert decoders.prepare(encoded(picture(2)), WANTED).width == 640
    assert child_of(decoders) != before


@pytest.mark.parametrize("blow", [signal.SIGSEGV, signal.SIGKILL])
def test_a_crash_costs_the_picture_that_is_decoded_and_no_other(
    blow: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoders = Decoders(1, 20)
    child = child_of(decoders)
    os.kill(child, signal.SIGSTOP)  # so that it has the picture, but has not begun, when it is struck

    def strike(source: socket.socket, deadline: float) -> tuple[dict[str, object], bytearray]:
        os.kill(child, blow)
        os.kill(child, signal.SIGCONT)
        return apart_receive(source, deadline)

    with monkeypatch.context() as patched:
        patched.setattr("images.apart._receive", strike)
        with pytest.raises(DecodingStoppedError, match="brought its decoder down"):
            decoders.prepare(encoded(picture(1)), WANTED)
    assert decoders.prepare(encoded(picture(2)), WANTED).height == 480
    decoders.close()


def test_a_picture_that_takes_too_long_is_given_up_and_its_child_ended() -> None:
    decoders = Decoders(1, 0.3)
    child = child_of(decoders)
    os.kill(child, signal.SIGSTOP)  # whatever a decoder hangs in
    with pytest.raises(DecodingStoppedError, match=r"within 0\.3 seconds"):
        decoders.prepare(encoded(picture(1)), WANTED)
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    decoders.close()


def test_a_child_may_take_so_much_memory_and_processor_and_write_nothing(decoders: Decoders) -> None:
    decoders.prepare(encoded(picture(1)), replace(WANTED, limits=Limits(30_000_000, 50_000_000, 1)))
    limits = Path(f"/proc/{child_of(decoders)}/limits").read_text(encoding="ascii")
    assert re.search(rf"Max address space +{MEMORY_BYTES + BYTES_A_PIXEL * 50_000_000} ", limits)
    assert re.search(r"Max cpu time +2[1-9] ", limits)
    assert re.search(r"Max file size +0 +0 ", limits)


def test_memory_that_does_not_suffice_is_the_pictures_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare_without_memory(content: bytes, wanted: Wanted) -> Prepared:
        raise MemoryError

    monkeypatch.setattr("images.apart.prepare", prepare_without_memory)
    assert apart_answer(b"", WANTED)[0]["error"] == "unreadable_file"


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        ({"width": 1, "height": 1}, b"too short"),
        ({"error": "no such code", "message": ""}, b""),
        ({"width": [], "height": 1, "taken_at": None}, bytes(224 * 224 * 3)),
        ({"width": 1, "height": 1, "taken_at": "<script>"}, bytes(224 * 224 * 3)),
        ([], b""),
    ],
)
def test_a_child_that_was_taken_over_is_not_believed(
    answer: dict[str, object], body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoders = Decoders(1, 20)
    monkeypatch.setattr("images.apart._receive", lambda source, deadline: (answer, bytearray(body)))
    with pytest.raises(DecodingStoppedError):
        decoders.prepare(encoded(picture(1)), WANTED)
    decoders.close()


def test_children_know_no_tokens_and_end_with_their_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_EDIT_TOKEN", "a secret")
    decoders = Decoders(1, 20)
    child = child_of(decoders)
    decoders.prepare(encoded(picture(1)), WANTED)
    assert b"a secret" not in Path(f"/proc/{child}/environ").read_bytes()
    decoders.close()
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_no_more_children_are_started_than_are_needed() -> None:
    decoders = Decoders(8, 20)
    for number in range(3):
        decoders.prepare(encoded(picture(number)), WANTED)
    assert sum(child is not None for child in decoders._free.queue) == 1
    decoders.close()


def test_where_no_child_can_be_started_it_is_said_and_the_place_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    decoders = Decoders(1, 20)
    with monkeypatch.context() as patched:
        patched.setattr("images.apart.subprocess.Popen", refuse)
        with pytest.raises(OverloadedError, match="Cannot allocate memory"):
            decoders.prepare(encoded(picture(1)), WANTED)
    assert decoders.prepare(encoded(picture(1)), WANTED).width
    decoders.close()


def test_nobody_waits_for_a_decoder_longer_than_decoding_may_take() -> None:
    decoders = Decoders(1, 0.1)
    child = decoders._take()
    with pytest.raises(OverloadedError, match=r"0\.1 seconds"):
        decoders.prepare(encoded(picture(1)), WANTED)
    decoders._free.put(child)
    decoders.close()
