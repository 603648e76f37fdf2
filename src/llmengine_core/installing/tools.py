"""The programs that install: uv where there is one, else venv and pip.

Both read the same files, ``FILES``, which lie in the environment afterwards, for people.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llmengine_core.recipes import Recipe, canonical, requirement
from llmengine_core.types.progress import OnProgress, Progress

__all__ = ["PIP", "Listener", "Tool", "find_tool", "uv"]

REQUIREMENTS, CONSTRAINTS, OVERRIDES, PROJECT = (
    "requirements.txt",
    "constraints.txt",
    "overrides.txt",
    "pyproject.toml",
)
ALONE = """\
# Keeps uv from taking the settings of a project around this folder, and the constraints of its workspace.
[tool.uv.workspace]
"""

TAKEN_OVER = {
    "PIP_INDEX_URL": ("UV_DEFAULT_INDEX", ("UV_INDEX_URL",)),
    "PIP_EXTRA_INDEX_URL": ("UV_INDEX", ("UV_EXTRA_INDEX_URL",)),
    "PIP_FIND_LINKS": ("UV_FIND_LINKS", ()),
    "PIP_CERT": ("SSL_CERT_FILE", ()),
}
"""pip's variables, uv's that says the same, and others of uv's that would say it too."""
YES = frozenset({"1", "on", "t", "true", "y", "yes"})
"""What pip takes for yes; uv has no variable for that."""
SOURCES = ("INDEX", "INDEX_URL", "DEFAULT_INDEX", "EXTRA_INDEX_URL", "FIND_LINKS", "NO_INDEX")
"""What a variable of uv's or pip's names a source of distributions by."""


