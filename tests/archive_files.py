"""Writes archives: with the standard library's means, and by hand what it wouldn't write."""

from __future__ import annotations

import gzip
import io
import sys
import tarfile
from collections.abc import Mapping
from typing import Any


def packed(files: Mapping[str, bytes | None], *, form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar archive of contents by name, None for folders, by the standard library."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=form) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            if content is None:
                member.type = tarfile.DIRTYPE
            else:
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content or b""))
    return written.getvalue()


def compressed(content: bytes, kind: str) -> bytes:
    """The same as "tar", "tar.gz" or "tar.zst"."""
    if kind == "tar":
        return content
    if kind == "tar.gz":
        return gzip.compress(content, 1)
    module = zstd()
    parameter = module.CompressionParameter  # its program, too, writes a checksum unless told otherwise
    written: bytes = module.compress(
        content, options={parameter.compression_level: 1, parameter.checksum_flag: 1}
    )
    return written


def zstd() -> Any:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


def entry(
    name: str | bytes,
    content: bytes = b"",
    *,
    kind: bytes = b"0",
    link: str = "",
    mode: int = 0o644,
    size: int | None = None,
    long: bool = False,
) -> bytes:
    """One member as it stands in an archive, whatever it is; ``size`` may lie."""
    written = name.encode() if isinstance(name, str) else name
    before = b""
    if long:
        before = entry("././@LongLink", written + b"\0", kind=b"L")
        written = written[:90]
    count = len(content) if size is None else size
    digits = b"%011o\0" % count if 0 <= count < 8**11 else (count % 2**96).to_bytes(12, "big")
    if count >= 8**11:
        digits = b"\x80" + digits[1:]
    fields = [
        written.ljust(100, b"\0")[:100], b"%07o\0" % mode, b"0000000\0", b"0000000\0", digits, b"00000000000\0",
        b" " * 8, kind, link.encode().ljust(100, b"\0"), b"ustar\x0000", bytes(32), bytes(32), b"0000000\0",
        b"0000000\0", bytes(155), bytes(12),
    ]  # fmt: skip
    block = b"".join(fields)
    assert len(block) == 512
    block = block[:148] + b"%06o\0 " % sum(block) + block[156:]
    return before + block + content + bytes(-len(content) % 512)


def finished(*members: bytes) -> bytes:
    """An archive of members."""
    return b"".join(members) + bytes(1024)
