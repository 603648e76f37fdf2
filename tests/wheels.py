"""Wheels made on the spot, for real installers."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path

__all__ = ["make_wheel"]


def make_wheel(
    folder: Path,
    name: str,
    version: str = "1.0",
    *,
    requires: Sequence[str] = (),
    body: str = "",
    tag: str = "py3-none-any",
    scripts: Sequence[str] = (),
    padding: bytes = b"",
) -> Path:
    """A wheel of one package, ``name``, whose module holds ``body``; gives its path.

    ``scripts`` become programs that call ``main`` of the module. ``padding`` is a file in the package.
    """
    metadata = f"{name}-{version}.dist-info"
    required = "".join(f"Requires-Dist: {each}\n" for each in requires)
    entries = "".join(f"{each} = {name}:main\n" for each in scripts)
    files = {
        f"{name}/__init__.py": body.encode(),
        f"{name}/padding.bin": padding,
        f"{metadata}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{required}".encode(),
        f"{metadata}/WHEEL": f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
        f"{metadata}/entry_points.txt": f"[console_scripts]\n{entries}".encode(),
    }
    record = "".join(f"{path},sha256={_digest(content)},{len(content)}\n" for path, content in files.items())
    files[f"{metadata}/RECORD"] = f"{record}{metadata}/RECORD,,\n".encode()
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    return wheel


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
