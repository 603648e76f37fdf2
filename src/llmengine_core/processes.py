"""Child processes that never outlive us.

``spawn`` starts a program under a small supervisor process (``_supervisor.py``), which ends the program and
everything it started as soon as it loses us: closed, returned, crashed or killed with -9. Between us and the
supervisor there is one socket, and its closing is the signal; so letting go needs no thread, no await and no
running loop.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

from llmengine_core.types.launch import Exit

__all__ = ["HARMLESS", "Child", "OnLine", "OnMessage", "close_all", "spawn"]

OnMessage: TypeAlias = Callable[[dict[str, Any]], None]
"""Called from the loop with each JSON object that a child wrote on a line of its standard output."""
OnLine: TypeAlias = Callable[[str], None]
"""Called from the loop with each line that a child logged: all of its standard error, and standard output that
isn't JSON; without its end, and of a line that overwrites itself only the last."""

SUPERVISOR = str(Path(__file__).with_name("_supervisor.py"))
TAIL = 64 * 1024
"""Bytes that are kept of what a child logs."""
LONGEST_REASON = 20
"""Lines of a reason."""
HUNG = re.compile(r"^Timeout \((.+)\)!$", re.MULTILINE)
"""What Python's faulthandler writes before the stacks of a process that it ends because its time is up."""
MARGIN = 3.0
"""Seconds that a supervisor gets beyond its child's grace before it is killed itself."""

HARMLESS = re.compile(
    r"(?!.*(?:KEY|TOKEN|SECRET|PASSW|CREDENTIAL))"
    r"(?:PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|TZ|TMPDIR|TMP|TEMP|LLMENGINE_HOME|HF_HOME"
    r"|(?:LC|LD|DYLD|XDG|CUDA|NVIDIA|NCCL|HIP|ROCR|ROCM|GGML|LLAMA|OMP|GOMP|KMP|MKL|OPENBLAS|TORCH|PYTORCH|VLLM)_\w+)"
)
"""Names of the variables that engines may see: where things are, and what they compute on. Anything else may be a
secret: a database's address, a hub's token."""

log = logging.getLogger(__name__)


async def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    inherit: re.Pattern[str] | None = None,
    document: Mapping[str, Any] | None = None,
    unlink: Sequence[str | Path] = (),
    grace: float = 2.0,
    on_message: OnMessage | None = None,
    on_line: OnLine | None = None,
    on_end: Callable[[], None] | None = None,
    noise: str = "",
) -> Child:
    """Start ``argv`` (an absolute program and its arguments) under a supervisor.

    ``env`` is added to our environment, or to as much of it as the names in ``inherit`` match. ``document`` is the
    one JSON line that the child reads from its standard input; secrets belong there, never in ``argv`` or
    ``env``. The files in ``unlink`` are removed after the child's end. ``grace`` is how
    many seconds it gets between SIGTERM and SIGKILL.
    ``on_end`` is called from the loop once it is gone with all that it started, however that came about.
    ``noise`` is a regular expression of what is left out of its reasons: see ``LaunchSpec.log_noise``.

    Call it from a thread that lives as long as the child shall: the kernel ends the supervisor when the
    thread that started it ends. A program that can't be run is a child that exits with 127, the reason on
    its standard error. Raises ``OSError`` where not even the supervisor can be started. Cancelling the call
    ends what was started.
    """
    child = Child(asyncio.get_running_loop(), grace, on_message, on_line, on_end, noise)
    order = {
        "parent": os.getpid(),
        "argv": list(argv),
        "env": _inherited(inherit) | dict(env or {}),
        "document": dict(document or {}),
        "unlink": [str(path) for path in unlink],
        "grace": grace,
    }
    try:
        await child._open(json.dumps(order).encode() + b"\n")
    except BaseException:
        child._started.cancel()
        if child in _children:  # its supervisor runs
            await child.aclose()
        raise
    return child


def _inherited(names: re.Pattern[str] | None) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if names is None or names.fullmatch(name)}


def close_all() -> None:
    """Let go of every child of this process at once: each ends by itself, with all that it started.

    Needs no loop, thread or await; safe from any thread, at interpreter exit, and more than once.
    """
    for child in list(_children):
        child.let_go()


