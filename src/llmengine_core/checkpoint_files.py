"""The files of a checkpoint, of which only the beginning is known, and what their first bytes tell."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmengine_core import gguf, safetensors_header, tar
from llmengine_core.gguf import BadHeader, MoreBytes
from llmengine_core.tar import BadArchive
from llmengine_core.types.plan import CheckpointFacts

__all__ = [
    "CONFIG_LIMIT",
    "PICKLED",
    "SNIFF",
    "ZIPPED",
    "Description",
    "Files",
    "MoreNeeded",
    "text_of",
    "within",
]

SNIFF = 4096
"""Bytes that tell a format."""
HEAD = 64 << 10
"""Bytes that hold most headers of shards."""
CONFIG_LIMIT = 1 << 20
"""Bytes of a configuration; larger ones are refused."""
FORBIDDEN = re.compile("[\x00-\x1f\x7f\ud800-\udfff\\\\]")
"""Characters that no file's name has here."""
PICKLED = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How PyTorch files began before they were zip archives."""
ZIPPED = b"PK\x03\x04"
"""How they begin since."""


class MoreNeeded(Exception):
    """The answer lies further into the files: read the first bytes of each that is ``wanted``, and ask again.

    0 bytes ask whether there is such a file in a folder below: add its size, or else no bytes to the heads.
    """

    def __init__(self, wanted: Mapping[str, int]) -> None:
        super().__init__(wanted)
        self.wanted = wanted


@dataclass(frozen=True, slots=True)
class Description:
    """What was found."""

    facts: CheckpointFacts
    file: str | None = None
    """The one of the folder's files that is the checkpoint; None where it is all of what was described."""
    needed: tuple[str, ...] = ()
    """The files that an engine needs, the weights first; of a folder these are a part."""


class Files:
    """Files of which only the beginning is known."""

    def __init__(self, sizes: Mapping[str, int], heads: Mapping[str, bytes]) -> None:
        self.sizes, self.heads = sizes, heads

    def want(self, wanted: Mapping[str, int]) -> None:
        """Have the first bytes of several files at once; fewer only where a file is shorter."""
        stops = {name: min(stop, self.sizes[name]) for name, stop in wanted.items()}
        short = {name: stop for name, stop in stops.items() if len(self.heads.get(name, b"")) < stop}
        if short:
            raise MoreNeeded(short)

    def head(self, name: str, stop: int) -> bytes:
        """The first ``stop`` bytes of a file; fewer only where the file is shorter."""
        self.want({name: stop})
        return self.heads.get(name, b"")

    def missing(self, names: Iterable[str]) -> list[str]:
        """Those that there are not."""
        absent = [name for name in names if name not in self.sizes]
        unknown = {name: 0 for name in absent if "/" in name and name not in self.heads}
        if unknown:
            raise MoreNeeded(unknown)
        return absent

    def json(self, name: str, limit: int) -> dict[str, Any]:
        """A whole small file that is a JSON object."""
        if self.sizes[name] > limit:
            raise BadHeader(f"its {name} is larger than {limit >> 20} MiB")
        return _object(self.head(name, limit), name)

    def kind(self, name: str) -> str | None:
        """The format of a file or the kind of an archive, by its first bytes; None where it isn't known."""
        size = self.sizes[name]
        head = self.head(name, SNIFF)[:SNIFF]
        if head.startswith(gguf.MAGIC):
            return "gguf"
        if head[8:10] in (b'{"', b"{}") and int.from_bytes(head[:8], "little") < max(size, 100_000_000):
            return "safetensors"
        if head.startswith(PICKLED) or (head.startswith(ZIPPED) and b"/data.pkl" in head):
            return "pytorch"
        try:
            return tar.kind_of(head)
        except BadArchive:  # of another kind
            return None

    def count_weights(self, names: Sequence[str]) -> int:
        """How many weights safetensors files hold; each of them is whole."""
        if len(names) > 1:
            self.want(dict.fromkeys(names, HEAD))
        wanted: dict[str, int] = {}
        parameters = 0
        for name in names:
            try:
                parameters += safetensors_header.count_parameters(self.heads.get(name, b""), self.sizes[name])
            except MoreBytes as more:
                wanted[name] = max(more.stop, min(SNIFF, self.sizes[name]))
            except BadHeader as error:
                raise BadHeader(f"{name}: {error.reason}", error.mend) from None
        if wanted:
            raise MoreNeeded(wanted)
        return parameters


def within(name: str) -> bool:
    """Whether a relative name stays in its folder, on any system: "a/b.bin" does, "../b.bin" and "/b.bin" don't."""
    return not FORBIDDEN.search(name) and all(part not in ("", ".", "..") for part in name.split("/"))


def _object(written: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(written)
    except (ValueError, RecursionError) as error:
        raise BadHeader(f"{what} is not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise BadHeader(f"{what} is not a JSON object")
    return found


def text_of(config: Mapping[str, Any], key: str) -> str | None:
    """A text that isn't empty."""
    found = config.get(key)
    return found if isinstance(found, str) and found else None
