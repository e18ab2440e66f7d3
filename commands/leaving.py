"""The bytes of an answer on their way: what the network does not take at once waits here, and no thread with it.

Owns sending without waiting, and what is left. Does not own when to go on: the worker's loop asks the client's socket.
"""

from __future__ import annotations

import os
import select
import socket
from collections import deque
from typing import IO, Any

MOST_WAITING_BYTES = 4 * 1024 * 1024
"""What of one answer may wait in memory; a thread that has more to say waits. Files wait on disk."""


class Leaving:
    """Stands for a client's socket, which must not block, while an answer is written; then `send_more` until `is_done`."""

    def __init__(self, client: socket.socket, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._parts: deque[memoryview | _FilePart] = deque()
        self._held = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    @property
    def is_done(self) -> bool:
        """Whether everything is on its way."""
        return not self._parts

    def sendall(self, content: bytes) -> None:
        """Send bytes, now or later. Raises `TimeoutError` where too many wait already and the client takes none."""
        self._parts.append(memoryview(content))
        self._held += len(content)
        self.send_more()
        while self._held > MOST_WAITING_BYTES:
            if not self._may_send():
                raise TimeoutError("The client does not take its answer.")
            self.send_more()

    def _may_send(self) -> bool:
        poll = select.poll()  # `select` knows no descriptor beyond 1023
        poll.register(self._client, select.POLLOUT)
        return bool(poll.poll(self._timeout_s * 1000))

    def sendfile(self, file: IO[bytes], offset: int, count: int) -> None:
        """Send a part of a file, now or later; it may be closed meanwhile."""
        self._parts.append(_FilePart(os.dup(file.fileno()), offset, count))
        self.send_more()

    def send_more(self) -> None:
        """Send as much as the network takes now. Raises `OSError` where the client is gone."""
        try:
            while self._parts:
                self._send_first(self._parts[0])
        except BlockingIOError:
            return

    def _send_first(self, part: memoryview | _FilePart) -> None:
        if isinstance(part, memoryview):
            sent = self._client.send(part)
            self._held -= sent
            rest: memoryview | _FilePart | None = part[sent:] if sent < len(part) else None
        else:
            try:
                rest = part.send(self._client)
            except ConnectionAbortedError:
                self._parts.popleft()
                raise
        if rest is None:
            self._parts.popleft()
        else:
            self._parts[0] = rest

    def drop(self) -> None:
        """Forget what is left."""
        for part in self._parts:
            if isinstance(part, _FilePart):
                os.close(part.descriptor)
        self._parts.clear()


class _FilePart:
    """`count` bytes from `offset` of an open file, which is closed with the last one."""

    def __init__(self, descriptor: int, offset: int, count: int) -> None:
        self.descriptor = descriptor
        self._offset = offset
        self._count = count

    def send(self, client: socket.socket) -> _FilePart | None:
        """Send some of it; return the rest."""
        sent = os.sendfile(client.fileno(), self.descriptor, self._offset, self._count) if self._count else 0
        self._offset += sent
        self._count -= sent
        if sent and self._count:
            return self
        os.close(self.descriptor)
        if self._count:  # the file has become shorter: what was announced cannot be kept
            raise ConnectionAbortedError("The file ended early.")
        return None
