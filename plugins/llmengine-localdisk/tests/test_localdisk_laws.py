"""The laws of storages, on folders of this machine."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from llmengine_core.testing import StorageContract


class TestLocalDisk(StorageContract):
    storage = "localdisk"

    def residue(self, url: str, keys: set[str]) -> list[str]:
        root = Path(unquote(urlsplit(url).path))
        found = []
        for folder, folders, files in os.walk(root):
            here = Path(folder).relative_to(root)
            found += [str(here / name) for name in files if (here / name).as_posix() not in keys]
            if not folders and not files and Path(folder) != root:
                found.append(f"{here}/")
        return found
