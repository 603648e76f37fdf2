"""What code does besides computing: files, sockets, threads, processes, and what it leaves changed."""

from __future__ import annotations

import asyncio
import locale
import logging
import os
import signal
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["Effects"]

MOST = 20
"""Effects that are worth noting."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES_FILES = frozenset(
    {
        "os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink",
        "os.truncate", "os.utime", "shutil.copyfile", "shutil.move", "shutil.rmtree", "sqlite3.connect",
        "tempfile.mkdtemp", "tempfile.mkstemp",
    }
)  # fmt: skip
STARTS_PROCESS = frozenset(
    {
        "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "pty.spawn",
        "subprocess.Popen",
    }
)  # fmt: skip
HARMLESS_SOCKETS = frozenset({"socket.gethostname"})
HARMLESS_FILES = frozenset({os.devnull, "/dev/urandom", "/dev/random"})


class Effects:
    """Notes effects while it is on; made once for a process, since an audit hook can't be taken back."""

    def __init__(self) -> None:
        self._on = False
        self._seen: list[tuple[str, str]] = []
        self._own = tuple(
            {os.path.realpath(each) + os.sep for each in [*sys.path, sys.prefix, sys.base_prefix]}
        )
        self._state: dict[str, Any] = {}
        self._before: tuple[set[str], set[str]] = set(), set()
        self._library = sysconfig.get_path("stdlib") + os.sep
        sys.addaudithook(self._note)
        start = threading.Thread.start

        def noted(thread: threading.Thread) -> None:  # there is no event of it in Python 3.11
            self._note("_thread.start", (thread.name,))
            start(thread)

        threading.Thread.start = noted  # type: ignore[method-assign,assignment]

    def allow(self, folders: Iterable[str]) -> None:
        """Files in these may be read, as all may that are installed."""
        self._own += tuple(os.path.realpath(each) + os.sep for each in folders)

    def watch(self) -> None:
        """Begin to note."""
        self._seen = []
        self._state = dict(_state())
        self._before = _descriptors(), _threads()
        self._on = True

    def found(self) -> list[tuple[str, str]]:
        """What was noted since ``watch``, as pairs: "file", "socket", "thread", "process" or "state", and what."""
        self._on = False
        seen = list(dict.fromkeys(self._seen))[:MOST]
        kinds = {kind for kind, _ in seen}
        descriptors, threads = self._before
        if "thread" not in kinds and _threads() - threads:
            seen.append(("thread", "a thread is left running"))
        left = _descriptors() - descriptors
        if left and "file" not in kinds and "socket" not in kinds:
            seen.append(("file", f"it is left open: {', '.join(sorted(left)[:3])}"))
        now = dict(_state())
        seen += [
            ("state", f"{name} was {_short(before)} and is {_short(now[name])}")
            for name, before in self._state.items()
            if now[name] != before
        ]
        return seen

    def _note(self, event: str, given: tuple[Any, ...]) -> None:
        if not self._on or len(self._seen) > 10 * MOST:
            return
        kind = self._kind(event, given)
        if kind is None:
            return
        frame = sys._getframe(1)
        if kind == "file" and frame.f_code.co_filename.startswith("<frozen "):
            return  # the import system's own
        self._seen.append((kind, f"{event}{_shown(given)}{self._where(frame)}"))

    def _kind(self, event: str, given: tuple[Any, ...]) -> str | None:
        if event == "open":
            return "file" if self._is_foreign(*given) else None
        if event in CHANGES_FILES:
            return "file"
        if event in STARTS_PROCESS:
            return "process"
        if event.startswith("_thread.start"):
            return "thread"
        if event.startswith("socket.") and event not in HARMLESS_SOCKETS:
            return "socket"
        return None

    def _is_foreign(self, path: Any, mode: Any, flags: Any) -> bool:
        """Whether opening this is more than reading what is installed."""
        if isinstance(path, int):
            return False
        name = os.fsdecode(path)
        if name in HARMLESS_FILES:
            return False
        written = any(each in (mode or "") for each in "wax+")
        if written or (isinstance(flags, int) and flags & WRITES):
            return True
        return not os.path.realpath(name).startswith(self._own)

    def _where(self, frame: Any) -> str:
        """The line that is to blame: the innermost that is not the standard library's."""
        each = frame
        while each is not None:
            name = each.f_code.co_filename
            installed = f"{os.sep}site-packages{os.sep}" in name
            if (
                name != __file__
                and not name.startswith("<")
                and (installed or not name.startswith(self._library))
            ):
                return f" at {name}:{each.f_lineno}"
            each = each.f_back
        return ""


def _state() -> Iterator[tuple[str, Any]]:
    """What all code of a process shares, and no plugin has for itself."""
    yield "the working directory", _tried(os.getcwd)
    mask = os.umask(0)
    os.umask(mask)
    yield "the umask", mask
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGCHLD,
        signal.SIGPIPE,
        signal.SIGALRM,
    ):
        yield f"the handler of {number.name}", signal.getsignal(number)
    yield "sys.stdout", id(sys.stdout)
    yield "sys.stderr", id(sys.stderr)
    yield "sys.excepthook", sys.excepthook
    yield "the recursion limit", sys.getrecursionlimit()
    yield "the root logger's handlers", list(logging.getLogger().handlers)
    yield "the root logger's level", logging.getLogger().level
    yield "what logging disables", logging.root.manager.disable
    yield "the locale", _tried(lambda: locale.setlocale(locale.LC_ALL))
    yield "the event loop policy", getattr(asyncio.events, "_event_loop_policy", None)


def _tried(look: Callable[[], Any]) -> Any:
    try:
        return look()
    except (OSError, locale.Error) as error:
        return repr(error)


def _descriptors() -> set[str]:
    """What is open, where that can be known."""
    found = set()
    folder = Path("/proc/self/fd")
    try:
        for each in folder.iterdir():
            try:
                found.add(f"{each.name} ({os.readlink(each)})")
            except OSError:
                continue  # of the look itself
    except OSError:
        return set()
    return found


def _threads() -> set[str]:
    """The threads, Python's or not, where that can be known."""
    try:
        return set(os.listdir("/proc/self/task"))
    except OSError:
        return {str(each.native_id) for each in threading.enumerate()}


def _shown(given: tuple[Any, ...]) -> str:
    return f"({', '.join(_short(each) for each in given[:2])})"


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:
        text = object.__repr__(value)
    return text if len(text) <= 120 else f"{text[:120]}…"
