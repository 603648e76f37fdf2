"""What runs, how it is started, and where it answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Adapter", "Deployment", "Endpoint", "Exit", "LaunchSpec", "Resources"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What every replica of one pool runs. Equal keys share a pool."""

    backend: str
    version: str
    """Of the engine."""
    weights: str
    """A file or folder on this machine, ready to load."""
    weights_digest: str
    """Hex digest, or a fingerprint of the folder's files."""
    quantization: str | None = None
    tensor_parallel_size: int = 1
    context_length: int | None = None
    """Tokens for each request; None is what the model was trained for."""
    per_worker: int = 2
    """Most requests that one replica works on at once."""
    adapters: bool = False
    """Whether adapters can be loaded on it."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Launch options, JSON values: "cpus" where the spec says how many each worker gets, and the backend's own."""
    python: str = ""
    """The interpreter of the environment that its engine is in, absolute; "" for the one that runs us."""
    accelerator: str = "cpu"
    """What it computes on: "cpu", "cuda"."""
    load_options: Mapping[str, Any] = field(default_factory=dict)
    """What its quantizer says (``Quantizer.load_options``), JSON values."""
    masker: str | None = None
    """"package.module:Class" of the masker that runs in its process (``GuidedDecoderInfo.masker``)."""
    allow_remote_code: bool = False
    """Whether code that comes with the checkpoint may run."""
    subject: str = ""
    """What the weights are called, for people; "" for the name of their file. Makes no difference."""

    @property
    def key(self) -> str:
        """A digest of all that makes two replicas interchangeable; 16 hex digits."""
        facts = [
            self.weights_digest, self.backend, self.version, self.quantization, self.tensor_parallel_size,
            self.context_length, self.per_worker, self.adapters, dict(self.options), self.python,
            self.accelerator, dict(self.load_options), self.masker, self.allow_remote_code,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter on this machine, ready to load on the replicas of its base model."""

    name: str
    """A fingerprint of its files, so that what has changed has another name."""
    path: str
    """The folder, absolute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one replica takes of a machine."""

    threads: int = 1
    """Most that it is to compute on at once; a machine that is busy grants fewer."""
    memory: int = 0
    """Bytes."""
    gpus: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSpec:
    """How to start one replica, as data. A ``Runtime`` carries it out.

    The child reads one JSON line from its standard input: ``document`` with four members added: ``address``
    ("unix:/path" to listen on), ``key`` (what callers must present), and ``threads`` (how many it may compute
    on: at least 1, at most ``resources.threads``, fewer where other replicas have the cores of this machine), and
    ``memory`` (bytes of main memory that it may use at most).
    It then holds its input open and ends when that closes. It writes JSON lines to its standard output: any
    number of ``{"progress": 0.4, "phase": "load"}`` and one ``{"ready": true, ...}``, whose further members
    become ``Endpoint.facts``. Anything else there is no news: it is logged. A reason for failing goes to its
    standard error.
    """

    argv: tuple[str, ...]
    """The program, absolute, and its arguments; no secrets."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to what of the parent's environment holds no secrets; no secrets either."""
    document: Mapping[str, Any] = field(default_factory=dict)
    """JSON; may hold paths and options, no secrets."""
    resources: Resources = field(default_factory=Resources)
    subject: str = ""
    """What it serves, for people, in progress and errors."""
    log_noise: str = ""
    """A regular expression of what in a line that it logs tells nobody why it failed: the time, a summary. Left
    out of the reason for its end, with lines that say nothing else, unless that leaves none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a replica answers."""

    address: str
    """"unix:/path/to.sock" or "http://127.0.0.1:1234"."""
    key: str = field(repr=False)
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the child said of itself when it was ready; JSON."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a child ended."""

    code: int | None
    """Exit status, None where a signal ended it."""
    signal: int | None
    reason: str
    """The last that it wrote to its standard error, trimmed; may be empty."""

    def __str__(self) -> str:
        """In words, for messages."""
        ended = f"killed by signal {self.signal}" if self.signal is not None else f"exit status {self.code}"
        return f"{ended}; it last said: {self.reason}" if self.reason else ended
