"""The socket that a worker listens on, and those who have connected: one thread reads, any thread may write."""

from __future__ import annotations

import hmac
import logging
import os
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from llmengine_core.worker.wire import LONGEST, Broken, Lines, frame

__all__ = ["Connection", "Connections"]

BACKLOG = 16
"""Connections that may wait to be accepted, or have not shown the key yet."""
LONGEST_KEY = 1024
MOST_UNREAD = 16 << 20
"""Bytes that wait for a core that doesn't read before it is given up."""

log = logging.getLogger(__name__)


class Connection:
    """One of those who have connected. ``send`` may be called by any thread, the rest by the one that reads."""

    def __init__(self, sock: socket.socket, changed: Callable[[Connection], None]) -> None:
        """``changed`` is told when it wants to write, or is gone; by any thread."""
        self.socket = sock
        self.lines = Lines(LONGEST_KEY)
        self.known = False
        """Whether it has shown the key."""
        self.gone = False
        self.ending = False
        """Whether it was given the last that it is sent; it goes once that is out."""
        self._changed = changed
        self._unsent = bytearray()
        self._lock = threading.Lock()

    def send(self, data: bytes, *, last: bool = False) -> None:
        """Send what goes out at once, and see to the rest. Nothing happens after the ``last``, or once it is gone."""
        with self._lock:
            if self.gone or self.ending:
                return
            self.ending = last
            sent = 0 if self._unsent else self._write(data)
            if sent == len(data):
                return
            self._unsent += data[sent:]
            if len(self._unsent) > MOST_UNREAD:
                self.gone = True
        self._changed(self)

    def flush(self) -> None:
        """Send more of the rest."""
        with self._lock:
            del self._unsent[: self._write(self._unsent)]

    @property
    def unsent(self) -> bool:
        """Whether there is a rest."""
        return bool(self._unsent)

    def _write(self, data: bytes | bytearray) -> int:
        try:
            return self.socket.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            self.gone = True
            return 0


class Connections:
    """All of them, and what else is waited for. ``wake`` and ``listen`` may be called by any thread."""

    def __init__(
        self, on_line: Callable[[Connection, bytes], None], on_gone: Callable[[Connection], None]
    ) -> None:
        """Both are called by the thread that reads; ``on_line`` may raise ``Broken``."""
        self._on_line = on_line
        self._on_gone = on_gone
        self._key = b""
        self._strangers: list[Connection] = []
        self._selector = selectors.DefaultSelector()
        self._awake, self._waker = os.pipe()
        os.set_blocking(self._waker, False)
        self._changes: deque[Callable[[], None]] = deque()
        self.watch(self._awake, lambda: os.read(self._awake, 4096))

    def watch(self, fd: int, react: Callable[[], object]) -> None:
        """Call ``react`` when there is something to read; before anything else runs."""
        self._selector.register(fd, selectors.EVENT_READ, lambda _: react())

    def listen(self, path: str, key: str) -> None:
        """Accept connections on a unix socket of this user's from here on."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        old = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(old)
        listener.listen(BACKLOG)
        listener.setblocking(False)
        self._key = key.encode()
        self._soon(lambda: self.watch(listener.fileno(), lambda: self._accept(listener)))

    def wait(self, seconds: float | None) -> None:
        """React to all that has happened, or to the first thing that does within some seconds."""
        for key, mask in self._selector.select(seconds):
            key.data(mask)
        while self._changes:
            self._changes.popleft()()

    def _soon(self, change: Callable[[], None]) -> None:
        self._changes.append(change)
        with suppress(BlockingIOError):  # it is being woken already
            os.write(self._waker, b"\0")

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        sock.setblocking(False)
        connection = Connection(sock, lambda each: self._soon(lambda: self._settle(each)))
        self._selector.register(sock, selectors.EVENT_READ, lambda mask: self._react(connection, mask))
        self._strangers.append(connection)
        if len(self._strangers) > BACKLOG:
            self._drop(self._strangers[0])

    def _react(self, connection: Connection, mask: int) -> None:
        if connection.gone:
            return
        if mask & selectors.EVENT_WRITE:
            connection.flush()
        if mask & selectors.EVENT_READ:
            self._read(connection)
        self._settle(connection)

    def _read(self, connection: Connection) -> None:
        try:
            data = connection.socket.recv(1 << 16)
            connection.gone = not data
            for line in connection.lines.feed(data):
                if connection.known:
                    self._on_line(connection, line)
                elif not self._introduce(connection, line):
                    return
        except BlockingIOError:
            pass
        except Broken as error:
            if connection.known:
                log.warning("the core can't be understood: %s", error)
                self._on_gone(connection)
                connection.send(frame("broken", str(error)), last=True)
            else:
                connection.gone = True
        except OSError:
            connection.gone = True

    def _introduce(self, connection: Connection, line: bytes) -> bool:
        """Whether it has shown the key. Who hasn't is told nothing."""
        if not hmac.compare_digest(line, self._key):
            connection.gone = True
            return False
        connection.known = True
        connection.lines.longest = LONGEST
        self._strangers.remove(connection)
        connection.send(frame("welcome"))
        return True

    def _settle(self, connection: Connection) -> None:
        """Wait for what it wants, or let go of it."""
        if connection.socket.fileno() < 0:
            return
        if connection.gone or (connection.ending and not connection.unsent):
            self._drop(connection)
            return
        wanted = 0 if connection.ending else selectors.EVENT_READ
        if connection.unsent:
            wanted |= selectors.EVENT_WRITE
        if self._selector.get_key(connection.socket).events != wanted:
            self._selector.modify(connection.socket, wanted, lambda mask: self._react(connection, mask))

    def _drop(self, connection: Connection) -> None:
        connection.gone = True
        self._selector.unregister(connection.socket)
        connection.socket.close()
        if connection.known:
            self._on_gone(connection)
        else:
            self._strangers.remove(connection)
