"""The program that looks at one plugin, in an interpreter of its own, and tells what it sees, step by step.

It judges nothing: ``llmengine_core.testing.contracts.plugins.contract`` does.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib import import_module, metadata, resources, util
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

from llmengine_core import declaration_rules
from llmengine_core.hookspecs import GROUP
from llmengine_core.interfaces.backend import Backend
from llmengine_core.interfaces.guided import GuidedDecoder
from llmengine_core.interfaces.observer import Observer
from llmengine_core.interfaces.quantizer import Quantizer
from llmengine_core.interfaces.runtime import Runtime
from llmengine_core.interfaces.storage import Storage
from llmengine_core.interfaces.store import Store
from llmengine_core.interfaces.transform import Transform
from llmengine_core.plugins import DECLARING_HOOKS, describe_error, import_object
from llmengine_core.registry import KINDS, Registry
from llmengine_core.testing.conformance.channel import Channel
from llmengine_core.testing.conformance.effects import Effects
from llmengine_core.testing.conformance.finding import find, folders, told
from llmengine_core.types.declarations import (
    BackendInfo,
    EnvironmentSpec,
    GuidedDecoderInfo,
    Info,
    ObserverInfo,
    QuantizerInfo,
    RuntimeInfo,
    StorageInfo,
    StoreInfo,
    TransformInfo,
)
from llmengine_core.types.models import ModelCard
from llmengine_core.types.plan import Problem

__all__ = ["main"]

GIVES: dict[type, type] = {
    BackendInfo: Backend,
    TransformInfo: Transform,
    QuantizerInfo: Quantizer,
    GuidedDecoderInfo: GuidedDecoder,
    StorageInfo: Storage,
    StoreInfo: Store,
    RuntimeInfo: Runtime,
    ObserverInfo: Observer,
}
"""What the object behind each declaration is."""


def main() -> None:
    """Look, and end."""
    look = Look(Channel())
    look.all()
    look.channel.close()


class Look:
    """Step after step. One that fails ends the look where all others need it."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.effects = Effects()
        self.declared: list[Info | ModelCard] = []
        self.given: list[tuple[str, Any]] = []
        self.seconds: float = channel.order["seconds"]
        self.own = time.process_time()
        """Seconds of CPU time that it took to start the interpreter with what of the core comes along."""

    def all(self) -> None:
        """All steps in order."""
        found: list[tuple[str, str, Distribution | None, EntryPoint | None]] = []

        def see() -> dict[str, Any]:
            found.append(find(self.channel.order["plugin"]))
            name, module, distribution, entry = found[0]
            self.effects.allow(folders(module))
            return {
                "name": name,
                "module": module,
                "metadata": told(distribution, entry),
                "own": self.own,
            }

        if self._step("found", see):
            return
        name, path, _, entry = found[0]
        modules: list[ModuleType] = []

        def load() -> dict[str, Any]:
            modules.append(entry.load() if entry is not None else import_module(path))
            return {}

        if self._step("import", load) or self.channel.order.get("only") == "import":
            return
        module = modules[0]
        self._step("hooks", lambda: self._hooks(module))
        if self._step("declared", lambda: self._declare(module)):
            return
        for _ in range(2):
            self._step("registry", lambda: _registry(name, module, installed=entry is not None))
        self._step("again", lambda: self._again(module))
        for info in self.declared:
            self._behind(info)
        if callable(getattr(module, "register_commands", None)):
            self._step("commands", lambda: _commands(module))

    def _behind(self, info: Info | ModelCard) -> None:
        """What is behind a declaration."""
        named = _named(info)
        if isinstance(info, Info) and type(info) in GIVES:
            self._step("factory", lambda: self._make(info), **named)
        if isinstance(info, BackendInfo) and info.probe is not None:
            self._step("probe", lambda: _probe(info), **named)
        masker = getattr(info, "masker", None)
        if isinstance(masker, str):
            self._step("masker", lambda: _source(masker), **named)
        spec = getattr(info, "environment", None)
        if isinstance(spec, EnvironmentSpec):
            self._step("environment", lambda: _environment(spec), **named)

    def _step(self, step: str, work: Callable[[], dict[str, Any]], **about: Any) -> bool:
        """Do one, tell what came of it; whether it failed."""
        self.channel.begin(step, self.seconds, about=about)
        before, seen = set(sys.modules), dict[str, Any]()
        error = None
        wall, cpu = time.monotonic(), time.process_time()
        self.effects.watch()
        try:
            seen = work()
        except BaseException as raised:
            error = describe_error(raised)
        effects = self.effects.found()
        cpu, wall = time.process_time() - cpu, time.monotonic() - wall
        self.channel.tell(
            step=step,
            about=about,
            error=error,
            seen=seen,
            cpu=cpu,
            wall=wall,
            effects=effects,
            modules=sorted(set(sys.modules) - before),
            printed=self.channel.printed(),
        )
        return error is not None

    def _hooks(self, module: ModuleType) -> dict[str, Any]:
        """The contract that it states; the hooks that it marks; functions that look like hooks."""
        marked, bare = [], []
        for name in dir(module):
            function = inspect.getattr_static(module, name)
            if hasattr(function, f"{GROUP}_impl"):
                marked.append(name)
            elif callable(function) and name.startswith("register_"):
                bare.append(name)
        contract = getattr(module, "CONTRACT", None)
        return {
            "contract": contract if type(contract) is int else repr(contract),
            "marked": marked,
            "bare": bare,
        }

    def _declare(self, module: ModuleType) -> dict[str, Any]:
        """All that its hooks give."""
        flaws, said = [], []
        for hook, given in _asked(module):
            if not isinstance(given, (list, tuple)):
                flaws.append(f"{hook} gives a {type(given).__name__}, not a list")
                continue
            for each in given:
                wrong = declaration_rules.flaws(each, DECLARING_HOOKS[hook])
                flaws += [f"{hook} declares {getattr(each, 'name', each)!r}: {flaw}" for flaw in wrong]
                self.given.append((hook, each))
                if not wrong:
                    self.declared.append(each)
                    said.append({**_named(each), "hook": hook, "declares": _plain(asdict(each))})
        return {"flaws": flaws, "declared": said}

    def _again(self, module: ModuleType) -> dict[str, Any]:
        """Whether its hooks give the same once more."""
        again = [(hook, each) for hook, given in _asked(module) for each in given]
        hooks = dict.fromkeys(hook for hook, _ in [*self.given, *again])
        return {
            "differing": [
                hook
                for hook in hooks
                if [each for name, each in self.given if name == hook]
                != [each for name, each in again if name == hook]
            ]
        }

    def _make(self, info: Info) -> dict[str, Any]:
        """What a factory gives, called as documented."""
        folder = Path(self.channel.order["folder"]) / info.name
        folder.mkdir(exist_ok=True)
        factory = import_object(info.factory)
        arguments: list[Any] = []
        if isinstance(info, (StorageInfo, StoreInfo)):
            urls = self.channel.order["urls"]
            scheme = next((each for each in sorted(info.schemes) if each in urls), min(info.schemes))
            arguments = [urls.get(scheme) or _throwaway(scheme, folder)]
        elif isinstance(info, RuntimeInfo):
            arguments = [folder]

        async def made() -> Any:
            return factory(*arguments)

        # The core makes what it keeps on its loop, the others in threads.
        on_loop = isinstance(info, (StorageInfo, StoreInfo, RuntimeInfo, ObserverInfo))
        given = asyncio.run(made()) if on_loop else factory(*arguments)
        wanted = GIVES[type(info)]
        return {"gives": type(given).__name__, "wanted": wanted.__name__, "right": isinstance(given, wanted)}


