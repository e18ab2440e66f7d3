"""How long each stage of answering one request took: decode, queue (for a place at the network), embed, search, render.

Owns keeping the seconds of the request that the running thread answers, from `begin` on. Does not own what is done with them:
the web layer sends them (`header`), and its metrics and log read them (`seconds`). Stages do not overlap. Outside of a request
nothing is kept, so that jobs and Python programs need not know of it. Source: W3C Server Timing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, get_args

Stage = Literal["decode", "queue", "embed", "search", "render"]
STAGES: tuple[Stage, ...] = get_args(Stage)

_kept: ContextVar[dict[str, float] | None] = ContextVar("stages", default=None)


def begin() -> None:
    """Begin a request: forget the seconds of the one that this thread answered before."""
    _kept.set({})


@contextmanager
def timed(stage: Stage) -> Iterator[None]:
    """Add the seconds that the block takes to those of `stage`, whether it succeeds or not."""
    started = time.perf_counter()
    try:
        yield
    finally:
        add(stage, time.perf_counter() - started)


def add(stage: Stage, seconds: float) -> None:
    """Add seconds that were measured elsewhere, such as in another thread."""
    kept = _kept.get()
    if kept is not None:
        kept[stage] = kept.get(stage, 0.0) + seconds


def seconds() -> Mapping[str, float]:
    """Return the seconds of each stage that this request has had, in the order they began; empty outside of a request."""
    return dict(_kept.get() or {})


def header() -> str:
    """Return the stages as the value of `Server-Timing`, in milliseconds; empty where there are none."""
    return ", ".join(f"{stage};dur={1000 * taken:.1f}" for stage, taken in seconds().items())
