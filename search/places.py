"""Who may have a picture looked at: so many at once, some more that wait, and nobody beyond.

Owns counting them, and letting those go whose client has hung up meanwhile. What is refused is refused at once, before anything
was decoded for it, so that a crowd costs next to nothing and those that wait are answered soon. A place is taken when a picture
has arrived as a whole: slow senders hold none.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from errors import ClientGoneError, OverloadedError

_has_gone: ContextVar[Callable[[], bool] | None] = ContextVar("has_gone", default=None)


def watch(has_gone: Callable[[], bool]) -> None:
    """Say how to find out whether the client of the request that this thread answers has hung up."""
    _has_gone.set(has_gone)


def check_client() -> None:
    """Raise `ClientGoneError` where nobody waits for the answer any more. To be called before what takes long."""
    has_gone = _has_gone.get()
    if has_gone is not None and has_gone():
        raise ClientGoneError("The client has hung up, so its picture is not looked at.")


class Places:
    """`count` places that callers take and give back. Thread-safe."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._taken = 0
        self._changing = threading.Lock()

    @property
    def taken(self) -> int:
        """Return how many are taken now."""
        return self._taken

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place for the block. Raises `OverloadedError` where none is left."""
        with self._changing:
            if self._taken >= self._count:
                raise OverloadedError(
                    f"{self._taken:,} pictures are being looked at or wait for it already, which is as many as may at once. "
                    "Send it again in a few seconds."
                )
            self._taken += 1
        try:
            yield
        finally:
            with self._changing:
                self._taken -= 1
