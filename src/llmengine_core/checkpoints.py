"""What a checkpoint is, told from its content.

Names lie and headers don't: a format is recognised by first bytes, and a folder by the files that its format
prescribes. Everything here is a pure function of file sizes and first bytes. Whoever reads the files, from a
disk or from a storage, begins with none of them and serves each ``MoreNeeded`` until there is an answer; no
more than headers and small configuration files are ever asked for.

The same decides what must be fetched of a checkpoint that lies elsewhere: one form of the weights, the first
that engines look for, and the small files that belong to it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from llmengine_core import gguf, safetensors_header, tar
from llmengine_core.gguf import BadHeader, MoreBytes
from llmengine_core.sizes import cache_by_config, cache_by_header
from llmengine_core.tar import BadArchive
from llmengine_core.types.plan import CheckpointFacts, Problem

__all__ = ["Description", "MoreNeeded", "describe", "within"]

SNIFF = 4096
"""Bytes that tell a format."""
SNIFFED = 8
"""Files of a folder, the largest ones, whose format is told."""
HEAD = 64 << 10
"""Bytes that hold most headers of shards."""
MOST_CHECKED = 32
"""Shards whose headers are read; those of more are taken to be like these."""
CONFIG_LIMIT, INDEX_LIMIT = 1 << 20, 16 << 20
"""Bytes of config.json and of the index of shards; larger ones are refused."""
BESIDE_LIMIT = 256 << 20
"""Bytes of a file that belongs to the weights; the largest tokenizers take about 35 MB."""
WHOLE = {"safetensors": "model.safetensors", "pytorch": "pytorch_model.bin"}
"""Weights in one file, as engines look for them first."""
INDEXES = {kind: f"{name}.index.json" for kind, name in WHOLE.items()}
"""The list of their shards, which they look for next."""
ADAPTERS = {"safetensors": "adapter_model.safetensors", "pytorch": "adapter_model.bin"}
BESIDE = (
    "*config.json", "tokenizer.json", "tokenizer.model*", "special_tokens_map.json", "added_tokens.json",
    "chat_template.jinja", "chat_template.json", "vocab.json", "vocab.txt", "merges.txt", "spiece.model",
    "sentencepiece*.model", "*.tiktoken", "tekken.json", "normalizer.json",
)  # fmt: skip
"""Files that say how weights are used: configurations, tokenizers, templates."""
FORBIDDEN = re.compile("[\x00-\x1f\x7f\ud800-\udfff\\\\]")
"""Characters that no file's name has here."""
OTHER_FORMS = re.compile(r"consolidated\b.*|(optimizer|scheduler|training_args|rng_state)\b.*")
"""Weights in their makers' own form, and what training leaves behind."""
WIDTHS = {"float32": 4, "float16": 2, "bfloat16": 2}
"""Bytes of a weight, by the name of its type in config.json."""
MOST_PARTS = 1000
"""Of a split GGUF model."""
MOST_NAMED = 40
"""Files that a message names."""
PICKLED = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How PyTorch files began before they were zip archives."""
STRANGERS: tuple[tuple[bytes, str, str | None], ...] = (
    (b"version https://git-lfs", "it is only a Git LFS pointer to the weights", "git lfs pull"),
    (b"<!doctype html", "it is a web page, not weights", None),
    (b"<html", "it is a web page, not weights", None),
    (b"lmgg", "it is in the GGML format that came before GGUF", "convert it to GGUF"),
    (b"fmgg", "it is in the GGMF format that came before GGUF", "convert it to GGUF"),
    (b"tjgg", "it is in the GGJT format that came before GGUF", "convert it to GGUF"),
)


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


def describe(url: str, sizes: Mapping[str, int], heads: Mapping[str, bytes], *, folder: bool) -> Description:
    """Describe the file or folder at ``url``.

    ``sizes`` holds the bytes of each file by name (of the one file, where it isn't a folder), with "/" for those
    in folders below as far as they are known, ``heads`` the first bytes of those that were asked for. What can't be
    used comes back with a ``Problem``. Raises only ``MoreNeeded``.
    """
    files = _Files(sizes, heads)
    try:
        if folder:
            return _describe_folder(url, files)
        (name,) = sizes
        return Description(_describe_file(url, name, files), None, (name,))
    except BadHeader as error:
        problem = Problem(f"the checkpoint {url} can't be used: {error.reason}", error.mend)
        return Description(CheckpointFacts(url=url, size=sum(sizes.values()), problem=problem))


class _Files:
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
        if head.startswith(PICKLED) or (head.startswith(b"PK\x03\x04") and b"/data.pkl" in head):
            return "pytorch"
        try:
            return tar.kind_of(head)
        except BadArchive as error:
            raise BadHeader(error.reason, error.mend) from None


def _describe_file(url: str, name: str, files: _Files) -> CheckpointFacts:
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
                url=url, format="safetensors", size=size, parameters=_parameters(files, [name])
            )
        case "pytorch":
            return CheckpointFacts(url=url, format="pytorch", size=size)
        case "tar" | "tar.gz" | "tar.zst" as kind:
            return CheckpointFacts(url=url, archive=kind)
    head = files.head(name, SNIFF)
    for start, reason, mend in STRANGERS:
        if head[: len(start)].lower() == start:
            raise BadHeader(reason, mend)
    raise BadHeader(
        "it is in no format that is known here (GGUF, safetensors, PyTorch, or an archive of these)"
    )


def _describe_folder(url: str, files: _Files) -> Description:
    here = sorted(
        (name for name in files.sizes if "/" not in name), key=lambda name: (-files.sizes[name], name)
    )
    largest = here[:SNIFFED]
    files.want(dict.fromkeys(largest, SNIFF))
    weights: dict[str | None, list[str]] = {}
    for name in largest:
        weights.setdefault(files.kind(name), []).append(name)
    if "adapter_config.json" in files.sizes:
        return _describe_adapter(url, files, weights)
    for kind in WHOLE:
        if kind in weights and ("config.json" in files.sizes or "gguf" not in weights):
            return _describe_hugging_face(url, files, kind, weights[kind])
    if "gguf" in weights:
        return _describe_gguf_folder(url, files, sorted(weights["gguf"]))
    for kind in ("tar", "tar.gz", "tar.zst"):
        if packed := weights.get(kind):
            raise BadHeader(
                f"there are no weights in the folder, but the archive {packed[0]!r}",
                f"name the archive: …/{packed[0]}",
            )
    some = ", ".join(sorted(here)[:5]) or "nothing"
    raise BadHeader(f"no weights were found in the folder (it holds {some}{', …' * (len(here) > 5)})")


def _describe_adapter(url: str, files: _Files, weights: Mapping[str | None, list[str]]) -> Description:
    """One that goes on a base model, as PEFT saves it; what else its training left there isn't its."""
    for kind, name in ADAPTERS.items():
        if name in weights.get(kind, ()):
            break
    else:
        kinds = [kind for kind in ADAPTERS if kind in weights]
        if not kinds:
            raise BadHeader("it has an adapter_config.json, but no adapter weights")
        kind, name = kinds[0], weights[kinds[0]][0]
    if kind == "safetensors":
        _parameters(files, [name])  # it is whole
    base = _text(files.json("adapter_config.json", CONFIG_LIMIT), "base_model_name_or_path")
    facts = CheckpointFacts(url=url, format="adapter", size=files.sizes[name], base=base)
    return Description(facts, None, (name, "adapter_config.json"))


# -- GGUF -------------------------------------------------------------------------------------------------------


def _gguf_header(name: str, files: _Files) -> gguf.GGUFHeader:
    try:
        return gguf.read_header(files.head(name, SNIFF), files.sizes[name])
    except MoreBytes as more:
        raise MoreNeeded({name: more.stop}) from None


def _describe_gguf(url: str, name: str, files: _Files) -> tuple[CheckpointFacts, int]:
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


def _describe_gguf_folder(url: str, files: _Files, names: list[str]) -> Description:
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


# -- Hugging Face folders ---------------------------------------------------------------------------------------


def _describe_hugging_face(url: str, files: _Files, kind: str, names: list[str]) -> Description:
    if "config.json" not in files.sizes:
        raise BadHeader(f"the folder holds {kind} weights, but no config.json that says what they are")
    config = files.json("config.json", CONFIG_LIMIT)
    listed, shards = _shards(files, kind, names)
    size = sum(files.sizes[name] for name in shards)
    model = config["text_config"] if isinstance(config.get("text_config"), dict) else config
    method = _stored(config.get("quantization_config"))
    parameters = None
    if kind == "safetensors":  # their headers also tell whether they are whole
        parameters = _parameters(files, shards[:MOST_CHECKED])
    if kind == "pytorch" or len(shards) > MOST_CHECKED or (method and len(shards) > 1):
        width = WIDTHS.get(str(model.get("dtype") or model.get("torch_dtype") or config.get("torch_dtype")))
        parameters = size // width if width and not method else None
    remote_code = bool(config.get("auto_map"))
    facts = CheckpointFacts(
        url=url,
        format=kind,
        size=size,
        quantization=method,
        architecture=_text(model, "model_type"),
        parameters=parameters,
        context_length=_count(model, "max_position_embeddings", "n_positions", "max_sequence_length"),
        heads=_count(model, "num_attention_heads", "n_head", "num_heads"),
        cache_bytes=cache_by_config(model),
        remote_code=remote_code,
    )
    return Description(facts, None, (*shards, *listed, *_beside(files, code=remote_code)))


def _parameters(files: _Files, names: list[str]) -> int:
    """How many weights safetensors files hold; each of them is whole."""
    if len(names) > 1:
        files.want(dict.fromkeys(names, HEAD))
    wanted: dict[str, int] = {}
    parameters = 0
    for name in names:
        try:
            parameters += safetensors_header.count_parameters(files.heads.get(name, b""), files.sizes[name])
        except MoreBytes as more:
            wanted[name] = max(more.stop, min(SNIFF, files.sizes[name]))
        except BadHeader as error:
            raise BadHeader(f"{name}: {error.reason}", error.mend) from None
    if wanted:
        raise MoreNeeded(wanted)
    return parameters


def _beside(files: _Files, *, code: bool) -> list[str]:
    """What belongs to the weights of a folder: what says how they are used, and their code if they need it."""
    patterns = (*BESIDE, *(["*.py"] if code else []))
    names = [name for name in files.sizes if "/" not in name]
    found = sorted(name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns))
    for name in found:
        if files.sizes[name] > BESIDE_LIMIT:
            raise BadHeader(f"its {name} has {files.sizes[name]:,} bytes; at most {BESIDE_LIMIT:,} are taken")
    return found


