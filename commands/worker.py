"""A worker of gunicorn whose threads see a request only when all of it has arrived, and do not wait until its answer is taken.

Owns reading and sending without a thread, the time and memory that may take, and closing without waiting in the loop.
Does not own answering: threads, keep-alive and the end of the process are those of gunicorn's `gthread`, which it extends. That
one gives a thread to whoever sends a first byte, so a few dozen slow clients would hold all of them.

What does not arrive whole is answered by the application all the same, with its headers and its shape of errors: where it reads
the body, it meets the error. Only a head that never ends is answered here. Source: gunicorn/workers/gthread.py of gunicorn 27.
"""

from __future__ import annotations

import contextlib
import errno
import resource
import selectors
import socket
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from gunicorn.workers.gthread import TConn, ThreadWorker  # type: ignore[import-untyped]

from commands.arriving import Arriving
from commands.leaving import Leaving
from errors import LookalikeError, OverloadedError, SlowUploadError, TooManyBytesError

READ_BYTES = 256 * 1024
BUFFERED_UPLOADS = 8
"""How many uploads of the largest size one process may hold while they arrive and are answered; more get 503."""
OTHER_DESCRIPTORS, DESCRIPTORS_A_THREAD = 200, 4
"""What the process and each thread may have open besides connections: the index, the catalog, decoders, counters."""
NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
LINGER_S = 2.0
"""How long the rest of a refused body is read and thrown away, so that the client comes to read the answer."""
TOO_LATE = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
TOO_LONG = b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class _CutOff:
    """Stands where a parser reads on from the client, and says why nothing comes."""

    def __init__(self, reason: LookalikeError) -> None:
        self._reason = reason

    def recv(self, size: int) -> bytes:
        raise self._reason


class _Connection(TConn):  # type: ignore[misc]
    """A client's connection: what arrives on it and what leaves, until when that may take, and the bytes it holds."""

    arriving: Arriving
    leaving: Leaving | None = None
    deadline = 0.0
    held = 0
    closing = False

    @property
    def is_idle(self) -> bool:
        return not self.closing and self.leaving is None and not self.arriving.content