class Child:
    """One program under its supervisor."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        grace: float,
        on_message: OnMessage | None,
        on_line: OnLine | None,
        on_end: Callable[[], None] | None,
        noise: str,
    ) -> None:
        self.pid = 0
        """The program's own process id, which is also its process group's."""
        self._loop = loop
        self._grace = grace
        self._on_message = on_message
        self._on_line = on_line
        self._at_end = on_end
        self._noise = re.compile(noise) if noise else None
        self._started: asyncio.Future[None] = loop.create_future()
        self._exit: asyncio.Future[Exit] = loop.create_future()
        self._report: dict[str, int | None] | None = None
        self._supervisor = 0
        self._control = self._stdout = self._stderr = -1
        self._news, self._output = bytearray(), bytearray()
        self._printed, self._tail = bytearray(), bytearray()
        """The last of its standard output that isn't JSON, and of its standard error."""
        self._logged = bytearray()
        """The line of its standard error that isn't finished yet."""

    async def wait(self) -> Exit:
        """How it ended; returns once it has, with everything it started. Any number of callers."""
        return await asyncio.shield(self._exit)

    @property
    def ended(self) -> bool:
        """Whether ``wait`` would return at once."""
        return self._exit.done()

    def reason(self) -> str:
        """The last lines that it logged: of its standard error, and before them of standard output that isn't JSON.

        Where it is known what in them is noise, they are the lines that say something, each once; unless none does.
        """
        logged = (self._printed + b"\n" + self._tail).decode(errors="replace")
        text = HUNG.sub(r"it hung, for longer than \1 (h:mm:ss), here:", logged)
        lines = [line.rsplit("\r", 1)[-1].rstrip() for line in text.splitlines()]
        if self._noise is not None:
            told = [self._noise.sub("", line).strip() for line in lines]
            once = [*dict.fromkeys(line for line in reversed(told) if line)][::-1]
            lines = once or lines
        return "\n".join([line for line in lines if line][-LONGEST_REASON:])[-4000:]

    def let_go(self) -> None:
        """Have it end, without waiting. Idempotent; safe from any thread and without a loop."""
        with suppress(OSError):
            if self._control >= 0:
                # A closed copy would not do: a process that was forked off us may hold another.
                control = socket.socket(fileno=self._control)
                try:
                    control.shutdown(socket.SHUT_WR)
                finally:
                    control.detach()

    async def aclose(self) -> None:
        """End it and all that it started; returns when they are gone. Idempotent, and bounded in time."""
        self.let_go()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._grace + MARGIN):
                await self.wait()
                return
        log.warning("process %d did not end in time: killing it with its supervisor", self.pid)
        self._kill(self._supervisor)
        with suppress(TimeoutError):
            async with asyncio.timeout(MARGIN):
                await self.wait()

    # -- what follows is between spawn(), the loop and the supervisor

    async def _open(self, order: bytes) -> None:
        """Start the supervisor, give it the order, and wait until the child runs."""
        _children.add(self)
        control, far = socket.socketpair()
        control.setblocking(False)
        self._stdout, stdout = os.pipe()
        self._stderr, stderr = os.pipe()
        try:
            self._control = control.fileno()
            self._supervisor = os.posix_spawn(  # noqa: ASYNC221 - about a millisecond
                sys.executable,
                [sys.executable, "-I", "-S", SUPERVISOR],
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, far.fileno(), 0),
                    (os.POSIX_SPAWN_DUP2, stdout, 1),
                    (os.POSIX_SPAWN_DUP2, stderr, 2),
                ],
                setsid=True,  # the terminal's Ctrl-C is ours to act on
                setsigmask=(),
            )
        except BaseException:
            _children.discard(self)
            self._close()
            control.detach()
            raise
        finally:
            far.close()
            os.close(stdout)
            os.close(stderr)
        for fd, react in (
            (self._control, self._on_control),
            (self._stdout, self._on_stdout),
            (self._stderr, self._on_stderr),
        ):
            os.set_blocking(fd, False)
            self._loop.add_reader(fd, react)
        try:
            with suppress(BrokenPipeError):  # it is gone: _started says why
                await self._loop.sock_sendall(control, order)
        finally:
            control.detach()  # from here on by its number, which needs no closing at interpreter exit
        await self._started

    def _on_control(self) -> None:
        data = _read(self._control)
        if data is None:
            return
        self._news += data
        *lines, self._news = self._news.split(b"\n")
        for news in map(json.loads, lines):
            if "pid" in news:
                self.pid = news["pid"]
                if not self._started.done():
                    self._started.set_result(None)
            else:
                self._report = news
        if not data:
            self._on_end()

    def _on_stdout(self) -> None:
        data = _read(self._stdout)
        if data is None:
            return
        if not data:
            self._stdout = self._stop_reading(self._stdout)
        self._output += data
        *lines, self._output = self._output.split(b"\n")
        for line in lines:
            self._take_line(bytes(line))
        if len(self._output) > 16 * TAIL:  # no line of the protocol's
            _keep(self._printed, self._output)
            self._output.clear()

    def _take_line(self, line: bytes) -> None:
        message = None
        if line.startswith(b"{"):
            with suppress(ValueError, RecursionError):
                message = json.loads(line)
        if message is None:
            _keep(self._printed, line + b"\n")
            self._tell(line)
        elif self._on_message is not None:
            self._on_message(message)

    def _on_stderr(self) -> None:
        data = _read(self._stderr)
        if data:
            _keep(self._tail, data)
            self._logged += data
            *lines, self._logged = self._logged[-TAIL:].split(b"\n")
            for line in lines:
                self._tell(line)
        elif data is not None:
            self._stderr = self._stop_reading(self._stderr)

    def _tell(self, line: bytes | bytearray) -> None:
        if self._on_line is not None:
            self._on_line(line.decode(errors="replace").rstrip().rsplit("\r", 1)[-1])

    def _on_end(self) -> None:
        """The supervisor is gone, whatever became of it."""
        self._control = self._stop_reading(self._control)
        if self._report is None and self.pid:
            self._kill()  # the supervisor was killed before it had cleaned up
        for react in (self._on_stdout, self._on_stderr):  # what is still in the pipes, but no more than that
            for _ in range(4):
                react()
        self._stdout = self._stop_reading(self._stdout)
        self._stderr = self._stop_reading(self._stderr)
        _keep(self._printed, self._output)
        for unfinished in filter(None, (self._output, self._logged)):
            self._tell(unfinished)
        self._reap()

    def _reap(self) -> None:
        try:
            pid, status = os.waitpid(self._supervisor, os.WNOHANG)
        except ChildProcessError:  # somebody else in this process waits for all children
            pid, status = self._supervisor, 0
        if pid == 0:
            self._loop.call_later(0.005, self._reap)  # between the closing of its files and its end
            return
        _children.discard(self)
        code = os.waitstatus_to_exitcode(status)
        ended = self._report or {"code": code if code >= 0 else None, "signal": -code if code < 0 else None}
        if self._at_end is not None:
            self._at_end()
        self._exit.set_result(Exit(ended["code"], ended["signal"], self.reason()))
        if not self._started.done():
            self._started.set_exception(OSError(errno.ECHILD, f"the supervisor ended early: {self.reason()}"))

    def _kill(self, *others: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            if self.pid:
                os.killpg(self.pid, signal.SIGKILL)
        for pid in others:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _stop_reading(self, fd: int) -> int:
        if fd >= 0:
            self._loop.remove_reader(fd)
            os.close(fd)
        return -1

    def _close(self) -> None:
        """Close our ends and nothing else: in a forked copy, the loop's selector is still the original's."""
        for fd in (self._control, self._stdout, self._stderr):
            if fd >= 0:
                os.close(fd)
        self._control = self._stdout = self._stderr = -1


def _keep(tail: bytearray, data: bytes | bytearray) -> None:
    """Add to what is kept of a log: its end."""
    tail += data
    if len(tail) > 2 * TAIL:
        del tail[:-TAIL]


def _read(fd: int) -> bytes | None:
    """What is there to read: nothing at the end, None where there is nothing yet."""
    if fd < 0:
        return None
    try:
        return os.read(fd, 65536)
    except BlockingIOError:
        return None
    except ConnectionError:
        return b""


_children: set[Child] = set()


def _forget_all() -> None:
    """In a forked copy of us: a pipe end kept here would keep an engine alive after we were killed."""
    for child in _children:
        child._close()
    _children.clear()


os.register_at_fork(after_in_child=_forget_all)
