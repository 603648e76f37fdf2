"""PyTorch files on this machine: whether they are whole, and whether they hold nothing but weights.

Nothing is unpickled. Their pickles are read as what they are, a list of instructions, for the names that they would
import; weights need a few, and code that runs when it is loaded needs another.
"""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from pathlib import Path
from typing import IO

from llmengine_core.checkpoint_files import PICKLED, ZIPPED
from llmengine_core.gguf import BadHeader

__all__ = ["check_pickles"]

LIMIT = 32 << 20
"""Bytes of a pickle, which holds names and shapes; of a shard of ten gigabytes it takes about 50 KB."""
LISTING_LIMIT, TAIL = 32 << 20, 128 << 10
"""Bytes of a zip archive's list of its members, and of its end, where the list's size stands."""
PICKLES = 4
"""In a file of the old form, before its weights begin: mark, version, system, and what they are."""
NAMES = re.compile(
    r"torch\.(\w+Storage|Size|device|Tensor|dtype|b?float\w*|u?int\w*|q?u?int\w*|complex\w*|bits\w+|bool|half|double"
    r"|long|short|per_(tensor|channel)_\w+|strided|sparse_\w+|\w+_format|channels_last\w*)|torch\._utils\._rebuild_\w+|torch\._tensor\._rebuild_from_type_v2"
    r"|torch\.nn\.parameter\.(Parameter|Buffer)|torch\.(storage|cuda|sparse)\.\w+Storage"
    r"|torch\.serialization\._get_layout|torch\.torch_version\.TorchVersion"
    r"|collections\.(OrderedDict|defaultdict|Counter)|_codecs\.encode"
    r"|(builtins|__builtin__)\.(bytearray|complex|dict|frozenset|list|range|set|slice|tuple)"
    r"|numpy\.(_core|core)\.multiarray\.(_reconstruct|scalar)|numpy\.(dtype|ndarray)|numpy\.dtypes\.\w+"
)
"""What weights import. Engines' own lists are narrower: this one tells ahead what no weights need."""
STRINGS = frozenset(
    {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE", "STRING", "BINSTRING", "SHORT_BINSTRING"}
)
MEND = "save the weights as safetensors"


def check_pickles(path: Path) -> None:
    """Check a file of PyTorch's. Raises ``BadHeader`` where it is damaged, or would import what no weights need."""
    with path.open("rb") as file:
        head = file.read(len(PICKLED))
        file.seek(0)
        try:
            if head.startswith(ZIPPED):
                imports = _imports(io.BytesIO(_data(file)))
            elif head == PICKLED:
                pickles = io.BytesIO(file.read(LIMIT))
                imports = {name for _ in range(PICKLES) for name in _imports(pickles)}
            else:
                return
        except (
            ValueError,
            EOFError,
            zipfile.BadZipFile,
            NotImplementedError,
            RuntimeError,
            OverflowError,
            Warning,
        ) as error:
            raise BadHeader(f"{path.name} is truncated or damaged: {error}") from None
    if strange := sorted(name for name in imports if not NAMES.fullmatch(name)):
        named = ", ".join(name[:80] for name in strange[:5]) + ", …" * (len(strange) > 5)
        raise BadHeader(
            f"{path.name} holds more than weights: loading it would run {named}; nothing was run", MEND
        )


def _data(file: IO[bytes]) -> bytes:
    """The pickle of a zip archive."""
    size = _check_listing(file)
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        found = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(found) != 1 or len(set(names)) < len(names):
            raise ValueError("it doesn't hold one data.pkl, or some of its files twice")
        listed = archive.getinfo(found[0])
        if listed.compress_type != zipfile.ZIP_STORED or listed.file_size > LIMIT:
            raise ValueError(f"its {found[0]} is compressed, or has more than {LIMIT:,} bytes")
        if not 0 <= listed.header_offset < size:
            raise ValueError(f"its {found[0]} lies outside of it")
        return archive.read(listed)


def _check_listing(file: IO[bytes]) -> int:
    """See that the list of an archive's members is there, and not too long to be read; the archive's size."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - TAIL))
    tail = file.read(TAIL)
    end = tail.rfind(b"PK\x05\x06")
    length = int.from_bytes(tail[end + 12 : end + 16], "little")
    if length == 0xFFFFFFFF:  # it stands in a larger record before
        large = tail.rfind(b"PK\x06\x06", 0, end)
        length = int.from_bytes(tail[large + 40 : large + 48], "little") if large >= 0 else 0
    if end < 0:
        raise ValueError("the list of its files, which comes last, is missing")
    if length > LISTING_LIMIT:
        raise ValueError(f"the list of its files claims {length:,} bytes; at most {LISTING_LIMIT:,} are read")
    return size


def _imports(pickle: IO[bytes]) -> set[str]:
    """The names that a pickle would import; "?" for one that can't be told."""
    found: set[str] = set()
    pushed: list[object] = []  # as far as texts go: names are pushed right before they are used
    memo: dict[int, object] = {}
    for code, argument, _ in pickletools.genops(pickle):
        name = code.name
        if name in ("GLOBAL", "INST"):
            found.add(str(argument).replace(" ", "."))
        elif name == "STACK_GLOBAL":
            names = pushed[-2:]
            found.add(".".join(map(str, names)) if [type(each) for each in names] == [str, str] else "?")
        elif name.startswith("EXT"):
            found.add("?")
        if name in STRINGS:
            pushed.append(argument)
        elif name in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
            memo[len(memo) if argument is None else int(argument)] = pushed[-1] if pushed else None
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            pushed.append(memo.get(int(argument or 0)))
        else:
            pushed.append(None)
        del pushed[:-2]
    return found
