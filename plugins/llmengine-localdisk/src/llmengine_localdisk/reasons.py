"""Why the operating system refused, and what mends it."""

from __future__ import annotations

import errno
from pathlib import Path

from llmengine_core.interfaces.storage import StorageError

__all__ = ["explained"]

_MENDS = {
    errno.EACCES: "give the user that runs this access to the folder, or choose another",
    errno.EPERM: "give the user that runs this access to the folder, or choose another",
    errno.EROFS: "mount the disk for writing, or choose a folder on another",
    errno.ENOSPC: "free some space on its disk, or choose a folder on another",
    errno.EDQUOT: "free some space within the quota, or choose a folder on another disk",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f), or choose a disk that takes such files",
    errno.ENAMETOOLONG: "shorten the key's segments; most disks take 255 bytes of UTF-8 in each",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the system's limit of open files",
    errno.EIO: "check the disk: it reports faults",
    errno.EXDEV: "open the disk that is mounted inside the folder by a URL of its own",
    errno.ENOLCK: "choose a folder on a disk that can lock files",
    errno.EOPNOTSUPP: "choose a folder on a disk that can lock files",
    errno.EILSEQ: "choose a key that the disk's file system can name",
    errno.EINVAL: "choose a key that the disk's file system can name",
}


def explained(error: OSError, doing: str, root: Path) -> StorageError:
    """The error to raise for one of the operating system: what failed, where, why, the mend."""
    name = errno.errorcode.get(error.errno or 0, "unknown")
    mend = _MENDS.get(error.errno or 0, "see to the folder and its disk")
    return StorageError(f"can't {doing} in {root}: {error.strerror or error} ({name}); {mend}")