def _asked(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """What each of its hooks that declare gives."""
    for hook in DECLARING_HOOKS:
        function = getattr(module, hook, None)
        if function is not None and hasattr(function, f"{GROUP}_impl"):
            yield hook, function()


def _registry(name: str, module: ModuleType, *, installed: bool) -> dict[str, Any]:
    """Whether it takes its place among all that is installed."""
    registry = Registry.build(modules=[] if installed else [module])
    faults = [fault.message for fault in registry.faults if fault.plugin == name]
    loaded = [plugin for plugin in registry.plugins if plugin.name == name]
    return {
        "faults": faults,
        "loaded": len(loaded),
        "declared": [_plain(asdict(each)) for plugin in loaded for each in plugin.declared],
    }


def _probe(info: BackendInfo) -> dict[str, Any]:
    found = import_object(info.probe or "")()
    kinds = [type(each).__name__ for each in found if not isinstance(each, Problem)]
    return {
        "type": type(found).__name__,
        "others": kinds,
        "problems": [each.message for each in found if isinstance(each, Problem)],
        "right": isinstance(found, tuple) and not kinds,
    }


def _source(path: str) -> dict[str, Any]:
    """Whether a module is there, without importing it; and the names at its top, where its source tells."""
    module, _, name = path.partition(":")
    spec = util.find_spec(module)
    names = None
    if spec is not None and spec.origin is not None and spec.origin.endswith(".py"):
        import ast

        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
        names = [getattr(each, "name", None) for each in tree.body] + _bound(tree)
    return {
        "path": path,
        "there": spec is not None,
        "named": names is None or name.partition(".")[0] in names,
    }


def _bound(tree: Any) -> list[str]:
    import ast

    imported = [
        a.asname or a.name for each in tree.body if isinstance(each, ast.ImportFrom) for a in each.names
    ]
    assigned = [
        target.id
        for each in tree.body
        if isinstance(each, ast.Assign)
        for target in each.targets
        if isinstance(target, ast.Name)
    ]
    return [*imported, *assigned]


def _environment(spec: EnvironmentSpec) -> dict[str, Any]:
    """What a spec says, and what can be seen of it here."""
    pins: dict[str, str | None] = {}
    for build in spec.builds:
        if build.pins is not None:
            package, _, path = build.pins.partition(":")
            try:
                pins[build.pins] = resources.files(package).joinpath(path).read_text(encoding="utf-8")
            except Exception:
                pins[build.pins] = None
    try:
        version: str | None = metadata.version(spec.distribution)
    except metadata.PackageNotFoundError:
        version = None
    module = util.find_spec(spec.module.partition(".")[0]) is not None
    return {"spec": _plain(asdict(spec)), "pins": pins, "here": version, "module": module}


def _commands(module: ModuleType) -> dict[str, Any]:
    import click
    from click.testing import CliRunner

    scratch = click.Group("llmengine")
    takes = inspect.signature(module.register_commands).parameters
    before = time.process_time()
    module.register_commands(**({"cli": scratch} if "cli" in takes else {}))
    cpu = time.process_time() - before
    helped = {}
    for name, command in scratch.commands.items():
        done = CliRunner().invoke(command, ["--help"])
        helped[name] = {"exit_code": done.exit_code, "output": done.output[-500:]}
    return {"helped": helped, "cpu": cpu}


def _throwaway(scheme: str, folder: Path) -> str:
    """A URL that may be made up for a scheme, as of something new that is empty."""
    if scheme == "file":
        return folder.as_uri()
    if scheme == "sqlite":
        return f"sqlite:///{folder}/throwaway.db"
    return f"{scheme}://llmengine-conformance/throwaway"


def _named(declaration: Info | ModelCard) -> dict[str, str]:
    return {"kind": KINDS[type(declaration)], "name": declaration.name}


def _plain(value: Any) -> Any:
    """As JSON has it."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(_plain(each) for each in value)
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value
