"""The laws of storages, on folders of this machine."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from storage_laws import StorageLaws


def root_of(url: str) -> Path:
    return Path(unquote(urlsplit(url).path))


class TestLocalDisk(StorageLaws):
    factory = "llmengine_localdisk.storage:LocalDiskStorage"
    nests = False

    def fresh_url(self, folder: Path) -> str:
        return (folder / "objects, 100% {ours}").as_uri()

    def residue(self, url: str, keys: set[str]) -> list[str]:
        root = root_of(url)
        found = []
        for folder, folders, files in os.walk(root):
            here = Path(folder).relative_to(root)
            found += [str(here / name) for name in files if (here / name).as_posix() not in keys]
            if not folders and not files and Path(folder) != root:
                found.append(f"{here}/")
        return found
