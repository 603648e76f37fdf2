"""Threads of this machine, shared by the replicas of all of a user's processes.

Replicas that compute on more threads than there are cores don't get slower by a part but fifty times: each
waits for threads that the others keep from running. So each core is a file, and a replica is told to compute
on as many threads as it got locks on such files. The kernel lets go of them when the process that started the
replica dies, as the replica does.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Sequence
from pathlib import Path

__all__ = ["Threads"]

log = logging.getLogger(__name__)


class Threads:
    """What one replica was granted, held until it is released or this process ends."""

    def __init__(self, folder: Path, wanted: int, *, subject: str, cores: Sequence[int]) -> None:
        """Take ``wanted`` threads, or as many as are free of ``cores``, the numbers of this process's own.

        Never waits. Where none is free one is granted all the same: a replica that shares a core is better
        than none. ``folder`` is the user's own, one for all of their processes. Raises ``OSError`` where
        there can be no files in it.
        """
        self._held: list[int] = []
        try:
            for core in cores:
                if len(self._held) < wanted:
                    self._take(folder / f"core-{core}")
        except BaseException:
            self.release()
            raise
        self.granted = max(1, len(self._held))
        """How many it is to compute on; at least 1."""
        if not self._held:
            log.info("%s computes on a core that is taken: other replicas have all %d", subject, len(cores))
        elif self.granted < wanted:
            log.info(
                "%s computes on %d threads, not %d: no more cores are free", subject, self.granted, wanted
            )

    def release(self) -> None:
        """Give all of them back. Idempotent."""
        held, self._held = self._held, []
        for descriptor in held:
            if (
                descriptor in _descriptors
            ):  # else this is a forked copy, in which the number may be anything's
                _descriptors.discard(descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_UN)  # also where somebody has a copy of it
                os.close(descriptor)

    def _take(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if not isinstance(error, BlockingIOError):
                raise
        else:
            _descriptors.add(descriptor)
            self._held.append(descriptor)


_descriptors: set[int] = set()


def _forget_all() -> None:
    """In a forked copy of us: a lock kept here would outlive the process that it was granted to."""
    for descriptor in _descriptors:
        os.close(descriptor)
    _descriptors.clear()


os.register_at_fork(after_in_child=_forget_all)
