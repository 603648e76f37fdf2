"""Starts one process, stays beside it, and leaves nothing of it behind.

Run by path, ``python -I -S _supervisor.py``: the standard library only, because it starts before every
engine. Standard input is a socket to the parent. The parent writes one JSON line::

    {"parent": 4711, "argv": [...], "env": {...}, "document": {...}, "unlink": [...], "grace": 2.0}

and is told ``{"pid": 4713}`` once the child is started, ``{"code": 0, "signal": null}`` once it has ended.
The child reads ``document`` as one JSON line from its standard input, which stays open for as long as it
shall run; its standard output and error are the supervisor's own.

The end comes when the parent closes the socket (or dies, also by SIGKILL), when this process gets SIGTERM,
SIGINT or SIGHUP, or when the child ends. Then the child's group gets SIGTERM, after ``grace`` seconds
SIGKILL, and so does each descendant that left the group, since on Linux this process inherits them.
Last, the files in ``unlink`` go. If this process itself is killed, the kernel kills the child (Linux).
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from contextlib import suppress

TYPE_CHECKING = False  # as in `typing`, whose import would cost as much as all the others
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

PARENT = 0  # standard input, both ways
LINUX = sys.platform == "linux"
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
KILLING = 2.0  # seconds until even what can't be killed is left alone


def main() -> int:
    """Do all of the above; the result is the child's exit code, or 128 plus its signal."""
    close_strangers()
    order = read_order()
    if order is None:
        return 0
    signals = catch_signals()
    if LINUX:
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    family = None
    try:
        if os.getppid() == order["parent"]:  # else it died before the kernel knew that we want to be told
            family = Family(order["argv"], order["env"])
            tell(pid=family.pid)
            watch(family, signals, json.dumps(order["document"]).encode() + b"\n")
            family.end(signals, order["grace"])
            tell(code=family.code, signal=family.signal)
    finally:
        for path in order["unlink"]:
            with suppress(OSError):
                os.unlink(path)
    if family is None:
        return 0
    return 128 + family.signal if family.signal else family.code or 0


def close_strangers() -> None:
    """Close what the parent left open without meaning us: the child would inherit it."""
    for fd in map(int, os.listdir("/dev/fd")):
        if fd > 2:
            with suppress(OSError):
                os.close(fd)


def read_order() -> dict[str, Any] | None:
    """What the parent wants; None where it was gone before it had said so."""
    text = b""
    while not text.endswith(b"\n"):
        more = read(PARENT)
        if not more:
            return None
        text += more
    order: dict[str, Any] = json.loads(text)
    return order


def read(fd: int) -> bytes:
    """Some bytes; none at the end, however the other side got there."""
    try:
        return os.read(fd, 65536)
    except ConnectionError:
        return b""


def tell(**news: int | None) -> None:
    """Send the parent one line, if it is still there."""
    with suppress(OSError):
        os.write(PARENT, json.dumps(news).encode() + b"\n")


def catch_signals() -> int:
    """Have signals arrive as bytes; gives the file descriptor to read them from."""
    signals, write = os.pipe()
    os.set_blocking(signals, False)
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    return signals


def prctl(option: int, value: int) -> None:
    """Linux's process control."""
    import ctypes

    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value}) failed")


class Family:
    """The child, and whatever it starts."""

    def __init__(self, argv: list[str], env: dict[str, str]) -> None:
        child_stdin, self.stdin = os.pipe()
        os.set_blocking(self.stdin, False)
        supervisor = os.getpid()
        self.code: int | None = None
        self.signal: int | None = None
        self.pid = os.fork()  # noqa: TID251
        if self.pid == 0:
            self.become(argv, env, child_stdin, supervisor)
        os.close(child_stdin)

    def become(self, argv: list[str], env: dict[str, str], stdin: int, supervisor: int) -> None:
        """In the forked process: turn into the child. Doesn't return."""
        try:
            os.setsid()
            if LINUX:
                prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
                if os.getppid() != supervisor:
                    os._exit(127)
            os.dup2(stdin, 0)
            for number in (signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(number, signal.SIG_DFL)  # Python ignores them, and a program would inherit that
            os.execvpe(argv[0], argv, env)
        except OSError as error:
            os.write(2, f"cannot run {argv[0]!r}: {error.strerror}\n".encode())
        finally:
            os._exit(127)

    def reap(self) -> bool:
        """Take note of all who have ended; true while any is left."""
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return True
                if pid == self.pid:
                    code = os.waitstatus_to_exitcode(status)
                    self.code, self.signal = (code, None) if code >= 0 else (None, -code)
        except ChildProcessError:
            return not LINUX and self.send(0)  # elsewhere the group may outlive the child without being ours

    @property
    def ended(self) -> bool:
        """Whether the child itself has; others may be left."""
        return self.code is not None or self.signal is not None

    def send(self, number: int) -> bool:
        """Signal the child's group; false where there is nobody in it."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return False
        except PermissionError:  # macOS says so of a group of zombies
            return False
        return True

    def end(self, signals: int, grace: float) -> None:
        """Ask all to end, wait a little, then end them."""
        os.close(self.stdin)
        self.send(signal.SIGTERM)
        deadline = time.monotonic() + grace
        asked = set()
        while self.reap() and time.monotonic() < deadline:
            for pid, group in children():
                if group != self.pid and pid not in asked:
                    asked.add(pid)
                    kill(pid, signal.SIGTERM)
            wait(signals, min(0.05, grace))
        deadline = time.monotonic() + KILLING
        while self.reap() and time.monotonic() < deadline:
            self.send(signal.SIGKILL)
            for pid, _ in children():
                kill(pid, signal.SIGKILL)
            wait(signals, 0.05)
        if not self.ended:
            self.signal = signal.SIGKILL  # it was sent; the kernel holds the child in a call of its own


def kill(pid: int, number: int) -> None:
    """Signal a process that is ours, unless it runs as somebody else."""
    with suppress(PermissionError):
        os.kill(pid, number)


def children() -> Iterator[tuple[int, int]]:
    """This process's children, adopted ones included, each with its group; elsewhere than on Linux, none."""
    me = os.getpid()
    for name in os.listdir("/proc") if LINUX else ():
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parent, group = file.read().rpartition(b")")[2].split()[1:3]
            except OSError:
                continue  # it ended meanwhile
            if int(parent) == me:
                yield int(name), int(group)


def wait(signals: int, seconds: float) -> None:
    """Until a signal comes, or some seconds have passed."""
    poll = select.poll()
    poll.register(signals, select.POLLIN)
    if poll.poll(seconds * 1000):
        os.read(signals, 4096)


def watch(family: Family, signals: int, document: bytes) -> None:
    """Hand the document over; return when it is time to end."""
    poll = select.poll()
    poll.register(PARENT, select.POLLIN)
    poll.register(signals, select.POLLIN)
    poll.register(family.stdin, select.POLLOUT)
    while not family.ended:
        for fd, _ in poll.poll():
            if fd == family.stdin:
                try:
                    document = document[os.write(fd, document) :]
                except BrokenPipeError:  # it doesn't want it
                    document = b""
                if not document:
                    poll.unregister(fd)
            elif fd == signals:
                if any(number != signal.SIGCHLD for number in os.read(fd, 4096)):
                    return
                family.reap()
            elif not read(fd):
                return


if __name__ == "__main__":
    sys.exit(main())
