"""What of a plugin is judged, and on what: contracts of the kit's, or of the author's own test file."""

from __future__ import annotations

import importlib.util
import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from llmengine_core.testing.laws import Contract

__all__ = ["CONTRACTS", "FRESH", "KINDS", "Gap", "Subject", "contract_of", "of_file", "of_plugin"]

CONTRACTS: Mapping[str, str] = {
    "plugin": "PluginContract",
    "backend": "BackendContract",
    "lifecycle": "BackendLifecycleContract",
    "guided": "GuidedDecoderContract",
    "transform": "TransformContract",
    "quantizer": "QuantizerContract",
    "storage": "StorageContract",
    "store": "StoreContract",
    "runtime": "RuntimeContract",
    "observer": "ObserverContract",
}
"""By kind, in the order in which they are tried, the contract of ``llmengine_core.testing``."""
KINDS = tuple(CONTRACTS)
FRESH = "fresh_url"
"""The attribute of contracts that is a method; as data it is a URL below which, or with "{}" in which, each is new."""
FILE = "llmengine_conformance_contracts"
"""The name under which an author's file is imported."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One contract, and what it is about; as data, so that processes can tell each other."""

    kind: str
    subject: str
    """"llama_cpp on smollm2-135m-instruct"."""
    contract: str
    """A class of ``llmengine_core.testing``, or of the author's file."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """That it gets as a subclass; JSON."""
    laws: tuple[str, ...] = ()
    """The names of its laws, where they were asked for."""

    def as_json(self) -> dict[str, Any]:
        """For another process."""
        return asdict(self)

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Subject:
        """Of another process."""
        return cls(**{**said, "laws": tuple(said["laws"])})


@dataclass(frozen=True, slots=True)
class Gap:
    """Something that is declared and can't be judged, why not, and what mends that."""

    kind: str
    subject: str
    reason: str


def of_plugin(plugin: str, url: str | None = None) -> Subject:
    """The plugin itself. ``url`` is one that a storage or store of it can be made with."""
    urls = {"urls": {urlsplit(url).scheme: _fresh(url)}} if url else {}
    return Subject("plugin", plugin, CONTRACTS["plugin"], {"plugin": plugin, **urls})


def contract_of(subject: Subject, source: str | None) -> type[Contract]:
    """The class to be tried. ``source`` is the author's file or module, for a contract of it."""
    if not subject.attributes:
        own: type[Contract] = getattr(_module(source or ""), subject.contract)
        return own
    base = getattr(import_module("llmengine_core.testing"), subject.contract)
    attributes = {**subject.attributes, "subject": subject.subject}
    if FRESH in attributes:
        url: str = subject.attributes[FRESH]
        attributes[FRESH] = lambda self, folder: _fresh(url)
    made: type[Contract] = type(base.__name__, (base,), attributes)
    return made


def _fresh(url: str) -> str:
    name = uuid.uuid4().hex
    return url.replace("{}", name) if "{}" in url else f"{url.rstrip('/')}/{name}"


def of_file(source: str) -> Iterator[Subject]:
    """The contracts that an author's file or module tries: its classes named ``Test...``, or all where none is."""
    from llmengine_core.testing.laws import Contract

    module = _module(source)
    found = {
        name: each
        for name, each in vars(module).items()
        if isinstance(each, type) and issubclass(each, Contract) and each.__module__ == module.__name__
    }
    tests = {name: each for name, each in found.items() if name.startswith("Test")} or found
    for name, each in tests.items():
        about = [getattr(each, field, None) for field in ("subject", *CONTRACTS, "decoder")]
        yield Subject(each.kind, str(next(filter(None, about), name)), name)


def _module(source: str) -> ModuleType:
    if not source.endswith(".py"):
        return import_module(source)
    path = Path(source).absolute()
    if FILE in sys.modules:
        return sys.modules[FILE]
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(FILE, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{source} can't be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[FILE] = module
    spec.loader.exec_module(module)
    return module