class BufferedWorker(ThreadWorker):  # type: ignore[misc]
    """See the module. All but `handle_request` runs in the main thread, so nothing here needs a lock."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.waiting: dict[_Connection, None] = {}  # in the order they began to
        self.held = 0

    def init_process(self) -> None:
        """Take as many descriptors as the system gives, and no more connections than those are enough for."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        others = OTHER_DESCRIPTORS + DESCRIPTORS_A_THREAD * self.cfg.threads
        asked = self.cfg.worker_connections
        wanted = others + 2 * asked  # an answer may be a file besides
        given = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        if soft != resource.RLIM_INFINITY and soft < given:
            resource.setrlimit(resource.RLIMIT_NOFILE, (given, hard))
        self.worker_connections: int = max(self.cfg.threads, min(asked, (given - others) // 2))
        super().init_process()

    def load_wsgi(self) -> None:
        """Make the application; what it takes is what is waited for."""
        super().load_wsgi()
        self.most_bytes: int = self.wsgi.config["MAX_CONTENT_LENGTH"]
        self.timeout_s: int = self.wsgi.config["UPLOAD_TIMEOUT_S"]

    # Waiting for a request.

    def accept(self, listener: Any) -> None:
        """Wait for the first request of a new client."""
        try:
            self._welcome(listener.accept(), listener)
        except (BlockingIOError, ConnectionAbortedError):
            pass  # another process was faster, or the client has left
        except OSError as error:
            if error.errno not in NO_DESCRIPTOR:
                raise
            # Whoever knocks waits until gunicorn's loop takes new clients again, after the next event or in a second.
            self._drop_idle()
            self.set_accept_enabled(False)

    def _welcome(self, accepted: tuple[Any, Any], listener: Any) -> None:
        self.nr_conns += 1
        self._make_room()
        self._wait_for_request(_Connection(self.cfg, *accepted, listener.getsockname()), b"")

    def set_accept_enabled(self, enabled: bool) -> None:
        """Take new clients, or not for now; at the end of the process take those that knocked already, and then no more.

        Left open, the socket would go on letting clients knock whom nobody answers.
        """
        super().set_accept_enabled(enabled)
        if not enabled and not self.alive:
            for listener in self.sockets:
                with contextlib.suppress(OSError):  # nobody knocks any more, or it was closed before
                    while self.nr_conns < self.worker_connections:
                        self._welcome(listener.accept(), listener)
                listener.close()

    def _make_room(self) -> None:
        """Let the oldest connection without a request go, when nearly as many are open as may be."""
        if self.nr_conns > self.worker_connections - self.cfg.threads:
            self._drop_idle()

    def _drop_idle(self) -> None:
        idle = next((connection for connection in self.waiting if connection.is_idle), None)
        if idle is not None:
            self._drop(idle)

    def _wait_for_request(self, connection: _Connection, begun: bytes) -> None:
        connection.arriving = Arriving(self.most_bytes)
        connection.held = 0
        connection.deadline = time.monotonic() + (self.cfg.keepalive if self.alive else LINGER_S)
        self._watch(connection, selectors.EVENT_READ, partial(self._read, connection))
        if begun:
            self._take(connection, begun)

    def _watch(self, connection: _Connection, event: int, callback: Callable[[socket.socket], None]) -> None:
        connection.sock.setblocking(False)
        self.waiting[connection] = None
        self.poller.register(connection.sock, event, callback)

    def _forget(self, connection: _Connection) -> None:
        del self.waiting[connection]
        with contextlib.suppress(KeyError, ValueError):  # the poller let go of it
            self.poller.unregister(connection.sock)

    def _read(self, connection: _Connection, client: socket.socket) -> None:
        if connection not in self.waiting:
            return  # dropped since the poller saw it
        try:
            content = client.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            content = b""
        if not content:
            self._drop(connection)
        elif not connection.closing:
            self._take(connection, content)

    def _take(self, connection: _Connection, content: bytes) -> None:
        arriving = connection.arriving
        if connection.is_idle:
            connection.deadline = time.monotonic() + self.timeout_s
        was_head = arriving.state == "head"
        state = arriving.add(content)
        connection.held += len(content)
        self.held += len(content)
        if state == "whole":
            self._answer(connection, arriving.without_expectation())
        elif state == "long head":
            self._refuse(connection, TOO_LONG)
        elif state == "long body":
            self._cut_off(connection, TooManyBytesError(f"The request has more than {self.most_bytes:,} bytes."))
        elif self.held > BUFFERED_UPLOADS * self.most_bytes:
            self._cut_off(connection, OverloadedError("Too many uploads arrive at once. Try again in a moment."))
        elif was_head and arriving.waits_to_continue:
            with contextlib.suppress(OSError):  # then the next read says so
                connection.sock.send(CONTINUE)

    # What comes of it.

    def _answer(self, connection: _Connection, content: bytes, reason: LookalikeError | None = None) -> None:
        """Give a thread a request of which all has arrived that ever will."""
        self._forget(connection)
        connection.init()
        connection.arriving = Arriving(self.most_bytes)  # its memory is the parser's now
        connection.parser.unreader.unread(content)
        if reason is not None:
            connection.parser.unreader.sock = _CutOff(reason)
        self.enqueue_req(connection)

    def _cut_off(self, connection: _Connection, reason: LookalikeError) -> None:
        self._answer(connection, connection.arriving.closing(), reason)

    def _refuse(self, connection: _Connection, answer: bytes) -> None:
        with contextlib.suppress(OSError):
            connection.sock.send(answer)
        self._forget(connection)
        self._let_go(connection)

    def handle_request(self, req: Any, conn: Any) -> bool:
        """Answer a request, in a thread, which does not wait until the client has taken the answer."""
        client = conn.sock
        client.setblocking(False)
        conn.sock = conn.leaving = Leaving(client, self.timeout_s)
        try:
            return bool(super().handle_request(req, conn))
        except BaseException as error:
            conn.leaving.drop()
            if isinstance(error, TimeoutError):
                raise StopIteration from error  # gunicorn's word for an end that is no failure
            raise
        finally:
            conn.sock = client

    def finish_request(self, conn: _Connection, fs: Future[Any]) -> None:
        """Send what is left of the answer; then wait for the next request, or close."""
        self.held -= conn.held
        conn.held = 0
        stays = not fs.cancelled() and bool(fs.result())
        if conn.leaving is None or conn.leaving.is_done:
            self._end_answer(conn, stays)
        else:
            conn.deadline = time.monotonic() + self.timeout_s
            self._watch(conn, selectors.EVENT_WRITE, partial(self._write, conn, stays))

    def _write(self, connection: _Connection, stays: bool, client: socket.socket) -> None:
        if connection not in self.waiting or connection.leaving is None:
            return
        try:
            connection.leaving.send_more()
        except OSError:
            self._drop(connection)
            return
        connection.deadline = time.monotonic() + self.timeout_s
        if connection.leaving.is_done:
            self._forget(connection)
            self._end_answer(connection, stays)

    def _end_answer(self, connection: _Connection, stays: bool) -> None:
        connection.leaving = None
        if stays:
            self._wait_for_request(connection, connection.parser.unreader.take_buffered())
        else:
            self._let_go(connection)

    def _let_go(self, connection: _Connection) -> None:
        """Say that no more comes and wait, in the poller, for the client to close: closing at once would take back the answer."""
        self.held -= connection.held
        connection.held = 0
        connection.closing = True
        connection.deadline = time.monotonic() + LINGER_S
        try:
            connection.sock.shutdown(socket.SHUT_WR)
            self._watch(connection, selectors.EVENT_READ, partial(self._read, connection))
        except (OSError, ValueError):
            self.nr_conns -= 1
            connection.close()

    def _drop(self, connection: _Connection) -> None:
        self._forget(connection)
        if connection.leaving is not None:
            connection.leaving.drop()
        self.held -= connection.held
        self.nr_conns -= 1
        connection.close()

    # Time, as gunicorn's loop asks about it once a second and after each event.

    def murder_keepalived(self, force: bool = False) -> None:
        """End what has waited too long; all, if `force`."""
        now = time.monotonic()
        for connection in [each for each in self.waiting if force or each.deadline < now]:
            if connection.arriving.state == "body" and not force:
                message = (
                    f"The request did not arrive within {self.timeout_s} seconds. Send it again, or a smaller copy."
                )
                self._cut_off(connection, SlowUploadError(message))
            elif force or connection.is_idle or connection.closing or connection.leaving is not None:
                self._drop(connection)
            else:
                self._refuse(connection, TOO_LATE)

    def _cap_keepalive(self, deadline: float) -> None:
        """Let clients that have no request under way go by `deadline`: the process is about to end."""
        for connection in self.waiting:
            if connection.is_idle:
                connection.deadline = min(connection.deadline, deadline)
