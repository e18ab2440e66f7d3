"""What commands show while they work, and how they are stopped: bars, plain lines for logs, the first and second Ctrl-C."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

PLAIN_LINE_SECONDS = 10.0

Progress = Callable[[int, int], None]
"""Called with what is done and what there is in all."""


@contextmanager
def stopping_gently() -> Iterator[threading.Event]:
    """The first Ctrl-C (or SIGTERM) lets the batch finish; the second one interrupts as usual."""
    stop = threading.Event()

    def handle(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        print("\nStopping: finishing the batch that is under way …", file=sys.stderr, flush=True)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def show_progress(unit: str, *, silent: bool = False, stream: TextIO | None = None) -> Progress:
    """Return a bar with rate and time left for a terminal, plain lines now and then for a log, or nothing."""
    stream = stream or sys.stderr
    if silent:
        return lambda done, total: None
    return _bar(stream, unit) if stream.isatty() else _plain_lines(stream, unit)


def say_step(step: str) -> None:
    """Say what is begun, on a line of its own."""
    print(step, file=sys.stderr, flush=True)


def say_nothing(step: str) -> None:
    """Say nothing: what `--quiet` and `--json` ask for."""


def _bar(stream: TextIO, unit: str) -> Progress:
    from tqdm import tqdm

    bar = tqdm(unit=f" {unit}", file=stream, dynamic_ncols=True, smoothing=0.05)

    def show(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)
        if done == total:
            bar.close()

    return show


def _plain_lines(stream: TextIO, unit: str) -> Progress:
    started = last = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < PLAIN_LINE_SECONDS:
            return
        last = now
        rate = done / (now - started)
        left_s = (total - done) / rate
        print(
            f"{done:,} of {total:,} {unit}, {rate:.1f} {unit}/s, about {left_s:,.0f} s left",
            file=stream,
            flush=True,
        )

    return show