def _stored(quantization: object) -> str | None:
    """How weights are quantized, as their config.json names it.

    One name stands for the three ways of bitsandbytes: 8 bits have it here, those of 4 bits are told apart by their
    type, fp4 where none is given. Before methods had names only bitsandbytes stored any.
    """
    if not isinstance(quantization, dict):
        return None
    named = (_text(quantization, "quant_method") or "").lower()
    if named in ("", "bitsandbytes"):
        if quantization.get("load_in_4bit"):
            return f"bitsandbytes-{_text(quantization, 'bnb_4bit_quant_type') or 'fp4'}"
        return "bitsandbytes" if named or quantization.get("load_in_8bit") else None
    return named


def _shards(files: _Files, kind: str, names: list[str]) -> tuple[list[str], list[str]]:
    """The index of the weights, if they have one, and the files that hold them; all of these are here.

    One form of the weights is taken: what engines look for first. Another precision beside it, as in
    model.fp16.safetensors, is not.
    """
    whole, index = WHOLE[kind], INDEXES[kind]
    if whole in names:
        return [], [whole]
    if index not in files.sizes:
        ending = names[0].rpartition(".")[2]
        here = [each for each in files.sizes if each.endswith(f".{ending}") and "/" not in each]
        shards = [*names, *sorted(set(here).difference(names))]
        proper = [each for each in shards if not _another_form(each, shards)]
        return [], proper or shards
    placed = files.json(index, INDEX_LIMIT).get("weight_map")
    if not isinstance(placed, dict) or not all(isinstance(name, str) for name in placed.values()):
        raise BadHeader(f"its {index} has no weight_map of texts")
    shards = sorted(set(placed.values()))
    if outside := [name for name in shards if not within(name)]:
        raise BadHeader(f"its {index} names {outside[0]!r}, which is not in its folder")
    if missing := files.missing(shards):
        raise BadHeader(f"{len(missing)} of its {len(shards)} shards are missing, the first is {missing[0]}")
    if not shards:
        raise BadHeader(f"its {index} names no weights")
    return [index], shards


def within(name: str) -> bool:
    """Whether a relative name stays in its folder, on any system: "a/b.bin" does, "../b.bin" and "/b.bin" don't."""
    return not FORBIDDEN.search(name) and all(part not in ("", ".", "..") for part in name.split("/"))


def _another_form(name: str, names: list[str]) -> bool:
    """Whether a file holds the same weights as another in another precision, or none that are served."""
    stem, _, ending = name.rpartition(".")
    return bool(OTHER_FORMS.fullmatch(name)) or f"{stem.rpartition('.')[0]}.{ending}" in names


def _object(written: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(written)
    except (ValueError, RecursionError) as error:
        raise BadHeader(f"{what} is not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise BadHeader(f"{what} is not a JSON object")
    return found


def _text(config: Mapping[str, Any], key: str) -> str | None:
    """A text that isn't empty."""
    found = config.get(key)
    return found if isinstance(found, str) and found else None


def _count(config: Mapping[str, Any], *keys: str) -> int | None:
    """The first of these keys that holds a whole number of at least 1."""
    return next((config[key] for key in keys if type(config.get(key)) is int and config[key] > 0), None)