PLAIN = ("--color", "never")
UV_VENV = (*PLAIN, "venv", "--quiet", "--no-project", "--relocatable", "--no-python-downloads", "--python")
PIP_VENV = ("-I", "-m", "venv")
PIP_INSTALL = (
    "-I", "-m", "pip", "install", "--no-input", "--no-color", "--progress-bar", "off",
    "--disable-pip-version-check", "--no-warn-script-location",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tool:
    """A program that makes environments and installs into them."""

    name: str
    """"uv" or "pip"."""
    argv: tuple[str, ...]
    """How it is called."""

    def make(self, folder: Path) -> list[str]:
        """The command that makes an empty environment of the running Python in an empty folder."""
        if self.name == "uv":
            return [*self.argv, *UV_VENV, sys.executable, str(folder)]
        return [*self.argv, *PIP_VENV, str(folder)]

    def prepare(self, recipe: Recipe, folder: Path) -> None:
        """Write what is to be installed into the environment's folder.

        pip knows no overrides. A recipe that has some is installed as the plain list of all that it names, without
        looking at what these require: that is right where the pins are complete, and ``checking.unmet`` tells
        where they aren't.
        """
        wanted = _plain_list(recipe) if self._without_dependencies(recipe) else recipe.requirements
        pins = [f"{name}=={version}" for name, version in recipe.pins.items()]
        for name, lines in ((REQUIREMENTS, wanted), (CONSTRAINTS, pins), (OVERRIDES, recipe.overrides)):
            (folder / name).write_text("".join(f"{line}\n" for line in lines))
        (folder / PROJECT).write_text(ALONE)

    def install(self, recipe: Recipe, folder: Path, environ: Mapping[str, str]) -> list[str]:
        """The command that installs what was prepared."""
        files = ["--constraint", str(folder / CONSTRAINTS)] if recipe.pins else []
        files += ["--requirement", str(folder / REQUIREMENTS)]
        python = str(folder / "bin" / "python")
        if self.name == "uv":
            command = [*self.argv, *PLAIN, "--project", str(folder), "pip", "install", "--python", python]
            command += ["--override", str(folder / OVERRIDES)] if recipe.overrides else []
            command += ["--no-index"] if environ.get("PIP_NO_INDEX", "").lower() in YES else []
            return [*command, *_torch_backend(recipe, environ), *files]
        alone = ["--no-deps"] if self._without_dependencies(recipe) else []
        return [python, *PIP_INSTALL, *alone, *files]

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Variables to be added to these.

        uv knows none of pip's variables; they are handed on where uv's own aren't set, so that a mirror that
        pip was pointed at serves both. In variables, since an address may hold a password.
        """
        if self.name != "uv":
            return {"PIP_USER": "0"}
        more: dict[str, str] = {}
        for pips, (uvs, others) in TAKEN_OVER.items():
            given = environ.get(pips, "")
            if given and not any(name in environ for name in (uvs, *others)):
                more[uvs] = ",".join(map(_whole, given.split())) if pips == "PIP_FIND_LINKS" else given
        if "UV_INDEX" in more and "UV_INDEX_STRATEGY" not in environ:
            more["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # pip looks for the best in all of them
        return more

    def _without_dependencies(self, recipe: Recipe) -> bool:
        return self.name == "pip" and bool(recipe.overrides)


PIP = Tool("pip", (sys.executable,))
"""The running Python's own venv, and pip in it."""


def uv() -> Tool | None:
    """uv, as a program or as a module of the running Python; None where there is none."""
    if program := shutil.which("uv"):
        return Tool("uv", (str(Path(program).absolute()),))
    if importlib.util.find_spec("uv") is not None:
        return Tool("uv", (sys.executable, "-P", "-m", "uv"))
    return None


def find_tool() -> Tool:
    """uv where there is one: it is many times faster, and knows overrides."""
    return uv() or PIP


def _plain_list(recipe: Recipe) -> list[str]:
    """Everything that a recipe names, each once: as it is pinned, else as it is overridden, else as it is asked for."""
    named = {canonical(requirement(each).name): each for each in (*recipe.requirements, *recipe.overrides)}
    named |= {name: f"{name}=={version}" for name, version in recipe.pins.items()}
    return [text for name, text in sorted(named.items()) if name not in recipe.left_out]


def _torch_backend(recipe: Recipe, environ: Mapping[str, str]) -> list[str]:
    """For the CPU, have uv take torch and its kin from where their CPU builds are.

    The default index has only torch for CUDA, several GB of it; the builds for the CPU are on an index of
    PyTorch's that uv knows. But what uv is told by this option beats every other source, so whoever named a
    source of their own, a mirror or a folder of wheels, perhaps because nothing else can be reached, would be
    passed over: then the pins ("+cpu") must find what they mean there.
    """
    own = any(environ.get(f"{tool}_{source}") for tool in ("UV", "PIP") for source in SOURCES)
    if recipe.accelerator != "cpu" or own or "UV_TORCH_BACKEND" in environ:
        return []
    return ["--torch-backend", "cpu"]


def _whole(place: str) -> str:
    """A path of pip's, which may be relative to where we are; an address as it is."""
    return place if "://" in place else os.path.abspath(place)


DOWNLOADING = re.compile(r"\s*Downloading (\S+) \(([\d.]+) ?([kKMG]?)i?B\)")
DOWNLOADED = re.compile(r"\s*Downloaded (\S+)")
UNITS = {"": 1, "k": 1 << 10, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
PHASES = (("Resolved ", "download"), ("Prepared ", "install"), ("Installing collected", "install"))
"""What begins with the lines in which an installer says that something is done."""


class Listener:
    """Hears what an installer says, tells how far it has come, and keeps the last lines."""

    def __init__(self, subject: str, on_progress: OnProgress) -> None:
        self.lines: list[str] = []
        self._subject, self._on_progress = subject, on_progress
        self._phase = "resolve"
        self._sizes: dict[str, int] = {}
        """Bytes of what is being downloaded, or was."""
        self._done = 0

    def begin(self, phase: str) -> None:
        """A phase starts."""
        self._phase = phase
        self._on_progress(Progress(self._subject, phase, 0.0))

    def __call__(self, line: str) -> None:
        """Hear one line."""
        self.lines = [*self.lines[-199:], line]
        for words, phase in PHASES:
            if line.startswith(words):
                self.begin(phase)
        if said := DOWNLOADING.match(line):
            self._sizes[said[1]] = int(float(said[2]) * UNITS[said[3]])
        elif said := DOWNLOADED.match(line):
            self._done += self._sizes.get(said[1], 0)
        else:
            return
        total = sum(self._sizes.values())
        # pip doesn't say that one is done, and begins the next one only then.
        done = self._done if self._phase == "download" else total - self._sizes[said[1]]
        known = total if self._phase == "download" else None
        self._on_progress(Progress(self._subject, "download", done, known, "bytes"))
