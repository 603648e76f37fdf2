"""What a checkpoint is, told from its content.

Names lie and headers don't: a format is recognised by first bytes, and a folder by the files that its format
prescribes. Everything here is a pure function of file sizes and first bytes. Whoever reads the files, from a
disk or from a storage, begins with none of them and serves each ``MoreNeeded`` until there is an answer; no
more than headers and small configuration files are ever asked for.

The same decides what must be fetched of a checkpoint that lies elsewhere: one form of the weights, the first
that engines look for, and the small files that belong to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from llmengine_core import gguf, tar
from llmengine_core.checkpoint_files import SNIFF, Description, Files, MoreNeeded, within
from llmengine_core.gguf import BadHeader, MoreBytes
from llmengine_core.hugging_face import NAMED, describe_adapter, describe_model, preferred
from llmengine_core.sizes import cache_by_header
from llmengine_core.tar import BadArchive
from llmengine_core.types.plan import CheckpointFacts, Problem

__all__ = ["Description", "MoreNeeded", "describe", "within"]

SNIFFED = 8
"""Files of a folder, the largest ones, whose format is told."""
MOST_PARTS = 1000
"""Of a split GGUF model."""
MOST_NAMED = 40
"""Files that a message names."""
STRANGERS: tuple[tuple[bytes, str, str | None], ...] = (
    (b"version https://git-lfs", "it is only a Git LFS pointer to the weights", "git lfs pull"),
    (b"<!doctype html", "it is a web page, not weights", None),
    (b"<html", "it is a web page, not weights", None),
    (b"lmgg", "it is in the GGML format that came before GGUF", "convert it to GGUF"),
    (b"fmgg", "it is in the GGMF format that came before GGUF", "convert it to GGUF"),
    (b"tjgg", "it is in the GGJT format that came before GGUF", "convert it to GGUF"),
)


def describe(url: str, sizes: Mapping[str, int], heads: Mapping[str, bytes], *, folder: bool) -> Description:
    """Describe the file or folder at ``url``.

    ``sizes`` holds the bytes of each file by name (of the one file, where it isn't a folder), with "/" for those
    in folders below as far as they are known, ``heads`` the first bytes of those that were asked for. What can't be
    used comes back with a ``Problem``. Raises only ``MoreNeeded``.
    """
    files = Files(sizes, heads)
    try:
        if folder:
            return _describe_folder(url, files)
        (name,) = sizes
        return Description(_describe_file(url, name, files), None, (name,))
    except BadHeader as error:
        problem = Problem(f"the checkpoint {url} can't be used: {error.reason}", error.mend)
        return Description(CheckpointFacts(url=url, size=sum(sizes.values()), problem=problem))


def _describe_file(url: str, name: str, files: Files) -> CheckpointFacts:
    size = files.sizes[name]
    if not size:
        raise BadHeader("it is empty")
    match files.kind(name):
        case "gguf":
            facts, parts = _describe_gguf(url, name, files)
            if parts > 1:
                raise BadHeader(f"it is one of {parts} parts", "name the folder that holds them all")
            return facts
        case "safetensors":
            return CheckpointFacts(
                url=url, format="safetensors", size=size, parameters=files.count_weights([name])
            )
        case "pytorch":
            return CheckpointFacts(url=url, format="pytorch", size=size)
        case "tar" | "tar.gz" | "tar.zst" as kind:
            return CheckpointFacts(url=url, archive=kind)
    head = files.head(name, SNIFF)
    try:
        tar.kind_of(head)
    except BadArchive as error:
        raise BadHeader(error.reason, error.mend) from None
    for start, reason, mend in STRANGERS:
        if head[: len(start)].lower() == start:
            raise BadHeader(reason, mend)
    raise BadHeader(
        "it is in no format that is known here (GGUF, safetensors, PyTorch, or an archive of these)"
    )


def _describe_folder(url: str, files: Files) -> Description:
    here = sorted(
        (name for name in files.sizes if "/" not in name), key=lambda each: (-files.sizes[each], each)
    )
    weights = _formats(files, here)
    if "adapter_config.json" in files.sizes:
        return describe_adapter(url, files, weights)
    kind = preferred(weights, files)
    if kind is not None and ("config.json" in files.sizes or "gguf" not in weights):
        return describe_model(url, files, kind, weights[kind])
    if "gguf" in weights:
        return _describe_gguf_folder(url, files, sorted(weights["gguf"]))
    for kind in tar.KINDS:
        if packed := weights.get(kind):
            reason = f"there are no weights in the folder, but the archive {packed[0]!r}"
            raise BadHeader(reason, f"name the archive: …/{packed[0]}")
    some = ", ".join(sorted(here)[:5]) or "nothing"
    raise BadHeader(f"no weights were found in the folder (it holds {some}{', …' * (len(here) > 5)})")


def _formats(files: Files, here: list[str]) -> dict[str, list[str]]:
    """Files by their format, of those that may be weights: the largest ones, and those with names of weights."""
    sniffed = here[:SNIFFED]
    for ending in NAMED:
        found = [name for name in here if name.endswith(ending)]
        sniffed += found[:1]
        sniffed += [name for name in found if name.startswith(("model.", "pytorch_model.", "adapter_model."))]
    sniffed = list(dict.fromkeys(sniffed))
    files.want(dict.fromkeys(sniffed, SNIFF))
    formats: dict[str, list[str]] = {}
    for name in sniffed:
        if kind := files.kind(name):
            formats.setdefault(kind, []).append(name)
    return formats


# -- GGUF -------------------------------------------------------------------------------------------------------


def _gguf_header(name: str, files: Files) -> gguf.GGUFHeader:
    try:
        return gguf.read_header(files.head(name, SNIFF), files.sizes[name])
    except MoreBytes as more:
        raise MoreNeeded({name: more.stop}) from None


def _describe_gguf(url: str, name: str, files: Files) -> tuple[CheckpointFacts, int]:
    """What one GGUF file says, and how many parts the model was split into."""
    header = _gguf_header(name, files)
    architecture = header.text("general.architecture")
    if architecture is None:
        raise BadHeader("its metadata has no general.architecture")
    facts = CheckpointFacts(
        url=url,
        format="adapter" if header.text("general.type") == "adapter" else "gguf",
        size=files.sizes[name],
        quantization=header.quantization or None,
        architecture=architecture,
        parameters=header.parameters or None,
        context_length=header.number(f"{architecture}.context_length"),
        heads=header.number(f"{architecture}.attention.head_count"),
        cache_bytes=cache_by_header(lambda key: header.number(f"{architecture}.{key}")),
    )
    return facts, header.number("split.count") or 1


def _describe_gguf_folder(url: str, files: Files, names: list[str]) -> Description:
    """The one model in a folder, in one file or in parts, of which engines load the first."""
    others = {name for name in files.sizes if "/" not in name and name.endswith(".gguf")}
    first = names[0]
    facts, parts = _describe_gguf(url, first, files)
    stem = first.rpartition("-00001-of-")[0]
    expected = [f"{stem}-{part:05}-of-{parts:05}.gguf" for part in range(1, min(parts, MOST_PARTS) + 1)]
    if parts == 1:
        expected = [first]
    if several := others.union(names).difference(expected):
        named = sorted(several.union(expected).intersection(files.sizes))
        some = ", ".join(named[:MOST_NAMED]) + ", …" * (len(named) > MOST_NAMED)
        raise BadHeader(f"the folder holds several GGUF models: {some}", "name one of the files")
    if missing := [name for name in expected if name not in files.sizes]:
        raise BadHeader(f"{len(missing)} of its {parts} parts are missing, the first is {missing[0]!r}")
    if parts > 1:
        files.want(dict.fromkeys(expected, SNIFF))
        headers = {name: _gguf_header(name, files) for name in expected}
        for number, (name, header) in enumerate(headers.items()):
            if (header.number("split.no"), header.number("split.count")) != (number, parts):
                raise BadHeader(f"{name} is not part {number + 1} of {parts} of the model")
        size, elements = (
            sum(files.sizes[name] for name in expected),
            sum(h.parameters for h in headers.values()),
        )
        facts = replace(facts, size=size, parameters=elements or None)
    return Description(facts, first, tuple(expected))
